"""A service's app on a real socket, by the server and the connection that it has when it runs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from millstream.runtime.connection import Connection


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[tuple[str, int]]:
    """Its address. The app's own start is left out: nothing of Kafka is asked for."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, http=Connection, lifespan="off", log_config=None))
        running = asyncio.create_task(server._serve([listener]))
        async with asyncio.timeout(10):
            while not server.started:  # noqa: ASYNC110 - another task's state
                await asyncio.sleep(0.01)
        yield listener.getsockname()
        server.should_exit = True
        await running
