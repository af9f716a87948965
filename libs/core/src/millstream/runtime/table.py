"""A topic read whole: a compacted topic as a table, or a journal from its beginning. No group, no commits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from millstream.runtime import membership
from millstream.runtime.delivery import Record
from millstream.runtime.kafka_clients import Consumer
from millstream.runtime.kafka_security import Bootstrap

log = logging.getLogger(__name__)

UP_TO_THE_END = 100
"""Milliseconds between two looks at how far it is, where Kafka has nothing to hand over."""

FOLLOWING = 1000
"""The same, between two looks at whether the client still fetches."""

Apply = Callable[[Record], Awaitable[None]]


class TopicReader:
    """Reads every partition of `topics` from the beginning and then follows them, one record at a time, in order.

    Each replica reads for itself, so each learns every record. `caught_up` is set once the end that was seen at the
    start has been reached.
    """

    def __init__(self, *, bootstrap: Bootstrap, topics: Sequence[str], apply: Apply) -> None:
        self._bootstrap = bootstrap
        self._topics = tuple(topics)
        self._apply = apply
        self.caught_up = asyncio.Event()
        self.trouble = ""
        """What Kafka last failed with, for who does not wait any longer."""

    async def run(self) -> None:
        """Read until cancelled. Kafka being away is waited out; an error of `apply` ends it."""
        positions: dict[TopicPartition, int] = {}
        while True:
            consumer = Consumer(
                self._bootstrap,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                fetch_max_wait_ms=500,
            )
            try:
                await consumer.start()
                partitions = await self._partitions(consumer)
                consumer.assign(partitions)
                ends = await consumer.end_offsets(partitions)
                for partition in partitions:
                    if partition in positions:
                        consumer.seek(partition, positions[partition])
                    else:
                        await consumer.seek_to_beginning(partition)
                await self._follow(consumer, ends, positions)
            except KafkaError as error:
                self.trouble = str(error)
                log.warning("reading %s: %s; trying again", ", ".join(self._topics), error)
                await asyncio.sleep(1.0)
            finally:
                await consumer.stop()

    async def _partitions(self, consumer: Consumer) -> list[TopicPartition]:
        await consumer._client.force_metadata_update()
        found = []
        for topic in self._topics:
            partitions = consumer.partitions_for_topic(topic)
            if not partitions:
                raise KafkaError(f"topic {topic} does not exist yet")
            found += [TopicPartition(topic, p) for p in sorted(partitions)]
        return found

    async def _follow(
        self, consumer: Consumer, ends: dict[TopicPartition, int], positions: dict[TopicPartition, int]
    ) -> None:
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            # The last offset may be a transaction's marker, which is passed and never handed over: positions see it.
            for records in (await consumer.getmany(timeout_ms=UP_TO_THE_END)).values():
                for record in records:
                    await self._read(record, positions)
        self.caught_up.set()
        while True:
            membership.check(consumer)
            for records in (await consumer.getmany(timeout_ms=FOLLOWING)).values():
                for record in records:
                    await self._read(record, positions)

    async def _read(self, record: Record, positions: dict[TopicPartition, int]) -> None:
        await self._apply(record)
        positions[TopicPartition(record.topic, record.partition)] = record.offset + 1
