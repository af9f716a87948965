"""Where a mill is in a recording: a replay goes on from there, and never back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime

import msgspec
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from millstream.contracts.envelope import known_at_of
from millstream.contracts.times import from_datetime
from millstream.contracts.topics import PREDICTIONS
from millstream.runtime.kafka_clients import Consumer
from millstream.runtime.kafka_security import Bootstrap
from millstream_cli.errors import Stuck
from millstream_cli.offsets import Offsets

WITHIN = 30.0
"""Seconds to read the last records; a Kafka that takes longer is away."""


async def last_known_at(bootstrap: Bootstrap, topics: Sequence[str]) -> int | None:
    """The latest known-at among the last records of the topics' partitions; None when they say nothing. Raises Stuck."""
    offsets = Offsets(bootstrap)
    consumer = Consumer(bootstrap, enable_auto_commit=False)
    await offsets.start()
    await consumer.start()
    try:
        async with asyncio.timeout(WITHIN):
            last = await _last(consumer, await offsets.ends(topics))
    except (TimeoutError, KafkaError) as error:
        raise Stuck(f"Kafka at {bootstrap} did not say where its topics end: {error!r}") from error
    finally:
        await consumer.stop()
        await offsets.stop()
    return max(_times(last), default=None)


async def _last(consumer: Consumer, ends: dict[TopicPartition, int]) -> list[ConsumerRecord]:
    starts = await consumer.beginning_offsets(list(ends))
    left = {p for p, end in ends.items() if end > starts[p]}
    consumer.assign(sorted(left))
    for partition in left:
        consumer.seek(partition, ends[partition] - 1)
    found = []
    while left:
        for partition, records in (await consumer.getmany(timeout_ms=1_000)).items():
            found.append(records[-1])
            left.discard(partition)
    return found


def _times(records: Iterable[ConsumerRecord]) -> Iterator[int]:
    for record in records:
        with suppress(ValueError):  # a stranger's record: it is on its way to the dead letters
            at = known_at_of(record.headers)
            if at is None and record.topic == PREDICTIONS.name:
                at = from_datetime(_ASKED.decode(record.value or b"").asked_at)
            if at is not None:
                yield at


class _Asked(msgspec.Struct):
    """What answers and unanswered questions have in common. They carry no known-at: they are of the time of asking."""

    asked_at: datetime


_ASKED = msgspec.json.Decoder(_Asked)
