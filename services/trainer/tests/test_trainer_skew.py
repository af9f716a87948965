"""What the trainer makes of a skew verdict: nothing. Runs learn from the lake, and no fit mends a tile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millstream.contracts.envelope import Envelope
from millstream.contracts.events import Decision, Event, Finding, SkewJudged
from millstream.contracts.times import to_datetime
from millstream.contracts.topics import SKEW, VERDICTS
from millstream.runtime.causes import Causes
from millstream.runtime.delivery import Batch
from millstream_trainer.app import create_app
from millstream_trainer.settings import Settings
from millstream_trainer.subscribers import hear_batch

from .test_trainer_dispatch import Office


@dataclass
class Record:
    """An event as it lies in a topic."""

    value: bytes
    headers: list[tuple[str, bytes]]
    topic: str = VERDICTS.name
    partition: int = 0
    offset: int = 0
    timestamp: int = 0
    key: bytes | None = b"tides"


def record(event: Event, id: str) -> Record:
    return Record(event.encode(), Envelope(id=id, type=event.type_name, source="features").headers())


def skew(finding: Finding, at: int) -> SkewJudged:
    return SkewJudged(
        id=f"skew-{finding}",
        loop="tides",
        finding=finding,
        reason="40 of 200 checked predictions differ, 1% may",
        at=to_datetime(at),
        start=to_datetime(at),
        end=to_datetime(at),
        checked=200,
        differing=40,
        bound=0.01,
    )


async def test_a_skew_verdict_causes_nothing_and_blocks_nothing(tides: Any, until: Any) -> None:
    office = Office(tides.rules)
    first, drift = tides.matured(10), tides.judged(40, version="1")
    async with office.at_work():
        await hear_batch(office.trainer, batch(record(first, first.id)), Causes())
        await until(office.ended())
    before = office.trainer.states["tides"]

    rejected = await hear_batch(
        office.trainer, batch(record(skew(Finding.DETECTED, before.stream_time or 0), "skew")), Causes()
    )
    assert (rejected, office.trainer.states["tides"]) == ([], before), "neither asked, nor blocked, nor dead-lettered"

    await hear_batch(office.trainer, batch(record(drift, drift.id)), Causes())
    decided = office.announcer.said[-1]
    assert (decided.request, decided.decision) == (drift.id, Decision.ACCEPTED), "as if nothing had been said"


def batch(one: Record) -> Batch:
    return Batch(one.topic, 0, 0, 0, [one])


def test_the_trainer_does_not_even_hear_the_topic(harbour: Path, tmp_path: Path) -> None:
    service = create_app(Settings(project=harbour, data=tmp_path))
    assert SKEW.name not in {topic for one in service._subscriptions for topic in one.topics}
