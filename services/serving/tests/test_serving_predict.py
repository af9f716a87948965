"""The one predict path: features as of the question, one run for all, every answer on record."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from millstream.contracts.events import PredictionServed, QuestionUnanswered
from millstream.contracts.times import to_datetime
from millstream.errors import RejectEvent
from millstream_serving.domain.question import Question
from millstream_serving.errors import FeaturesUnavailable
from millstream_serving.handlers import MOST_ROWS, Answer, ask

from .conftest import NOON, Stage

Flight = Callable[..., dict[str, Any]]


def question(stage: Stage, event: dict[str, Any], asked_at: int = NOON) -> Question:
    return ask(stage.project.loops["flight-delay"], event, asked_at=asked_at, transport="kafka")


async def answers(stage: Stage, *events: dict[str, Any]) -> list[Answer]:
    return await stage.predictor.predict([question(stage, event) for event in events])


def by_distance(row: Any) -> float:
    return float(min(row["distance"] / 10_000, 1.0))


async def serve(stage: Stage, score: Callable[[Any], float] = by_distance, version: str = "1") -> None:
    revision = stage.roster.standing("flight-delay").heard + 1
    stage.promote(revision, stage.package(version, score if version != "1" else _bearing_nulls(score)))
    await stage.heard(revision)


def _bearing_nulls(score: Callable[[Any], float]) -> Callable[[Any], float]:
    """Warm-up rows have no distance; a model has to bear that."""
    return lambda row: 0.5 if row["distance"] != row["distance"] else score(row)


async def test_before_the_first_model_a_question_is_unanswered_and_not_lost(stage: Stage, flight: Flight) -> None:
    (found,) = await answers(stage, flight())
    assert isinstance(found, QuestionUnanswered)
    assert (found.reason, found.question, found.key) == ("no_model", "B6-23", "B6-23")
    assert found.asked_at == to_datetime(NOON)
    assert (
        stage.metric("millstream_questions_unanswered_total", loop="flight-delay", reason="no_model", transport="kafka")
        == 1.0
    )


async def test_the_first_model_answers_and_the_answer_carries_all_that_made_it(stage: Stage, flight: Flight) -> None:
    await serve(stage)
    (found,) = await answers(stage, flight())
    assert isinstance(found, PredictionServed)
    assert found.output["probability"] == pytest.approx(0.2475)
    assert found.version == "1"
    assert found.entities == {"origin": "JFK"}
    assert found.inputs == {"distance": 2475, "carrier": "B6"}
    assert found.features == {"origin_delays__mean": 12.1}
    assert set(found.timings_ms) == {"features", "model", "total"}


async def test_an_unknown_airport_has_null_features(stage: Stage, flight: Flight) -> None:
    await serve(stage)
    unknown, nowhere = await answers(stage, flight(1, origin="XXX"), flight(2, origin=None))
    for found in (unknown, nowhere):
        assert isinstance(found, PredictionServed)
        assert found.features == {"origin_delays__mean": None}
        assert json.loads(found.encode())["features"] == {"origin_delays__mean": None}


async def test_a_question_delivered_twice_has_one_id(stage: Stage, flight: Flight) -> None:
    await serve(stage)
    (first,), (again,) = await answers(stage, flight()), await answers(stage, flight())
    assert isinstance(first, PredictionServed)
    assert isinstance(again, PredictionServed)
    assert (first.id, first.output) == (again.id, again.output)
    (other,) = await answers(stage, flight(24))
    assert isinstance(other, PredictionServed)
    assert other.id != first.id


async def test_a_distance_in_words_is_refused_and_its_neighbours_are_answered(stage: Stage, flight: Flight) -> None:
    await serve(stage)
    found = await answers(stage, flight(1), flight(2, distance="far"), flight(3))
    assert [type(answer) for answer in found] == [PredictionServed, RejectEvent, PredictionServed]
    assert "/distance" in str(found[1])


async def test_a_question_that_the_graph_cannot_bear_costs_no_neighbour(stage: Stage, flight: Flight) -> None:
    def score(row: Any) -> float:
        if row["carrier"] == "ZZ":
            raise ZeroDivisionError
        return float("nan") if row["carrier"] == "NN" else 0.25

    await serve(stage, score)
    found = await answers(stage, flight(1), flight(2, carrier="ZZ"), flight(3, carrier="NN"))
    assert [getattr(answer, "reason", "answered") for answer in found] == ["answered", "model_failed", "model_failed"]


async def test_with_the_store_away_nothing_is_answered_and_everything_may_be_asked_again(
    stage: Stage, flight: Flight
) -> None:
    await serve(stage)
    stage.features.away = True
    with pytest.raises(FeaturesUnavailable):
        await answers(stage, flight())
    stage.features.away = False
    (found,) = await answers(stage, flight())
    assert isinstance(found, PredictionServed)


async def test_a_long_queue_is_answered_in_order_whatever_the_pieces(stage: Stage, flight: Flight) -> None:
    await serve(stage)
    events = [flight(i, distance=i) for i in range(2 * MOST_ROWS + 7)]
    found = await answers(stage, *events)
    assert [answer.question for answer in found if isinstance(answer, PredictionServed)] == [
        event["flight_id"] for event in events
    ]
    one_by_one = [(await answers(stage, event))[0] for event in events[:3]]
    assert [a.output for a in one_by_one] == [a.output for a in found[:3]]  # type: ignore[union-attr]


async def test_a_batch_under_way_is_finished_by_the_model_that_began_it(stage: Stage, flight: Flight) -> None:
    await serve(stage, lambda row: 0.1)
    reading, go_on = asyncio.Event(), asyncio.Event()
    read = stage.features.read

    async def slow(*args: Any) -> Any:
        reading.set()
        await go_on.wait()
        return await read(*args)

    stage.features.read = slow  # type: ignore[method-assign, assignment]
    under_way = asyncio.create_task(answers(stage, flight()))
    await reading.wait()
    await serve(stage, lambda row: 0.9, version="2")
    go_on.set()
    (old,), (new,) = await under_way, await answers(stage, flight())
    assert isinstance(old, PredictionServed)
    assert isinstance(new, PredictionServed)
    assert (old.version, round(old.output["probability"], 3)) == ("1", 0.1)
    assert (new.version, round(new.output["probability"], 3)) == ("2", 0.9)


async def test_watched_texts_and_embeddings_go_on_record_cut_and_to_no_model(stage: Stage, flight: Flight) -> None:
    loop = stage.project.loops["flight-delay"]
    drift = loop.drift.model_copy(update={"text": ("remark",), "embedding": ("echo",)})
    stage.predictor._loops = {"flight-delay": loop.model_copy(update={"drift": drift})}
    await serve(stage)
    told, silent = await answers(stage, flight(1, remark="late " * 500, echo=[1, -0.5]), flight(2, echo=["a"]))
    assert isinstance(told, PredictionServed)
    assert isinstance(silent, PredictionServed)
    assert told.content == {"remark": ("late " * 500)[:1000], "echo": [1.0, -0.5]}
    assert silent.content == {}
    assert told.output == silent.output
    assert told.inputs == silent.inputs
    assert "content" not in json.loads(silent.encode())
