"""Reads the prediction log back: one effective answer per question, in columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import polars as pl
from aiokafka import AIOKafkaConsumer, TopicPartition

from millstream.contracts.events import PredictionServed, QuestionUnanswered
from millstream.contracts.times import from_datetime
from millstream.contracts.topics import PREDICTIONS


@dataclass
class PredictionLog:
    """Everything in `millstream-predictions`. A repeated id is one effective prediction, and is counted as a repeat."""

    served: list[PredictionServed] = field(default_factory=list)
    unanswered: int = 0
    repeats: int = 0
    records: int = 0

    def frame(self, loop: str) -> pl.DataFrame:
        """id, question, key, asked_at (µs), version, probability of one loop; in the order of asking."""
        mine = [p for p in self.served if p.loop == loop]
        return pl.DataFrame(
            {
                "id": [p.id for p in mine],
                "question": [p.question for p in mine],
                "key": [p.key for p in mine],
                "asked_at": [from_datetime(p.asked_at) for p in mine],
                "version": [p.version for p in mine],
                "probability": [p.output["probability"] for p in mine],
            },
            schema={
                "id": pl.String,
                "question": pl.String,
                "key": pl.String,
                "asked_at": pl.Int64,
                "version": pl.String,
                "probability": pl.Float64,
            },
        ).sort("asked_at", "id")


async def read_predictions(bootstrap: str) -> PredictionLog:
    """Read the topic from its beginning to its present end. Memory: about 2 KB a prediction."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
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
        return await _read(consumer, await consumer.end_offsets(partitions))
    finally:
        await consumer.stop()


async def _read(consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> PredictionLog:
    log, seen = PredictionLog(), set()
    decode_served = msgspec.json.Decoder(PredictionServed).decode
    decode_unanswered = msgspec.json.Decoder(QuestionUnanswered).decode
    left = {p for p, end in ends.items() if await consumer.position(p) < end}
    while left:
        for partition, records in (await consumer.getmany(timeout_ms=1000, max_records=20_000)).items():
            for record in records:
                log.records += 1
                served = _type_of(record) == PredictionServed.type_name
                event = decode_served(record.value) if served else decode_unanswered(record.value)
                if event.id in seen:
                    log.repeats += 1
                    continue
                seen.add(event.id)
                if isinstance(event, PredictionServed):
                    log.served.append(event)
                else:
                    log.unanswered += 1
            if records[-1].offset + 1 >= ends[partition]:
                left.discard(partition)
    return log


def _type_of(record: Any) -> str:
    return next((value.decode() for name, value in record.headers if name == "ce_type"), "")
