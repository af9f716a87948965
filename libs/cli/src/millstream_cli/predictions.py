"""Reads the prediction log back: one effective answer per question, in columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import polars as pl
from aiokafka import TopicPartition

from millstream.contracts.events import PredictionServed, QuestionUnanswered
from millstream.contracts.times import from_datetime
from millstream.contracts.topics import PREDICTIONS
from millstream.runtime.kafka_clients import Consumer
from millstream.runtime.kafka_security import Bootstrap

AT_ONCE = 20_000
"""Records turned into columns together: as objects they take 5 KB each, as columns 0.3 KB."""

OUTPUT = "output."
"""How the columns of an answer's output begin."""

OWN = {
    "id": pl.String,
    "question": pl.String,
    "key": pl.String,
    "asked_at": pl.Int64,
    "version": pl.String,
}
"""Columns of every loop; `asked_at` is microseconds."""


@dataclass
class PredictionLog:
    """Everything in `millstream-predictions`. A repeated id is one effective prediction, and is counted as a repeat."""

    parts: dict[str, list[pl.DataFrame]] = field(default_factory=dict)
    """Loop → its effective answers, in the order of the topic."""
    served: Counter[str] = field(default_factory=Counter)
    """By loop, as `unanswered` and `records`."""
    unanswered: Counter[str] = field(default_factory=Counter)
    records: Counter[str] = field(default_factory=Counter)
    """Of answers: the served ones, repeats and all."""
    repeats: int = 0

    def add(self, served: Sequence[PredictionServed]) -> None:
        """Append answers that were not there before."""
        self.served.update(p.loop for p in served)
        for loop in {p.loop for p in served}:
            self.parts.setdefault(loop, []).append(columns_of([p for p in served if p.loop == loop]))

    def frame(self, loop: str) -> pl.DataFrame:
        """`OWN`, what was answered (`output.…`, as the loop's task has it), and what the model was given (`entities.…`,
        `inputs.…`, `features.…`); in the order of asking."""
        parts = self.parts.get(loop, [pl.DataFrame(schema=OWN)])
        return pl.concat(parts, how="diagonal_relaxed").sort("asked_at", "id")


def columns_of(served: Sequence[PredictionServed]) -> pl.DataFrame:
    """A row for each answer; output and features are float64, and null where the answer had none."""
    own: dict[str, list[Any]] = {
        "id": [p.id for p in served],
        "question": [p.question for p in served],
        "key": [p.key for p in served],
        "asked_at": [from_datetime(p.asked_at) for p in served],
        "version": [p.version for p in served],
    }
    series = [pl.Series(name, values, dtype=OWN[name]) for name, values in own.items()]
    for part in ("output", "entities", "inputs", "features"):
        given: list[dict[str, Any]] = [getattr(p, part) for p in served]
        dtype = pl.Float64 if part in ("output", "features") else None
        for name in dict.fromkeys(name for one in given for name in one):
            series.append(pl.Series(f"{part}.{name}", [one.get(name) for one in given], dtype=dtype, strict=False))
    return pl.DataFrame(series)


async def read_predictions(bootstrap: Bootstrap) -> PredictionLog:
    """Read the topic from its beginning to its present end. Memory: about 0.5 KB a prediction."""
    log, seen = PredictionLog(), set[str]()
    async for records in every_record(bootstrap):
        _add(log, seen, records)
    return log


async def every_record(bootstrap: Bootstrap) -> AsyncIterator[list[Any]]:
    """The records of `millstream-predictions` from its beginning to its present end, some at a time, whoever wrote them."""
    consumer = Consumer(
        bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=16 * 1024 * 1024,
    )
    await consumer.start()
    try:
        await consumer._client.add_topic(PREDICTIONS.name)
        numbers = consumer.partitions_for_topic(PREDICTIONS.name) or {0}
        partitions = [TopicPartition(PREDICTIONS.name, n) for n in sorted(numbers)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        left = {p for p, end in ends.items() if await consumer.position(p) < end}
        while left:
            for partition, records in (await consumer.getmany(timeout_ms=1000, max_records=AT_ONCE)).items():
                yield records
                if records[-1].offset + 1 >= ends[partition]:
                    left.discard(partition)
    finally:
        await consumer.stop()


def _add(log: PredictionLog, seen: set[str], records: Sequence[Any]) -> None:
    fresh: list[PredictionServed] = []
    for record in records:
        served = type_of(record) == PredictionServed.type_name
        try:
            event = (_decode_served if served else _decode_unanswered)(record.value or b"")
        except (ValueError, RecursionError):
            continue  # somebody else's record in our topic: drift dead-letters it
        log.records[event.loop] += served
        if event.id in seen:
            log.repeats += 1
            continue
        seen.add(event.id)
        if isinstance(event, PredictionServed):
            fresh.append(event)
        else:
            log.unanswered[event.loop] += 1
    log.add(fresh)


_decode_served = msgspec.json.Decoder(PredictionServed).decode
_decode_unanswered = msgspec.json.Decoder(QuestionUnanswered).decode


def type_of(record: Any) -> str:
    """The CloudEvents type of a record; empty where it has none."""
    return next((value.decode() for name, value in record.headers if name == "ce_type"), "")
