"""Connections on a real socket: slow heads and clients that do not read are let go, half-closed ones get their answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
import uvicorn

from millstream.runtime import connection
from millstream.runtime.connection import Connection

LARGE = 8 * 1024 * 1024


async def app(scope: Any, receive: Any, send: Any) -> None:
    """A harbour that answers each ship with its whole log; when it is full, before the ship has said what it brings."""
    size = LARGE if scope["path"] == "/log" else 5
    while scope["path"] != "/full" and (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
    await send({"type": "http.response.body", "body": b"x" * size})


@pytest.fixture
async def harbour(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[uvicorn.Server, tuple[str, int]]]:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(connection, "UNREAD_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, http=Connection, lifespan="off", log_config=None))
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        running = asyncio.create_task(server._serve([listener]))
        async with asyncio.timeout(10):
            while not server.started:  # noqa: ASYNC110 - another task's state
                await asyncio.sleep(0.01)
        yield server, listener.getsockname()
        server.should_exit = True
        await running


async def _trickle(writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET / HTTP/1.1\r\nhost: ")
    while not writer.is_closing():
        writer.write(b"G")
        await asyncio.sleep(0.05)


async def _cut(reader: asyncio.StreamReader) -> None:
    """Until the other side ends the connection, by whatever means."""
    with suppress(ConnectionError):
        assert await reader.read() == b""


async def test_a_head_that_trickles_is_cut(harbour: Any) -> None:
    _, address = harbour
    reader, writer = await asyncio.open_connection(*address)
    async with asyncio.timeout(10):
        trickle = asyncio.create_task(_trickle(writer))
        await _cut(reader)
        trickle.cancel()
    writer.close()


async def test_a_second_head_that_trickles_is_cut_too(harbour: Any) -> None:
    _, address = harbour
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
    assert (await reader.readuntil(b"xxxxx")).startswith(b"HTTP/1.1 200")
    writer.write(b"GET / HTTP/1.1\r\nx")
    async with asyncio.timeout(10):
        await _cut(reader)
    writer.close()


async def test_who_reads_nothing_of_its_answer_is_let_go(harbour: Any) -> None:
    server, address = harbour
    with socket.create_connection(address) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /log HTTP/1.1\r\nhost: h\r\n\r\n")
        async with asyncio.timeout(10):
            while not server.server_state.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            while server.server_state.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_a_client_that_has_said_all_gets_its_answer(harbour: Any) -> None:
    _, address = harbour
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi")
    writer.write_eof()
    async with asyncio.timeout(10):
        assert (await reader.readuntil(b"xxxxx")).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("length", [b"content-length: %d" % LARGE, b"transfer-encoding: chunked"])
async def test_who_is_answered_before_it_has_said_all_is_heard_out(harbour: Any, length: bytes) -> None:
    """Clients that ask for one answer and the end of the connection, as Python's urllib does."""
    _, address = harbour
    body = b"x" * LARGE if b"chunked" not in length else b"%x\r\n%s\r\n0\r\n\r\n" % (LARGE, b"x" * LARGE)
    reader, writer = await asyncio.open_connection(*address)
    async with asyncio.timeout(20):
        writer.write(b"POST /full HTTP/1.1\r\nhost: h\r\nconnection: close\r\n%s\r\n\r\n" % length)
        for first in range(0, len(body), 65536):
            writer.write(body[first : first + 65536])
            await writer.drain()
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\nxxxxx")
    writer.close()


async def test_who_never_says_the_rest_is_not_waited_for(harbour: Any) -> None:
    server, address = harbour
    server.config.timeout_keep_alive = 1
    reader, writer = await asyncio.open_connection(*address)
    async with asyncio.timeout(10):
        writer.write(b"POST /full HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 100\r\n\r\nx")
        assert (await reader.read()).endswith(b"xxxxx")
    writer.close()
