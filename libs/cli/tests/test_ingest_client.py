"""What a replay does when ingest asks who it is, or to go slower."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from millstream_cli.errors import CommandFailed
from millstream_cli.ingest_client import IngestClient

LINE = b'{"flight_id": "a"}'


class Ingest:
    """Answers as it is told to, then 202; keeps the headers."""

    def __init__(self) -> None:
        self.first: list[web.Response] = []
        self.asked: list[str | None] = []
        app = web.Application()
        app.router.add_post("/v1/streams/{stream}/batch", self._take)
        self.server = TestServer(app)

    async def _take(self, request: web.Request) -> web.Response:
        self.asked.append(request.headers.get("authorization"))
        return self.first.pop(0) if self.first else web.Response(status=202, text="{}")


@pytest.fixture
async def ingest() -> AsyncIterator[Ingest]:
    made = Ingest()
    await made.server.start_server()
    yield made
    await made.server.close()


async def test_it_sends_the_key_of_the_environment_and_waits_as_long_as_it_is_asked_to(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLSTREAM_KEY", "ms_a_b")
    ingest.first.append(web.Response(status=429, headers={"retry-after": "1"}, text="{}"))
    client = IngestClient(str(ingest.server.make_url("/")))
    await client.start()
    began = time.monotonic()
    await client.send("flights-departed", [LINE], 0)
    await client.close()

    assert time.monotonic() - began >= 1.0
    assert ingest.asked == ["Bearer ms_a_b"] * 2


async def test_without_a_key_it_says_where_to_put_one(ingest: Ingest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MILLSTREAM_KEY", raising=False)
    ingest.first.append(web.json_response({"error": "unauthorized", "message": "say who you are"}, status=401))
    client = IngestClient(str(ingest.server.make_url("/")))
    await client.start()
    with pytest.raises(CommandFailed, match=r"ingest wants a key; give it in MILLSTREAM_KEY: .*say who you are"):
        await client.send("flights-departed", [LINE], 0)
    await client.close()
    assert ingest.asked == [None]
