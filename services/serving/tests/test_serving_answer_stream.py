"""The Kafka doorway: a batch of records in, answers published, the unusable ones named for the dead letters."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from millstream.codecs.codec import JSON
from millstream.contracts.envelope import envelope_of
from millstream.contracts.events import PredictionServed, QuestionUnanswered, decode_event
from millstream.errors import DeliveryUnknown
from millstream.project import Loop
from millstream.runtime.delivery import Batch, Rejected
from millstream_serving.errors import ModelsUnknown
from millstream_serving.subscribers import AnswerStream

from .conftest import Stage

Flight = Callable[..., dict[str, Any]]


@dataclass
class Lying:
    """A record as it lies in the topic."""

    value: bytes | None
    offset: int = 0
    topic: str = "flights-scheduled"
    partition: int = 0
    timestamp: int = 1370088000000
    key: bytes | None = b"B6-23"
    headers: Sequence[tuple[str, bytes]] = (("ce_id", b"cause-1"), ("ce_knownat", b"2013-06-01T11:00:00Z"))


def batch(*values: bytes | dict[str, Any]) -> Batch:
    records = [
        Lying(value if isinstance(value, bytes) else json.dumps(value).encode(), offset)
        for offset, value in enumerate(values)
    ]
    return Batch("flights-scheduled", 0, 0, len(records) - 1, records)


def doorway(stage: Stage, *loops: Loop) -> Callable[[Batch], Awaitable[Sequence[Rejected]]]:
    """Answers a batch, and waits until Kafka has confirmed the answers; what could not be used."""
    stream = AnswerStream(
        stream=stage.project.streams["flights-scheduled"],
        codec=JSON,
        loops=loops or [stage.project.loops["flight-delay"]],
        predictor=stage.predictor,
        publisher=stage.publisher,
        known=stage.keeper.known,
        patience=0.01,
    )

    async def answered(batch: Batch) -> Sequence[Rejected]:
        found = await stream(batch)
        await found.sent
        return found.rejected

    return answered


def published(stage: Stage) -> list[PredictionServed | QuestionUnanswered]:
    found = []
    for record in stage.publisher.sent:
        event = decode_event(envelope_of(record.headers).type, record.value)
        assert isinstance(event, (PredictionServed, QuestionUnanswered))
        found.append(event)
    return found


async def test_each_question_is_answered_as_of_its_own_known_at(stage: Stage, flight: Flight) -> None:
    stage.promote(1, stage.package("1", lambda row: 0.25))
    await stage.heard(1)
    assert await doorway(stage)(batch(flight(1), flight(2))) == []
    one, two = published(stage)
    assert isinstance(one, PredictionServed)
    assert (one.question, two.question) == ("B6-1", "B6-2")
    assert one.asked_at.isoformat() == "2013-06-01T11:00:00+00:00"
    assert one.transport == "kafka"
    record = stage.publisher.sent[0]
    assert (record.topic, record.key) == ("millstream-predictions", b"B6-1")
    said = envelope_of(record.headers)
    assert (said.id, said.causation_id) == (one.id, "cause-1")


async def test_before_the_first_model_every_question_is_on_record_as_unanswered(stage: Stage, flight: Flight) -> None:
    await stage.heard(0)
    await doorway(stage)(batch(flight(1), flight(2)))
    assert [(type(e), getattr(e, "reason", "")) for e in published(stage)] == [(QuestionUnanswered, "no_model")] * 2


async def test_until_the_models_are_known_questions_wait(stage: Stage, flight: Flight) -> None:
    stage.keeper.known = asyncio.Event()
    with pytest.raises(ModelsUnknown):
        await doorway(stage)(batch(flight()))
    assert stage.publisher.sent == []


async def test_a_batch_that_comes_twice_says_the_same_ids(stage: Stage, flight: Flight) -> None:
    stage.promote(1, stage.package("1", lambda row: 0.25))
    await stage.heard(1)
    stream = doorway(stage)
    stage.publisher.away = True
    with pytest.raises(DeliveryUnknown):
        await stream(batch(flight(1), flight(2)))
    stage.publisher.away = False
    await stream(batch(flight(1), flight(2)))
    await stream(batch(flight(1), flight(2)))
    ids = [event.id for event in published(stage)]
    assert ids[:2] == ids[2:]
    assert len(set(ids)) == 2


async def test_broken_records_are_named_and_their_neighbours_answered(stage: Stage, flight: Flight) -> None:
    stage.promote(1, stage.package("1", lambda row: 0.25))
    await stage.heard(1)
    rejected = await doorway(stage)(
        batch(
            flight(1),
            b"\xff\xfe",
            b"{",
            flight(2, distance=True),
            flight(3, distance="far"),
            b"[" * 5000 + b"]" * 5000,
            flight(4),
            flight(5, extra=json.loads("[" * 100 + "]" * 100)),
        )
    )
    assert [(one.record.offset, one.error.reason) for one in rejected] == [
        (1, "bad_json"),
        (2, "bad_json"),
        (3, "schema"),
        (5, "too_deep"),
        (7, "too_deep"),
        (4, "bad_input"),
    ]
    assert [event.question for event in published(stage)] == ["B6-1", "B6-4"]


async def test_an_answer_too_large_for_kafka_does_not_stop_the_stream(stage: Stage, flight: Flight) -> None:
    stage.promote(1, stage.package("1", lambda row: 0.25))
    await stage.heard(1)
    rejected = await doorway(stage)(batch(flight(1, carrier="B" * 1_045_000), flight(2)))
    assert [one.error.reason for one in rejected] == ["too_large"]
    assert [event.question for event in published(stage)] == ["B6-2"]


async def test_loops_that_share_a_stream_each_answer_its_questions(stage: Stage, flight: Flight) -> None:
    stage.promote(1, stage.package("1", lambda row: 0.25))
    await stage.heard(1)
    delay = stage.project.loops["flight-delay"]
    other = delay.model_copy(update={"loop": "flight-cancelled"})
    stage.loops["flight-cancelled"] = other
    stage.roster._standings["flight-cancelled"] = stage.roster.standing("flight-delay")
    assert len(await doorway(stage, delay, other)(batch(flight(1), b"{"))) == 1
    assert [event.loop for event in published(stage)] == ["flight-delay", "flight-cancelled"]
    assert len({event.id for event in published(stage)}) == 2
