"""HTTP doorway: what a loop is at, and a person's word."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from millstream.contracts.events import Cause, Decision, RetrainDecided, RetrainRequested
from millstream.runtime.http import http_app
from millstream_trainer.adapters.memory import MemoryAnnouncer, MemoryEnds, MemoryExecutor, MemoryPackages
from millstream_trainer.api import add_routes
from millstream_trainer.handlers import Trainer, journal
from millstream_trainer.metrics import TrainerMetrics

RETRAIN = "/v1/loops/tides/retrain"


@pytest.fixture
def announcer() -> MemoryAnnouncer:
    return MemoryAnnouncer()


@pytest.fixture
def trainer(tides: Any, announcer: MemoryAnnouncer) -> Trainer:
    return Trainer(
        rules={"tides": tides.rules},
        streams=[],
        announcer=announcer,
        ends=MemoryEnds(),
        executor=MemoryExecutor(lambda spec: "not here"),
        packages=MemoryPackages(),
        metrics=TrainerMetrics(CollectorRegistry()),
    )


@pytest.fixture
async def client(trainer: Trainer, announcer: MemoryAnnouncer) -> AsyncIterator[httpx.AsyncClient]:
    app = http_app(title="trainer")
    add_routes(app, trainer, announcer)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://trainer") as found:
        yield found


async def test_a_loop_without_a_model_says_so(client: httpx.AsyncClient) -> None:
    (loop,) = (await client.get("/v1/loops")).json()["loops"]
    assert loop["loop"] == "tides"
    assert (loop["champion"], loop["running"], loop["last_decision"], loop["next_schedule"]) == (None, None, None, None)


async def test_a_run_under_way_shows_with_its_decision_and_the_next_schedule(
    client: httpx.AsyncClient, trainer: Trainer, tides: Any
) -> None:
    trainer.remember(
        RetrainDecided(
            id="d1",
            loop="tides",
            request="labels-10",
            cause=Cause.FIRST_MODEL,
            decision=Decision.ACCEPTED,
            reason="5000 labels have matured",
            at=tides.day(10),
            run="r1",
        )
    )
    (loop,) = (await client.get("/v1/loops")).json()["loops"]
    assert loop["running"] == {"run": "r1", "cause": "first_model", "attempt": 0, "at": "2013-01-11T00:00:00Z"}
    assert loop["last_decision"]["reason"] == "5000 labels have matured"
    assert loop["next_schedule"] == "2013-02-10T00:00:00Z"


async def test_ada_asks_for_a_retrain_and_her_word_is_in_the_topic(
    client: httpx.AsyncClient, announcer: MemoryAnnouncer
) -> None:
    answer = await client.post("/v1/loops/tides/retrain", json={"by": "Ada", "reason": "the harbour was rebuilt"})
    assert answer.status_code == 202
    (request,) = announcer.of(RetrainRequested)
    assert (request.id, request.by, request.cause) == (answer.json()["request"], "Ada", Cause.MANUAL)


async def test_an_unknown_loop_is_404_and_names_the_known_ones(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/loops/winds/retrain", json={"by": "Ada", "reason": "x"})
    assert answer.status_code == 404
    assert answer.json() == {"error": "unknown_loop", "message": "no loop 'winds'; the project has tides"}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"by": "Ada"}', 422, "bad_body"),
        (b'{"by": "Ada", "reason": ""}', 422, "bad_body"),
        (b'{"by": null, "reason": "x"}', 422, "bad_body"),
        (b'{"by": "Ada", "reason": "x", "loop": "winds"}', 422, "bad_body"),
        (b'{"by": "Ada", "reason": ' + b"[" * 100 + b"]" * 100 + b"}", 422, "too_deep"),
        (b'{"by": "Ada", "reason": "\xff"}', 400, "invalid_utf8"),
        (b'{"by": "Ada", "reason": ', 400, "bad_json"),
        (b'{"by": "Ada", "reason": "' + b"x" * 2 * 1024 * 1024 + b'"}', 413, "body_too_large"),
    ],
    ids=["no reason", "empty", "null", "unknown field", "deep", "no UTF-8", "torn", "2 MiB"],
)
async def test_a_wish_that_cannot_be_read_is_refused_and_not_announced(
    client: httpx.AsyncClient, announcer: MemoryAnnouncer, body: bytes, status: int, code: str
) -> None:
    answer = await client.post(RETRAIN, content=body, headers={"content-type": "application/json"})

    assert (answer.status_code, answer.json()["error"]) == (status, code)
    assert not announcer.said


async def test_a_wish_without_a_reason_is_told_what_to_write(client: httpx.AsyncClient) -> None:
    said = (await client.post(RETRAIN, json={"by": "Ada"})).json()

    assert said["faults"] == [{"pointer": "/reason", "message": "Field required"}]
    assert said["message"].startswith("/reason: Field required; send it like {")


async def test_a_form_is_no_wish(client: httpx.AsyncClient, announcer: MemoryAnnouncer) -> None:
    answer = await client.post(RETRAIN, data={"by": "Ada", "reason": "x"})

    assert (answer.status_code, answer.json()["error"]) == (415, "media_type")
    assert not announcer.said


async def test_kafka_away_is_503(client: httpx.AsyncClient, announcer: MemoryAnnouncer) -> None:
    announcer.away = 1
    answer = await client.post(RETRAIN, json={"by": "Ada", "reason": "x"})

    assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")
    assert (answer.headers["retry-after"], bool(answer.json()["message"])) == ("1", True)


async def test_the_documentation_shows_a_wish_that_is_granted(client: httpx.AsyncClient) -> None:
    said = (await client.get("/openapi.json")).json()

    door = said["paths"]["/v1/loops/{loop}/retrain"]["post"]
    content = door["requestBody"]["content"]["application/json"]
    assert content["schema"]["required"] == ["by", "reason"]
    assert (await client.post(RETRAIN, json=content["example"])).status_code == 202
    assert set(door["responses"]) >= {"202", "400", "404", "413", "415", "422", "503", "default"}


async def test_what_came_of_a_request_can_be_asked_for(
    client: httpx.AsyncClient, trainer: Trainer, announcer: MemoryAnnouncer, tides: Any
) -> None:
    await trainer.hear(tides.matured(1, matured=1))
    id = (await client.post(RETRAIN, json={"by": "Ada", "reason": "the runway"})).json()["request"]
    assert (await client.get(f"/v1/loops/tides/requests/{id}")).json() == {"request": id, "decided": []}
    (asked,) = announcer.of(RetrainRequested)
    await trainer.hear(asked)
    (decided,) = (await client.get(f"/v1/loops/tides/requests/{id}")).json()["decided"]
    assert (decided["type"], decided["caused_by"]) == ("millstream.retrain.decided.v1", id)
    assert (decided["decision"], decided["reason"]) == ("accepted", "Ada asked: the runway")
    assert (await client.get(f"/v1/loops/seas/requests/{id}")).status_code == 404


async def test_answers_that_are_kept_are_bounded(
    client: httpx.AsyncClient, trainer: Trainer, tides: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MOST_ANSWERED", 2)
    await trainer.hear(tides.matured(1, matured=1))
    for name in ("one", "two", "three"):
        await trainer.hear(tides.wish(name, 2))
    counts = [
        len((await client.get(f"/v1/loops/tides/requests/{id}")).json()["decided"]) for id in ("one", "two", "three")
    ]
    assert counts == [0, 1, 1]
