"""Asks Kafka what lies behind an offset: the first record that a consumer has yet to read, and since when it is known."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from millstream.contracts.envelope import known_at_of
from millstream.errors import RetryLater
from millstream.runtime.kafka_clients import Consumer
from millstream.runtime.kafka_security import Bootstrap

Offsets = Mapping[tuple[str, int], int]
"""(topic, partition) → last offset that was read; a partition of which nothing was read is missing."""

WITHIN = 5.0
"""Seconds for one answer. It takes milliseconds; whoever asks has a question of his own waiting."""
FETCH_BYTES = 64 * 1024
"""Of one partition: one record is enough, and a larger one comes alone."""


class WaitingRecords:
    """Connects when first asked. In no group, so nobody's partitions move and nothing is committed."""

    def __init__(self, bootstrap: Bootstrap) -> None:
        self._bootstrap = bootstrap
        self._consumer: Consumer | None = None
        self._one_at_a_time = asyncio.Lock()

    async def of(
        self, topics: Collection[str], read: Offsets, enough: Collection[tuple[str, int]] = ()
    ) -> dict[tuple[str, int], int | None]:
        """For every partition of `topics` but those in `enough`: when the first record behind `read` became known
        (microseconds: `ce_knownat`, else Kafka's time), None where no record waits. Raises RetryLater.

        What is no record does not wait: gaps of a compacted topic, markers of transactions, what retention removed.
        """
        async with self._one_at_a_time:
            try:
                async with asyncio.timeout(WITHIN):
                    return await self._of(topics, read, enough)
            except (KafkaError, TimeoutError, OSError) as error:
                # Whatever it was that the client did not get over, another is not in it.
                await self.close()
                raise RetryLater(
                    f"Kafka does not say what waits in {', '.join(topics)}: {error or 'timeout'}"
                ) from error

    async def close(self) -> None:
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await consumer.stop()

    async def _of(
        self, topics: Collection[str], read: Offsets, enough: Collection[tuple[str, int]]
    ) -> dict[tuple[str, int], int | None]:
        consumer = await self._connected(topics)
        partitions = [
            TopicPartition(topic, partition)
            for topic in topics
            for partition in sorted(consumer.partitions_for_topic(topic) or ())
            if (topic, partition) not in enough
        ]
        if not partitions:
            return {}
        ends = await consumer.end_offsets(partitions)
        starts = {p: read.get((p.topic, p.partition), -1) + 1 for p in partitions}
        found: dict[tuple[str, int], int | None] = {(p.topic, p.partition): None for p in partitions}
        behind = {p: starts[p] for p in partitions if starts[p] < ends[p]}
        for partition, known in (await self._first(consumer, behind, ends)).items():
            found[partition.topic, partition.partition] = known
        return found

    async def _first(
        self, consumer: Consumer, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int]:
        """Known-at of the first record from `starts` on, where there is one before `ends`."""
        found: dict[TopicPartition, int] = {}
        left = dict(starts)
        if strangers := left.keys() - consumer.assignment():
            everyone = consumer.assignment() | strangers
            consumer.assign(list(everyone))
            consumer.pause(*everyone)
        for partition, offset in left.items():
            consumer.seek(partition, offset)
        # One that is not paused is fetched on and on, whether anybody asks or not.
        consumer.resume(*left)
        try:
            while left:
                fetched = await consumer.getmany(*left, timeout_ms=200, max_records=len(left))
                for partition, records in fetched.items():
                    found[partition] = _known_at(records[0])
                # Behind the last record a position moves over markers alone.
                left = {p: at for p in left if p not in found and (at := await consumer.position(p)) < ends[p]}
        finally:
            consumer.pause(*starts)
        return found

    async def _connected(self, topics: Collection[str]) -> Consumer:
        if self._consumer is None:
            consumer = Consumer(
                self._bootstrap,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                fetch_max_wait_ms=50,
                max_partition_fetch_bytes=FETCH_BYTES,
            )
            try:
                await consumer.start()
            except BaseException:
                await consumer.stop()
                raise
            self._consumer = consumer
        for topic in topics:
            if self._consumer.partitions_for_topic(topic) is None:
                await self._consumer._client.add_topic(topic)
        return self._consumer


def _known_at(record: object) -> int:
    """As the services read it; where the header is none, the record will be a dead letter, and Kafka's time does."""
    headers, timestamp = record.headers, record.timestamp  # type: ignore[attr-defined]
    try:
        said = known_at_of(headers)
    except ValueError:
        said = None
    return int(timestamp) * 1000 if said is None else said
