"""Fresh enough: what is stale and what is only quiet, and what a loop does about it over Kafka and over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.contracts.events import PredictionServed, QuestionUnanswered
from millstream.contracts.times import DAY, HOUR, MINUTE, SECOND
from millstream_serving.domain.freshness import Look, Place
from millstream_serving.errors import FeaturesBehind
from millstream_serving.handlers import freshness_gate

from .conftest import NOON, Stage, asking
from .test_serving_answer_stream import batch, doorway, published
from .test_serving_predict import Flight, question, serve

ELEVEN = NOON - HOUR
"""When the questions of `batch` are known."""
BOUND = 30 * SECOND
VIEWS = {"departures": "flights-departed", "landings": "flights-landed"}


def place(stream_time: int, waits_since: int | None = None, *, stream: str = "flights-departed") -> Place:
    return Place(stream=stream, stream_time=stream_time, waits_since=waits_since)


@pytest.mark.parametrize(
    ("stream_time", "waits_since", "lag"),
    [
        (NOON, None, 0),
        (NOON - DAY, None, 0),
        (0, None, 0),
        (NOON - 10 * SECOND, NOON - 5 * SECOND, 0),
        (NOON - DAY, NOON - 5 * SECOND, 0),
        (NOON - DAY, NOON + HOUR, 0),
        (NOON - DAY, NOON - BOUND, 0),
        (NOON - DAY, NOON - BOUND - 1, BOUND + 1),
        (0, NOON - HOUR, HOUR),
        (NOON, NOON - HOUR, 0),
    ],
    ids=[
        "all applied",
        "quiet for a day",
        "nothing ever happened",
        "busy",
        "quiet, and something just came",
        "what waits became known after the question",
        "at the bound",
        "beyond the bound",
        "the store lost everything",
        "an old record came after a new one",
    ],
)
def test_what_waits_says_how_stale_a_view_is(stream_time: int, waits_since: int | None, lag: int) -> None:
    assert place(stream_time, waits_since).lag(NOON, BOUND) == lag


def test_a_view_is_as_stale_as_the_slowest_partition_of_its_own_stream() -> None:
    places = [place(NOON), place(NOON - HOUR, NOON - 40 * SECOND), place(NOON - HOUR, NOON - MINUTE)]
    look = Look(wall=NOON, places=[*places, place(NOON - DAY, stream="flights-landed")])
    assert look.stale(VIEWS, NOON, BOUND) == {"departures": 60.0}


def test_a_look_judges_questions_of_its_own_time_and_no_others() -> None:
    quiet = Look(wall=NOON, places=[place(NOON - HOUR)])
    assert quiet.holds_for(NOON + SECOND, BOUND)
    replayed = Look(wall=NOON, places=[place(NOON - 365 * DAY)])
    assert not replayed.holds_for(NOON - 364 * DAY, BOUND), (
        "what the replay sent since cannot be told by the wall clock"
    )
    busy = Look(wall=NOON, places=[Place(stream="flights-departed", stream_time=NOON, asked=False)])
    assert busy.holds_for(NOON + BOUND, BOUND)
    assert not busy.holds_for(NOON + BOUND + 1, BOUND), "Kafka was not asked"


@given(
    known=st.lists(st.integers(0, 200), max_size=20).map(sorted),
    applied=st.integers(0, 20),
    asked_at=st.integers(0, 250),
    bound=st.integers(1, 50),
)
def test_nothing_stale_is_unseen_and_nothing_quiet_is_stale(
    known: list[int], applied: int, asked_at: int, bound: int
) -> None:
    """Against the definition: stale is a question that misses an event known more than the bound before it."""
    done, rest = known[:applied], known[applied:]
    one = place(max(done, default=0), rest[0] if rest else None)
    missed = [event for event in rest if event < asked_at - bound]
    assert one.lag(asked_at, bound) == (asked_at - missed[0] if missed else 0)


async def stale_stage(stage: Stage, **freshness: Any) -> Stage:
    """The one view misses what became known 40 seconds before eleven."""
    await serve(stage)
    stage.rule(**freshness)
    stage.freshness.known_until["origin_delays"] = ELEVEN - 40 * SECOND
    return stage


def count(stage: Stage, outcome: str, transport: str = "kafka") -> float:
    return stage.metric("millstream_questions_stale_total", loop="flight-delay", outcome=outcome, transport=transport)


async def test_over_kafka_questions_wait_for_the_features(stage: Stage, flight: Flight) -> None:
    await stale_stage(stage)
    with pytest.raises(FeaturesBehind, match=r"origin_delays by 40\.0 s"):
        await doorway(stage)(batch(flight(1), flight(2)))
    assert (published(stage), count(stage, "waited")) == ([], 2)
    assert stage.metric("millstream_view_lag_seconds", loop="flight-delay", view="origin_delays") == 40.0
    stage.freshness.known_until.clear()
    await doorway(stage)(batch(flight(1), flight(2)))
    assert [getattr(e, "stale_views", None) for e in published(stage)] == [{}, {}]
    assert stage.metric("millstream_view_lag_seconds", loop="flight-delay", view="origin_delays") == 0.0


async def test_patience_is_with_the_outage_and_not_with_each_question_of_it(stage: Stage, flight: Flight) -> None:
    await stale_stage(stage, when_stale="wait")
    for stage.seconds in (0.0, 20.0, 29.9):
        with pytest.raises(FeaturesBehind):
            await doorway(stage)(batch(flight(1)))
    stage.seconds = 30.0
    await doorway(stage)(batch(flight(1)))
    await doorway(stage)(batch(flight(2)))
    assert [getattr(e, "stale_views", None) for e in published(stage)] == [{"origin_delays": 40.0}] * 2
    known_until = dict(stage.freshness.known_until)
    stage.freshness.known_until.clear()
    await doorway(stage)(batch(flight(3)))
    stage.freshness.known_until |= known_until
    with pytest.raises(FeaturesBehind):  # another outage
        await doorway(stage)(batch(flight(4)))


async def test_a_loop_may_flag_at_once_and_only_what_is_stale(stage: Stage, flight: Flight) -> None:
    await stale_stage(stage, when_stale="flag", bound="45s")
    early, late = question(stage, flight(1), ELEVEN), question(stage, flight(2), ELEVEN + 10 * SECOND)
    one, two = await stage.predictor.predict([early, late])
    assert isinstance(one, PredictionServed)
    assert isinstance(two, PredictionServed)
    assert (one.stale_views, two.stale_views) == ({}, {"origin_delays": 50.0})
    assert "stale_views" not in json.loads(one.encode()), "as every answer before there was a gate"
    assert count(stage, "flagged") == 1


async def test_refused_questions_of_kafka_are_on_record(stage: Stage, flight: Flight) -> None:
    await stale_stage(stage, when_stale="refuse")
    assert await doorway(stage)(batch(flight(1))) == []
    (found,) = published(stage)
    assert isinstance(found, QuestionUnanswered)
    assert found.reason == "stale_features"
    assert count(stage, "refused") == 1


async def over_what_asks(stage: Stage, **freshness: Any) -> Stage:
    """The one view is over the very stream that asks."""
    await serve(stage)
    stage.rule(**freshness)
    stage.features.stream = "flights-scheduled"
    return stage


async def test_a_question_counts_itself_in_a_view_over_the_stream_that_asks(stage: Stage, flight: Flight) -> None:
    """As offline: its own event is known at its own time. Features are some milliseconds behind, whoever was faster."""
    await over_what_asks(stage)
    stage.features.fences[0] = 0, ELEVEN
    answering = asyncio.create_task(doorway(stage)(batch(flight(1), flight(2))))  # type: ignore[arg-type]
    await asyncio.sleep(0.05)
    assert published(stage) == [], "of the two offsets the second is not in"
    stage.features.values["origin", "JFK"] = 13.4
    stage.features.fences[0] = 1, ELEVEN
    assert await answering == []
    found = published(stage)
    assert [getattr(e, "stale_views", None) for e in found] == [{}, {}]
    assert {e.features["origin_delays__mean"] for e in found if isinstance(e, PredictionServed)} == {13.4}


async def test_over_http_no_event_of_its_own_is_waited_for(stage: Stage, flight: Flight) -> None:
    await over_what_asks(stage)
    assert (await ask(stage, flight)).json().get("stale_views", {}) == {}


@pytest.mark.parametrize(("when_stale", "after"), [("wait", 30.0), ("flag", 2.0), ("refuse", 2.0)])
async def test_features_that_never_have_the_asking_event_are_waited_for_in_bounds(
    stage: Stage, flight: Flight, when_stale: str, after: float
) -> None:
    await over_what_asks(stage, when_stale=when_stale)

    async def time_passes() -> None:
        while True:
            await asyncio.sleep(0.001)
            stage.seconds += 0.25

    passing, turns = asyncio.create_task(time_passes()), 0
    try:
        while True:
            try:
                await doorway(stage)(batch(flight(1)))
                break
            except FeaturesBehind as error:
                assert "own events in flights-scheduled" in str(error)  # noqa: PT017 - of each turn
                turns += 1
    finally:
        passing.cancel()
    assert after <= stage.seconds < after + 15.0
    assert turns or when_stale != "wait", "whoever holds the batch gets a turn"
    first = stage.seconds
    await doorway(stage)(batch(flight(2)))
    assert stage.seconds == first, "patience is with the outage"
    for found in published(stage):
        if when_stale == "refuse":
            assert isinstance(found, QuestionUnanswered)
            assert found.reason == "stale_features"
        else:
            assert isinstance(found, PredictionServed)
            assert found.stale_views["origin_delays"] >= after


async def ask(stage: Stage, flight: Callable[..., dict[str, Any]]) -> httpx.Response:
    async with asking(stage.app(now=ELEVEN)) as http:
        return await http.post("/v1/loops/flight-delay/predict", json={"event": flight()})


async def test_over_http_a_stale_answer_says_so(stage: Stage, flight: Flight) -> None:
    await stale_stage(stage)
    answer = await ask(stage, flight)
    assert (answer.status_code, answer.json()["stale_views"]) == (200, {"origin_delays": 40.0})
    (logged,) = published(stage)
    assert isinstance(logged, PredictionServed)
    assert logged.stale_views == {"origin_delays": 40.0}
    stage.freshness.known_until.clear()
    assert (await ask(stage, flight)).json()["stale_views"] == {}


async def test_over_http_a_loop_may_refuse(stage: Stage, flight: Flight) -> None:
    await stale_stage(stage, when_stale="refuse")
    answer = await ask(stage, flight)
    assert (answer.status_code, answer.json()["error"], answer.headers["retry-after"]) == (503, "stale_features", "1")
    assert "origin_delays by 40.0 s" in answer.json()["message"]
    assert published(stage) == []


async def test_over_http_waiting_ends_when_the_features_have_caught_up_or_after_a_while(
    stage: Stage, flight: Flight, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stale_stage(stage, when_stale="wait")
    looks = 0
    look = stage.freshness.stale

    async def catching_up(*asked: Any) -> list[dict[str, float]]:
        nonlocal looks
        looks += 1
        stage.seconds += 0.5
        if looks == 3:
            stage.freshness.known_until.clear()
        return await look(*asked)

    monkeypatch.setattr(stage.freshness, "stale", catching_up)
    monkeypatch.setattr(freshness_gate, "HTTP_LOOK", 0.0)
    assert (await ask(stage, flight)).json()["stale_views"] == {}
    assert looks == 3
    stage.freshness.known_until["origin_delays"] = ELEVEN - 40 * SECOND
    assert (await ask(stage, flight)).json()["stale_views"] == {"origin_delays": 40.0}
    assert looks == 8, "two seconds"
