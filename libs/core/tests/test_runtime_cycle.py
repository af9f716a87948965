"""Answers that leave in one write are, byte for byte, what uvicorn writes; and its timers are not needed for each request."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from millstream.runtime.connection import Connection

JSON = (b"content-type", b"application/json")
Address = tuple[str, int]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """A harbour master with a bad day at some of his doors."""
    while (await receive()).get("more_body"):
        pass
    path = scope["path"]
    size = 5 if path == "/short" else 4
    headers: list[tuple[bytes, bytes]] = [JSON, (b"content-length", b"%d" % size)]
    more = {
        "/odd": (b"x-ship", b"a\nb"),
        "/odd-value": (b"retry-after", b"1\r\nx-forged: 1"),
        "/strange": (b"x-ship", b"Ada"),
        "/leaves": (b"connection", b"close"),
    }
    if path in more:
        headers.append(more[path])
    status = 503 if path == "/busy" else 200
    await send({"type": "http.response.start", "status": status, "headers": [] if path == "/stream" else headers})
    if path == "/raises":
        raise ZeroDivisionError("a bug")
    if path in ("/parts", "/stream"):
        await send({"type": "http.response.body", "body": b"ab", "more_body": True})
        await send({"type": "http.response.body", "body": b"cd"})
        return
    await send({"type": "http.response.body", "body": b"abcd"})


@asynccontextmanager
async def harbour(
    protocol: type[HttpToolsProtocol], master: Callable[..., Awaitable[None]] = app, **settings: Any
) -> AsyncIterator[Address]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(master, http=protocol, lifespan="off", log_config=None, access_log=False, **settings)
        server = uvicorn.Server(config)
        running = asyncio.create_task(server._serve([listener]))
        async with asyncio.timeout(10):
            while not server.started:  # noqa: ASYNC110 - another task's state
                await asyncio.sleep(0.01)
        try:
            yield listener.getsockname()
        finally:
            server.should_exit = True
            await running


async def said(address: Address, request: bytes) -> bytes:
    """All that is answered until the connection ends, or nothing more comes, without the date."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(request)
    writer.write_eof()
    async with asyncio.timeout(10):
        found = await reader.read()
    writer.close()
    return re.sub(rb"date: [^\r]*\r\n", b"", found)


@pytest.mark.parametrize(
    "path", ["/", "/busy", "/odd", "/odd-value", "/strange", "/leaves", "/short", "/parts", "/stream", "/raises"]
)
@pytest.mark.parametrize("head", ["GET {} HTTP/1.1", "HEAD {} HTTP/1.1", "GET {} HTTP/1.0"])
async def test_an_answer_is_what_uvicorn_says(path: str, head: str) -> None:
    request = f"{head.format(path)}\r\nhost: h\r\nconnection: close\r\n\r\n".encode()
    twice = f"{head.format(path)}\r\nhost: h\r\n\r\n".encode() + request
    async with harbour(Connection) as ours, harbour(HttpToolsProtocol) as theirs:
        for one in (request, twice):
            got, wanted = await said(ours, one), await said(theirs, one)
            if path == "/raises":  # they have begun by then, and cut the line
                assert b"500 Internal Server Error" in got
                continue
            assert got == wanted


async def test_a_head_without_a_length_does_not_wait_for_its_body() -> None:
    began = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [JSON]})
        await began.wait()
        await send({"type": "http.response.body", "body": b"abcd"})

    async with harbour(Connection, slow) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        async with asyncio.timeout(10):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            began.set()
            assert b"abcd" in await reader.readuntil(b"0\r\n\r\n")
        writer.close()


async def test_a_connection_that_is_idle_is_closed_and_one_that_is_asked_meanwhile_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a clock that stands until the test moves it: a machine that stands still is not an idle client."""
    ask = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"
    loop = asyncio.get_running_loop()
    now = loop.time()

    async def passes(seconds: float) -> None:
        nonlocal now
        now += seconds
        for _ in range(20):  # what is due is done, and what came of it is read
            await asyncio.sleep(0)

    async with harbour(Connection, timeout_keep_alive=1) as address:
        reader, writer = await asyncio.open_connection(*address)
        with monkeypatch.context() as hands:
            hands.setattr(loop, "time", lambda: now)
            for _ in range(3):
                writer.write(ask)
                await reader.readuntil(b"abcd")
                await passes(0.6)  # longer in all than it may be idle
            await passes(0.3)
            assert not reader.at_eof()
            await passes(0.2)
            assert await reader.read() == b""
        writer.close()
