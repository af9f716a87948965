"""A model that runs elsewhere: asked over real sockets, and what becomes of its questions when it is away."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from millstream.contracts.events import ModelRef, PredictionServed, QuestionUnanswered
from millstream.contracts.package import MANIFEST_FILE, REMOTE_FILE, Remote, RemoteInput
from millstream.contracts.times import to_datetime
from millstream.testing.ports import free_port
from millstream_serving.adapters.remote_model import HttpModel, RemoteModels
from millstream_serving.errors import RemoteAway
from millstream_serving.handlers import ask, predict
from millstream_serving.settings import RemoteSettings

from .conftest import NOON, Stage, _manifest, state_of
from .test_serving_answer_stream import batch, doorway, published
from .test_serving_predict import Flight
from .test_serving_trials import HURRIED, PATIENT, rolls_out

LOOP = "flight-delay"
SETTINGS = RemoteSettings(
    model_hosts="127.0.0.1", remote_timeout=15.0, remote_connect=15.0, remote_failures=2, remote_rest=0.5
)
HURRY = 0.3
"""Seconds for one that is to be late; `remote_timeout` is for those that are to be in time on a busy machine."""


class Endpoint:
    """Answers as it is told to."""

    mode = "well"
    asked = 0

    async def infer(self, request: Request) -> Response:
        self.asked += 1
        if self.mode == "hangs":
            await asyncio.sleep(30)
        body = await request.body()
        head = msgspec.json.decode(body[: int(request.headers["inference-header-content-length"])])
        rows = head["inputs"][0]["shape"][0]
        if self.mode == "slow":
            await asyncio.sleep(0.02 * rows if rows <= 64 else 30)
        shape = {"one row": [1], "flat": [rows], "square": [rows, rows]}.get(self.mode, [rows, 1])
        size = 1
        for one in shape:
            size *= one
        said = {
            "well": JSONResponse({"outputs": [output(shape, [0.25] * size)]}),
            "500": JSONResponse({"error": "out of memory"}, 500),
            "moved": RedirectResponse("http://127.0.0.1:9/v2/models/other/infer"),
            "no json": Response(b"<html>"),
            "texts": JSONResponse({"outputs": [output(shape, ["0.5"] * size)]}),
            "no probability": JSONResponse({"outputs": [output(shape, [7.0] * size)]}),
        }
        return said.get(self.mode) or JSONResponse({"outputs": [output(shape, [0.5] * size)]})


def output(shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": "probability", "datatype": "FP32", "shape": shape, "data": data}


@asynccontextmanager
async def listening(app: Any, port: int) -> AsyncIterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", lifespan="off"))
    server.config.timeout_graceful_shutdown = 1
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(60):
        while not server.started:  # noqa: ASYNC110  (uvicorn has no event)
            await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}/v2/models/{LOOP}"
    finally:
        server.should_exit = True
        await serving


@pytest.fixture
async def endpoint() -> AsyncIterator[tuple[Endpoint, str]]:
    found = Endpoint()
    app = Starlette(routes=[Route(f"/v2/models/{LOOP}/infer", found.infer, methods=["POST"])])
    async with listening(app, free_port()) as url:
        yield found, url


@pytest.fixture(autouse=True)
async def remotes(stage: Stage) -> AsyncIterator[RemoteModels]:
    found = RemoteModels(SETTINGS, stage.metrics)
    stage.keeper._remotes = found
    yield found
    await found.close()


def package(stage: Stage, url: str, version: str = "1") -> ModelRef:
    """As trainer writes one."""
    inputs = [
        RemoteInput(name=name, datatype=kind, columns=[name])
        for name, kind in (("distance", "FP32"), ("carrier", "BYTES"), ("origin_delays__mean", "FP32"))
    ]
    raw = msgspec.json.encode(Remote(url=url, inputs=inputs, output="probability"))
    said = _manifest(version, {REMOTE_FILE: hashlib.sha256(raw).hexdigest()})
    files = {REMOTE_FILE: raw, MANIFEST_FILE: msgspec.json.encode(said)}
    uri, sha256 = stage.packages.save(f"{LOOP}/{version}", files)
    return ModelRef(version=version, run=f"run-{version}", uri=uri, sha256=sha256, at=to_datetime(NOON))


def asked_at(stage: Stage) -> HttpModel:
    """The champion, at the other end."""
    champion = stage.roster.standing(LOOP).champion
    assert champion is not None
    assert isinstance(champion.remote, HttpModel)
    return champion.remote


async def answers(stage: Stage, *events: dict[str, Any]) -> list[Any]:
    """Over HTTP, all at once."""
    questions = [ask(stage.loops[LOOP], event, asked_at=NOON, transport="http") for event in events]
    return list(await asyncio.gather(*map(stage.online.predict, questions)))


def counted(stage: Stage, outcome: str) -> float:
    return stage.metric("millstream_remote_model_requests_total", loop=LOOP, outcome=outcome)


def circuit(stage: Stage) -> float:
    return stage.metric("millstream_remote_model_circuit", loop=LOOP)


async def test_our_own_serving_is_asked_as_any_endpoint_of_the_protocol(
    stage: Stage, tmp_path: Path, flight: Flight
) -> None:
    far = Stage(project=stage.project, root=tmp_path / "far")
    far.caught_up.set()
    keeping = asyncio.create_task(far.keeper.run(far.caught_up))
    seen: list[dict[str, Any]] = []

    def score(row: Any) -> float:
        seen.append(dict(row))
        return 0.75 if row["carrier"] == "B6" else 0.25

    await far.obey(far.package("9", score))
    app = far.app()
    try:
        async with listening(app, free_port()) as url:
            await stage.obey(package(stage, url))
            found = await answers(stage, flight(1), flight(2, carrier="UA", distance=None), flight(3, carrier="É"))
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    assert [one.output["probability"] for one in found] == [0.75, 0.25, 0.25]
    assert [one.version for one in found] == ["1", "1", "1"]
    assert [row["carrier"] for row in seen[-3:]] == ["B6", "UA", "É"]
    assert seen[-2]["distance"] != seen[-2]["distance"], "null arrives as NaN"
    assert counted(stage, "answered") == 2, "the warm-up, and three questions in one request"


@pytest.mark.parametrize("mode", ["hangs", "500", "moved"])
async def test_one_that_is_away_is_left_alone_and_asked_again(
    stage: Stage, endpoint: tuple[Endpoint, str], flight: Flight, mode: str
) -> None:
    far, url = endpoint
    await stage.obey(package(stage, url))
    remote = asked_at(stage)
    remote._within, remote._clock = HURRY, lambda: stage.seconds
    far.mode = mode
    for number in range(2):
        (one,) = await answers(stage, flight(number))
        assert isinstance(one, QuestionUnanswered)
        assert one.reason == "model_failed"
    assert circuit(stage) == 2
    before = far.asked
    (one,) = await answers(stage, flight(3))
    assert isinstance(one, QuestionUnanswered)
    assert (far.asked, counted(stage, "not_asked")) == (before, 1), "an open circuit asks nobody"
    far.mode, remote._within = "well", SETTINGS.remote_timeout
    stage.seconds += SETTINGS.remote_rest
    (one,) = await answers(stage, flight(4))
    assert isinstance(one, PredictionServed)
    assert (circuit(stage), far.asked) == (0, before + 1)


async def test_the_protocol_says_what_happened_in_its_own_form(stage: Stage, endpoint: tuple[Endpoint, str]) -> None:
    far, url = endpoint
    await stage.obey(package(stage, url))
    app = stage.app()
    inputs = [
        {"name": "distance", "datatype": "FP32", "shape": [1, 1], "data": [2475.0]},
        {"name": "carrier", "datatype": "BYTES", "shape": [1, 1], "data": ["B6"]},
        {"name": "origin_delays__mean", "datatype": "FP32", "shape": [1, 1], "data": [12.0]},
    ]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://near") as http:
        well = await http.post(f"/v2/models/{LOOP}/infer", json={"inputs": inputs})
        far.mode = "500"
        away = await http.post(f"/v2/models/{LOOP}/infer", json={"inputs": inputs})
    assert (well.status_code, well.json()["outputs"][0]["data"]) == (200, [0.25])
    assert away.status_code == 503
    assert "no model has an answer to rows 0" in away.json()["error"]


@pytest.mark.parametrize("mode", ["one row", "square", "no json", "texts", "no probability"])
async def test_an_answer_of_another_shape_is_no_answer_and_opens_nothing(
    stage: Stage, endpoint: tuple[Endpoint, str], flight: Flight, mode: str
) -> None:
    far, url = endpoint
    await stage.obey(package(stage, url))
    far.mode = mode
    for number in range(3):
        found = await answers(stage, flight(number), flight(number + 10))
        kinds = {type(one) for one in found}
        assert kinds == {PredictionServed if mode in ("one row", "square") else QuestionUnanswered}
    assert circuit(stage) == 0, "it is there; what it says is wrong"


async def test_over_kafka_questions_wait_for_half_a_minute(
    stage: Stage, endpoint: tuple[Endpoint, str], flight: Flight
) -> None:
    far, url = endpoint
    await stage.obey(package(stage, url))
    for seconds in (0.0, 20.0):
        stage.seconds, far.mode = seconds, "500"
        with pytest.raises(RemoteAway):
            await doorway(stage)(batch(flight(1), flight(2)))
        far.mode = "well"
        (other,) = await answers(stage, flight(9))
        assert isinstance(other, PredictionServed), "it answers others meanwhile"
    stage.publisher.sent.clear()
    far.mode, stage.seconds = "500", 30.0
    assert await doorway(stage)(batch(flight(1), flight(2))) == []
    assert [type(one) for one in published(stage)] == [QuestionUnanswered] * 2
    with pytest.raises(RemoteAway):
        await doorway(stage)(batch(flight(1), flight(2)))


async def test_what_is_wrong_with_an_answer_is_not_waited_for(
    stage: Stage, endpoint: tuple[Endpoint, str], flight: Flight
) -> None:
    far, url = endpoint
    await stage.obey(package(stage, url))
    far.mode = "no probability"
    assert await doorway(stage)(batch(flight(1))) == []
    (one,) = published(stage)
    assert isinstance(one, QuestionUnanswered)


async def test_no_more_batches_wait_than_are_remembered(
    stage: Stage, endpoint: tuple[Endpoint, str], flight: Flight, monkeypatch: pytest.MonkeyPatch
) -> None:
    far, url = endpoint
    await stage.obey(package(stage, url))
    far.mode = "500"
    monkeypatch.setattr(predict, "MOST_SILENT", 2)
    for number in range(5):
        with pytest.raises(RemoteAway):
            await doorway(stage)(batch(flight(number)))
    assert [first for _, first in stage.predictor._silent] == ["B6-3", "B6-4"]


async def test_a_batch_is_asked_in_parts_that_a_slow_endpoint_answers_in_time(
    stage: Stage, endpoint: tuple[Endpoint, str], flight: Flight
) -> None:
    far, url = endpoint
    await stage.obey(package(stage, url))
    far.mode, far.asked = "slow", 0
    assert await doorway(stage)(batch(*(flight(number) for number in range(200)))) == []
    found = published(stage)
    assert [one.question for one in found] == [f"B6-{number}" for number in range(200)]
    assert {type(one) for one in found} == {PredictionServed}
    assert far.asked == 4
    far.mode = "well"
    assert await doorway(stage)(batch(*(flight(number) for number in range(200)))) == []


async def test_a_batch_that_is_not_answered_is_one_failure(
    stage: Stage, endpoint: tuple[Endpoint, str], flight: Flight
) -> None:
    far, url = endpoint
    await stage.obey(package(stage, url))
    far.mode = "500"
    for state in (0, 2):
        with pytest.raises(RemoteAway):
            await doorway(stage)(batch(*(flight(number) for number in range(200))))
        assert circuit(stage) == state
    assert counted(stage, "failed") == 8


async def test_who_never_had_a_turn_says_nothing_of_the_endpoint(
    stage: Stage, endpoint: tuple[Endpoint, str], flight: Flight
) -> None:
    _far, url = endpoint
    await stage.obey(package(stage, url))
    remote = asked_at(stage)
    remote._within = HURRY
    async with AsyncExitStack() as taken:
        for _ in range(SETTINGS.remote_at_once):
            await taken.enter_async_context(remote._free)
        for number in range(SETTINGS.remote_failures):
            (one,) = await answers(stage, flight(number))
            assert isinstance(one, QuestionUnanswered)
    assert (circuit(stage), counted(stage, "late"), counted(stage, "not_asked")) == (0, 0, 2)
    remote._within = SETTINGS.remote_timeout
    (one,) = await answers(stage, flight(9))
    assert isinstance(one, PredictionServed)


async def test_the_champion_answers_for_a_challenger_that_is_away(
    stage: Stage, endpoint: tuple[Endpoint, str], flight: Flight
) -> None:
    far, url = endpoint
    champion = stage.package("1", lambda row: 0.5)
    await stage.obey(champion, challenger=package(stage, url, "2"), share=1.0)
    (well,) = await answers(stage, flight(1))
    assert (well.version, well.fallback) == ("2", "")
    far.mode = "hangs"
    rolls_out(stage, guards=HURRIED)
    (one,) = await answers(stage, flight(2))
    assert (one.version, one.fallback) == ("1", "late")
    far.mode = "500"
    rolls_out(stage, guards=PATIENT)
    (one,) = await answers(stage, flight(3))
    assert (one.version, one.fallback) == ("1", "raised")
    assert (counted(stage, "late"), circuit(stage)) == (1, 2), "what is cut short is a failure too"


async def test_one_that_does_not_answer_is_not_ready_until_it_does(stage: Stage, flight: Flight) -> None:
    port, far = free_port(), Endpoint()
    stage.keeper.hear(state_of(1, package(stage, f"http://127.0.0.1:{port}/v2/models/{LOOP}")))
    await asyncio.sleep(0.5)
    assert stage.roster.standing(LOOP).champion is None
    assert stage.roster.standing(LOOP).refusal is None
    app = Starlette(routes=[Route(f"/v2/models/{LOOP}/infer", far.infer, methods=["POST"])])
    async with listening(app, port):
        async with asyncio.timeout(60):
            await stage.keeper.idle.wait()
        (one,) = await answers(stage, flight(1))
    assert one.output == {"probability": 0.25}


async def test_a_challenger_that_is_away_keeps_no_replica_from_starting(stage: Stage, flight: Flight) -> None:
    port, far = free_port(), Endpoint()
    challenger = package(stage, f"http://127.0.0.1:{port}/v2/models/{LOOP}", "2")
    stage.keeper.known.clear()
    stage.keeper.hear(state_of(1, stage.package("1", lambda row: 0.5), challenger=challenger, share=1.0))
    async with asyncio.timeout(60):
        await stage.keeper.known.wait()
    (one,) = await answers(stage, flight(1))
    assert (one.version, stage.roster.standing(LOOP).revision) == ("1", 0), "it does not obey the state yet"
    app = Starlette(routes=[Route(f"/v2/models/{LOOP}/infer", far.infer, methods=["POST"])])
    async with listening(app, port):
        await stage.heard(1)
        (one,) = await answers(stage, flight(2))
    assert (one.version, stage.roster.standing(LOOP).revision) == ("2", 1)


async def test_a_predecessor_that_is_away_is_done_without(stage: Stage, flight: Flight) -> None:
    previous = package(stage, f"http://127.0.0.1:{free_port()}/v2/models/{LOOP}", "1")
    await stage.obey(stage.package("2", lambda row: 0.5), previous=previous, watched=True)
    standing = stage.roster.standing(LOOP)
    assert standing.other is None
    assert standing.missing.startswith("previous 1: version 1 of flight-delay is asked elsewhere")
    (one,) = await answers(stage, flight(1))
    assert one.version == "2"


async def test_a_package_does_not_decide_whom_this_process_talks_to(stage: Stage) -> None:
    stage.keeper.hear(state_of(1, package(stage, "http://metadata.internal/v2/models/x")))
    await stage.heard(1)
    refusal = stage.roster.standing(LOOP).refusal
    assert refusal is not None
    assert "metadata.internal is not among the hosts" in refusal.reason
    assert "MILLSTREAM_MODEL_HOSTS" in refusal.reason
