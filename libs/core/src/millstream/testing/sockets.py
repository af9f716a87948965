"""A service's app on a real socket, by the server and the connection that it has when it runs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import uvicorn

from millstream.runtime.connection import Connection

SILENCE = 30.0
"""Seconds after which no more is waited for: longer than a busy machine stands still, and than any door waits in a test."""


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[tuple[str, int]]:
    """Its address. The app's own start is left out: nothing of Kafka is asked for."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, http=Connection, lifespan="off", log_config=None))
        running = asyncio.create_task(server._serve([listener]))
        async with asyncio.timeout(30):
            while not server.started:  # noqa: ASYNC110 - another task's state
                await asyncio.sleep(0.01)
        yield listener.getsockname()
        server.should_exit = True
        await running


async def said(address: tuple[str, int], raw: bytes, *, half: bool = False, whole: bool = False) -> bytes:
    """All that is answered to `raw` until the connection ends, or an object does (unless `whole`), or nothing comes for a
    while. `half`: the sender closes his side when he has said it."""
    reader, writer = await asyncio.open_connection(*address)
    found = b""
    with suppress(ConnectionError, TimeoutError):
        writer.write(raw)
        if half:
            writer.write_eof()
        async with asyncio.timeout(SILENCE):
            while piece := await reader.read(65536):
                found += piece
                if b"}" in piece and not whole:
                    break
    writer.close()
    return found


@asynccontextmanager
async def crowd(
    address: tuple[str, int], raw: bytes, many: int, inside: Callable[[], bool]
) -> AsyncIterator[list[asyncio.Task[bytes]]]:
    """`many` who say `raw` and then nothing, once they are all `inside`; what each is answered."""
    wires = [await asyncio.open_connection(*address) for _ in range(many)]
    for _, writer in wires:
        writer.write(raw)
    async with asyncio.timeout(SILENCE):
        while not inside():  # noqa: ASYNC110 - another task's state
            await asyncio.sleep(0.01)
    answers = [asyncio.create_task(reader.readuntil(b"}")) for reader, _ in wires]
    try:
        yield answers
    finally:
        for _, writer in wires:
            writer.close()
        await asyncio.gather(*answers, return_exceptions=True)


def status_of(answer: bytes) -> int:
    """0 where there was none."""
    return int(answer.split(b" ", 2)[1]) if answer else 0
