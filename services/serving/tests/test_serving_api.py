"""The HTTP doorway: one question asked as of now, and why there is no answer where there is none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from millstream.contracts.envelope import envelope_of
from millstream.contracts.events import PredictionServed, decode_event
from millstream.runtime.http import KNOWN_AT_STATUS, LARGEST_BODY, STATUS
from millstream_serving.api import ERRORS, loops
from millstream_serving.domain.answer import empty_views

from .conftest import Stage

Flight = Callable[..., dict[str, Any]]
UNANSWERED = "millstream_questions_unanswered_total"
PREDICT = "/v1/loops/flight-delay/predict"
JSON = {"content-type": "application/json"}


async def promote(stage: Stage, revision: int, probability: float) -> None:
    stage.promote(revision, stage.package(str(revision), lambda row: probability))
    await stage.heard(revision)


async def test_a_question_is_answered_as_of_now_and_put_on_record(
    stage: Stage, http: httpx.AsyncClient, flight: Flight
) -> None:
    await promote(stage, 1, 0.25)
    response = await http.post(PREDICT, json={"event": flight()})
    assert response.status_code == 200
    said = response.json()
    assert (said["probability"], said["version"], said["asked_at"]) == (0.25, "1", "2013-06-01T12:00:00Z")
    assert said["features"] == {"origin_delays__mean": 12.1}
    (record,) = stage.publisher.sent
    logged = decode_event(envelope_of(record.headers).type, record.value)
    assert isinstance(logged, PredictionServed)
    assert (logged.id, logged.transport) == (said["prediction_id"], "http")
    assert logged.output["probability"] == said["probability"]


async def test_the_answer_to_an_unknown_entity_names_the_views_that_know_nothing(
    stage: Stage, http: httpx.AsyncClient, flight: Flight
) -> None:
    await promote(stage, 1, 0.25)
    known = (await http.post(PREDICT, json={"event": flight()})).json()
    unknown = (await http.post(PREDICT, json={"event": flight(24, origin="XXX")})).json()

    assert (known["features"], known["empty_views"]) == ({"origin_delays__mean": 12.1}, [])
    assert (unknown["features"], unknown["empty_views"]) == ({"origin_delays__mean": None}, ["origin_delays"])
    first_release = {
        *("prediction_id", "loop", "question", "probability", "version", "variant", "asked_at", "entities", "inputs"),
        *("features", "timings_ms", "stale_views", "store_away"),
    }
    assert unknown.keys() == first_release | {"empty_views"}, "what callers read stays, what is new comes beside it"


@pytest.mark.parametrize(
    ("features", "more", "empty"),
    [
        ({"a__mean": None, "a__count": 0, "b__count": 1}, {}, ["a"]),
        ({"a__sum": 0.0, "a__count": 0}, {}, []),
        ({"a__mean": None}, {"given": True}, []),
        ({"a__mean": None}, {"store_away": True}, []),
        ({}, {}, []),
    ],
    ids=["null and no event", "a sum of 0 is known", "nobody looked", "nobody could look", "no features"],
)
def test_a_view_is_empty_where_nothing_is_known(
    features: dict[str, float | int | None], more: dict[str, bool], empty: list[str]
) -> None:
    base: dict[str, Any] = dict.fromkeys(("id", "loop", "question", "key", "version", "variant", "transport"), "x")
    base |= {"asked_at": datetime(2013, 6, 1, tzinfo=UTC), "entities": {}, "inputs": {}, "output": {}, "timings_ms": {}}
    assert empty_views(PredictionServed(**base, features=features, **more)) == empty


@pytest.mark.parametrize("trusts_known_at", [True])
async def test_a_replayed_mill_is_asked_as_of_its_own_time(
    stage: Stage, http: httpx.AsyncClient, flight: Flight
) -> None:
    await promote(stage, 1, 0.25)
    asked_at = "2013-06-01T11:58:00Z"
    said = (await http.post(PREDICT, json={"event": flight()}, headers={"ce-knownat": asked_at})).json()
    assert said["asked_at"] == asked_at
    bad = await http.post(PREDICT, json={"event": flight()}, headers={"ce-knownat": "noon"})
    assert (bad.status_code, bad.json()["error"]) == (400, "invalid_known_at")
    future = await http.post(PREDICT, json={"event": flight()}, headers={"ce-knownat": "9999-12-31T00:00:00Z"})
    assert (future.status_code, future.json()["error"]) == (400, "invalid_known_at")
    assert "more than 5 minutes ahead" in future.json()["message"]


async def test_nobody_else_tells_serving_the_time(stage: Stage, http: httpx.AsyncClient, flight: Flight) -> None:
    await promote(stage, 1, 0.25)
    refused = await http.post(PREDICT, json={"event": flight()}, headers={"ce-knownat": "2013-06-01T11:58:00Z"})
    assert (refused.status_code, refused.json()["error"]) == (403, "known_at_not_trusted")
    assert not stage.publisher.sent


async def test_without_a_model_the_answer_says_what_it_waits_for(http: httpx.AsyncClient, flight: Flight) -> None:
    response = await http.post(PREDICT, json={"event": flight()})
    assert response.status_code == 503
    assert response.json() == {
        "error": "no_model",
        "message": "flight-delay has no model yet: the first is trained once 20,000 labels have matured; "
        "see GET /v1/loops/flight-delay",
    }


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"{", 400, "bad_json"),
        (b'{"event": {"flight_id": "\xff"}}', 400, "invalid_utf8"),
        (b'{"event": []}', 422, "bad_body"),
        (b'{"event": {}, "as_of": "yesterday"}', 422, "bad_body"),
        (b'{"event":' * 5000 + b"1" + b"}" * 5000, 422, "too_deep"),
        (b'{"event": {"extra": ' + b"[" * 100 + b"]" * 100 + b"}}", 422, "too_deep"),
        (b'{"a":', 400, "bad_json"),
        (b'{"event": {"distance": 1e999}}', 400, "bad_json"),
        (b'{"event": {}}', 422, "bad_question"),
        (b" " * (LARGEST_BODY + 1), 413, "body_too_large"),
    ],
    ids=[
        "torn",
        "no UTF-8",
        "a list",
        "unknown field",
        "deep",
        "deep inside",
        "torn elsewhere",
        "too large a number",
        "no fields",
        "too large",
    ],
)
async def test_a_bad_body_is_refused_by_the_table(
    http: httpx.AsyncClient, body: bytes, status: int, error: str
) -> None:
    response = await http.post(PREDICT, content=body, headers=JSON)
    assert (response.status_code, response.json()["error"]) == (status, error)


async def test_a_body_that_does_not_say_its_size_is_counted_as_it_comes(http: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 64 * LARGEST_BODY:
            sent += 65536
            yield b" " * 65536

    response = await http.post(PREDICT, content=endless(), headers=JSON)
    assert response.status_code == 413


async def test_only_json_is_a_question(http: httpx.AsyncClient, flight: Flight) -> None:
    for headers, error in (
        ({"content-type": "text/plain"}, "media_type"),
        ({}, "media_type"),
        (JSON | {"content-encoding": "gzip"}, "content_encoding"),
    ):
        response = await http.post(PREDICT, content=json.dumps({"event": flight()}), headers=headers)
        assert (response.status_code, response.json()["error"]) == (415, error)


async def test_a_body_that_trickles_is_given_up(http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "BODY_SECONDS", 0.01)

    async def trickle() -> AsyncIterator[bytes]:
        yield b'{"event":'
        await asyncio.Event().wait()

    response = await http.post(PREDICT, content=trickle(), headers=JSON)
    assert (response.status_code, response.json()["error"]) == (408, "body_timeout")


async def test_faults_point_into_the_body(http: httpx.AsyncClient, flight: Flight) -> None:
    response = await http.post(PREDICT, json={"event": flight(distance=[1], carrier=7)})
    assert response.status_code == 422
    assert [fault["pointer"] for fault in response.json()["faults"]] == ["/event/carrier", "/event/distance"]


async def test_a_distance_in_words_is_a_bad_question(stage: Stage, http: httpx.AsyncClient, flight: Flight) -> None:
    await promote(stage, 1, 0.25)
    response = await http.post(PREDICT, json={"event": flight(distance="far")})
    assert (response.status_code, response.json()["error"]) == (422, "bad_question")
    assert "/distance" in response.json()["message"]


async def test_a_question_from_the_future_is_refused(http: httpx.AsyncClient, flight: Flight) -> None:
    response = await http.post(PREDICT, json={"event": flight(announced_at="2013-06-01T13:00:00Z")})
    assert response.status_code == 422
    assert response.json()["faults"][0]["pointer"] == "/event/announced_at"


async def test_an_unknown_loop_is_404_and_names_the_known_ones(http: httpx.AsyncClient, flight: Flight) -> None:
    for response in (
        await http.post("/v1/loops/bike-demand/predict", json={"event": flight()}),
        await http.get("/v1/loops/bike-demand"),
    ):
        assert response.status_code == 404
        assert "flight-delay" in response.json()["message"]


async def test_an_answer_that_is_not_on_record_is_not_given(
    stage: Stage, http: httpx.AsyncClient, flight: Flight
) -> None:
    await promote(stage, 1, 0.25)
    stage.publisher.away = True
    response = await http.post(PREDICT, json={"event": flight()})
    assert (response.status_code, response.json()["error"]) == (503, "not_logged")
    assert "probability" not in response.json()
    assert stage.metric(UNANSWERED, loop="flight-delay", reason="unavailable", transport="http") == 1


async def test_with_the_store_away_the_answer_is_503(stage: Stage, http: httpx.AsyncClient, flight: Flight) -> None:
    await promote(stage, 1, 0.25)
    stage.features.away = True
    response = await http.post(PREDICT, json={"event": flight()})
    assert (response.status_code, response.json()["error"]) == (503, "unavailable")
    assert stage.metric(UNANSWERED, loop="flight-delay", reason="unavailable", transport="http") == 1
    assert response.headers["retry-after"] == "1"


async def test_who_answers_is_shown_with_its_revision(stage: Stage, http: httpx.AsyncClient) -> None:
    nobody = (await http.get("/v1/loops/flight-delay")).json()
    assert (nobody["revision"], nobody["champion"]) == (0, None)
    await promote(stage, 4, 0.25)
    (shown,) = (await http.get("/v1/loops")).json()["loops"]
    assert (shown["revision"], shown["step"], shown["since"]) == (4, "champion", "2013-06-01T12:00:00Z")
    assert shown["champion"]["version"] == "4"
    assert shown["champion"]["feature_service"] == "delay_v1"
    assert [column["name"] for column in shown["champion"]["inputs"]] == ["distance", "carrier", "origin_delays__mean"]
    stage.promote(5, stage.package("5", lambda row: float("nan")))
    await stage.heard(5)
    shown = (await http.get("/v1/loops/flight-delay")).json()
    assert (shown["revision"], shown["heard"], shown["refused"]["revision"]) == (4, 5, 5)
    assert "nan" in shown["refused"]["reason"]


async def test_models_swap_under_load_without_a_failed_request(
    stage: Stage, http: httpx.AsyncClient, flight: Flight
) -> None:
    """Eight callers ask on and on while models are promoted; every third package is broken."""
    await promote(stage, 1, 0.01)
    done = asyncio.Event()
    answers: list[tuple[int, str, float]] = []
    news = asyncio.Condition()

    async def caller(number: int) -> None:
        while not done.is_set():
            response = await http.post(PREDICT, json={"event": flight(number)})
            said = response.json()
            answers.append((response.status_code, said.get("version", ""), said.get("probability", -1.0)))
            async with news:
                news.notify_all()
            # Nothing in memory ever waits, and a loop that is never idle keeps the GIL from the threads that load models.
            await asyncio.sleep(0.01)

    callers = [asyncio.create_task(caller(number)) for number in range(8)]
    good = 1
    for revision in range(2, 12):
        if revision % 3 == 0:
            await promote(stage, revision, float("nan"))
        else:
            await promote(stage, revision, revision / 100)
            good = revision
        before = len(answers)
        async with asyncio.timeout(30), news:
            await news.wait_for(lambda now=before + 8: len(answers) > now)  # type: ignore[misc]
        assert answers[-1][1] == str(good)
    done.set()
    await asyncio.gather(*callers)
    assert {status for status, _, _ in answers} == {200}
    assert all(probability == pytest.approx(int(version) / 100) for _, version, probability in answers)


async def test_the_documentation_knows_every_refusal(http: httpx.AsyncClient) -> None:
    said = (await http.get("/openapi.json")).json()
    door = said["paths"]["/v1/loops/{loop}/predict"]["post"]
    common = {**STATUS, **KNOWN_AT_STATUS}.values()
    table = {str(status) for _, status, _ in ERRORS} | {str(status) for status in common}
    of_the_gate = {"504"}
    assert set(door["responses"]) == {"200", "default"} | table | of_the_gate
    assert {"explain", "X-Request-Timeout-Ms"} == {one["name"] for one in door["parameters"] if one["in"] != "path"}
