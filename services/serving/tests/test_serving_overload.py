"""Too many questions at once, and questions that nobody can wait for: told early, in the words of the door that was asked."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn

from millstream.runtime.http import FrontedApp
from millstream.testing.ports import free_port
from millstream_serving.api import Gate

from .conftest import Stage, asking
from .test_serving_inference import MEAN, by_mean, question, tensor

INFER = "/v2/models/flight-delay/infer"
PREDICT = "/v1/loops/flight-delay/predict"
Flight = Callable[..., dict[str, Any]]


class Held:
    """Holds the store's answers back."""

    def __init__(self, stage: Stage) -> None:
        self.free = asyncio.Event()
        self.waiting = 0
        read = stage.features.read

        async def held(*asked: Any) -> Any:
            self.waiting += 1
            try:
                await self.free.wait()
            finally:
                self.waiting -= 1
            return await read(*asked)

        stage.features.read = held  # type: ignore[method-assign]


def shed(stage: Stage, reason: str) -> float:
    return stage.metric("millstream_questions_shed_total", reason=reason)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  (what is waited for has no event)
            await asyncio.sleep(0.005)


@pytest.fixture
async def http(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    """Both ways of asking, behind a gate for two."""
    app = stage.app()
    app.gate = Gate(stage.metrics, patience=30.0, most=2)
    await stage.obey(stage.package("3", by_mean))
    async with asking(app) as client:
        yield client


async def test_a_question_beyond_the_bound_is_told_at_once(
    stage: Stage, http: httpx.AsyncClient, flight: Flight
) -> None:
    store = Held(stage)
    under_way = [asyncio.create_task(http.post(PREDICT, json={"event": flight(number)})) for number in range(2)]
    await until(lambda: store.waiting > 0)
    for path, body, said in (
        (PREDICT, {"event": flight(3)}, lambda answer: answer["error"] == "overloaded" and answer["message"]),
        (INFER, question(), lambda answer: answer["error"]),
        ("/v2/models/flight-delay/versions/3/infer", question(), lambda answer: answer["error"]),
    ):
        refused = await http.post(path, json=body)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "ask again, or another replica" in said(refused.json())
    assert shed(stage, "overloaded") == 3
    assert (await http.get("/v1/loops")).status_code == 200, "looking is not asking"
    store.free.set()
    assert [one.status_code for one in await asyncio.gather(*under_way)] == [200, 200]
    assert (await http.post(PREDICT, json={"event": flight(3)})).status_code == 200, "places are given back"


async def test_who_sends_slowly_holds_no_place(stage: Stage, http: httpx.AsyncClient, flight: Flight) -> None:
    begun = asyncio.Event()
    body = json.dumps({"event": flight()}).encode()

    async def slowly() -> AsyncIterator[bytes]:
        yield body[:10]
        begun.set()
        await asyncio.sleep(3600)

    headers = {"content-type": "application/json"}
    slow = [asyncio.create_task(http.post(PREDICT, content=slowly(), headers=headers)) for _ in range(5)]
    # httpx's own transport hands a body over whole, so half of one is put to the app itself.
    app = http._transport.app  # type: ignore[attr-defined]
    parts: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    parts.put_nowait({"type": "http.request", "body": body[:10], "more_body": True})
    scope = {
        "type": "http", "method": "POST", "path": PREDICT, "raw_path": PREDICT.encode(), "query_string": b"",
        "headers": [(b"content-type", b"application/json")], "http_version": "1.1", "scheme": "http",
    }  # fmt: skip

    async def nowhere(message: Any) -> None:
        pass

    halves = [asyncio.create_task(app(scope, parts.get, nowhere)) for _ in range(5)]
    await begun.wait()
    assert (await http.post(PREDICT, json={"event": flight(1)})).status_code == 200
    for one in (*slow, *halves):
        one.cancel()
    await asyncio.gather(*slow, *halves, return_exceptions=True)


async def test_a_deadline_ends_the_wait_for_a_store_that_hangs(
    stage: Stage, http: httpx.AsyncClient, flight: Flight
) -> None:
    store = Held(stage)
    began = time.monotonic()
    # Its own deadline, and not that of a request without one, half a minute later.
    late = await http.post(PREDICT, json={"event": flight()}, headers={"x-request-timeout-ms": "100"})
    assert time.monotonic() - began < 20.0
    assert (late.status_code, late.json()["error"]) == (504, "deadline")
    assert "no answer within 100 ms" in late.json()["message"]
    assert shed(stage, "deadline") == 1
    store.free.set()
    assert (await http.post(PREDICT, json={"event": flight()})).status_code == 200


@pytest.mark.parametrize("said", ["0", "-5", "1.5", "soon", "", "60001", "9" * 400, "٣"])
async def test_a_deadline_that_is_none_is_refused(http: httpx.AsyncClient, flight: Flight, said: str) -> None:
    headers = {"x-request-timeout-ms": said.encode()}
    refused = await http.post(PREDICT, json={"event": flight()}, headers=headers)
    assert (refused.status_code, refused.json()["error"]) == (400, "bad_timeout")
    assert "is b'" not in refused.json()["message"]
    refused = await http.post(INFER, json=question(), headers=headers)
    assert refused.status_code == 400
    assert "send whole milliseconds, 1 to 60000" in refused.json()["error"]


@asynccontextmanager
async def listening(app: FrontedApp) -> AsyncIterator[int]:
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", lifespan="off", access_log=False))
    running = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    yield port
    server.should_exit = True
    await running


async def test_under_overload_those_who_are_answered_do_not_wait_long(stage: Stage) -> None:
    """Three hundred clients ask on and on, eight at a time are let in: what is answered is answered soon."""
    app = stage.app(hot=True)
    app.gate = Gate(stage.metrics, patience=30.0, most=8)
    slow = {"rows": 0}

    def slowly(row: Any) -> float:
        slow["rows"] += 1
        time.sleep(0.002)
        return by_mean(row)

    await stage.obey(stage.package("3", slowly))
    await stage.keeper.known.wait()
    body = json.dumps(question(**{MEAN: tensor(MEAN, [12.5])})).encode()
    head = f"POST {INFER} HTTP/1.1\r\nhost: serving\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    answered: list[int] = []
    """For each, how many rows were scored while it waited: unlike seconds, that is the same on a busy machine."""
    told = 0
    ending = time.monotonic() + 3.0

    async def client(port: int) -> None:
        nonlocal told
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() < ending or min(len(answered), told) <= 100:  # a busy machine takes longer
            before = slow["rows"]
            writer.write(head.encode() + body)
            first = await reader.readuntil(b"\r\n\r\n")
            length = int(
                next(one for one in first.lower().split(b"\r\n") if one.startswith(b"content-length")).split()[1]
            )
            await reader.readexactly(length)
            if first.startswith(b"HTTP/1.1 200"):
                answered.append(slow["rows"] - before)
            else:
                told += 1
                assert first.startswith(b"HTTP/1.1 503")
                assert b"retry-after: 1" in first.lower()
                await asyncio.sleep(0.05)
        writer.close()
        await writer.wait_closed()

    async with listening(app) as port:
        await asyncio.gather(*(client(port) for _ in range(300)))
    assert len(answered) > 100
    assert told > 100
    assert shed(stage, "overloaded") == told
    longest = sorted(answered)[int(len(answered) * 0.99)]
    # Those let in before it, and those of the moment in which it came. In a queue it would be 300, each time.
    assert longest <= 50, f"p99 {longest} rows before an answer, of {len(answered)} answers; {told} told to come again"
