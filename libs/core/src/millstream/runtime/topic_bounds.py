"""Asks Kafka where topics begin and end, over a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from millstream.errors import RetryLater
from millstream.runtime.kafka_clients import Consumer
from millstream.runtime.kafka_security import Bootstrap

Bounds = dict[tuple[str, int], tuple[int, int]]
"""(topic, partition) → (first offset, offset after the last)."""

WITHIN = 10.0
"""Seconds: the client may wait for ever for a partition that has no leader."""


class TopicBounds:
    """Connects when first asked. Not the reading consumer's connection: there a question waits behind its long poll."""

    def __init__(self, bootstrap: Bootstrap) -> None:
        self._bootstrap = bootstrap
        self._consumer: Consumer | None = None

    async def of(self, topics: Sequence[str]) -> Bounds:
        """Bounds of every partition of `topics`, as Kafka says now. Raises RetryLater."""
        try:
            async with asyncio.timeout(WITHIN):
                consumer = await self._connected(topics)
                partitions = [
                    TopicPartition(topic, partition)
                    for topic in topics
                    for partition in sorted(consumer.partitions_for_topic(topic) or ())
                ]
                first, after = await asyncio.gather(
                    consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
                )
        except (KafkaError, TimeoutError, OSError) as error:
            raise RetryLater(f"Kafka does not say where the topics end: {error or 'timeout'}") from error
        return {(p.topic, p.partition): (first[p], after[p]) for p in partitions}

    async def close(self) -> None:
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await consumer.stop()

    async def _connected(self, topics: Sequence[str]) -> Consumer:
        if self._consumer is None:
            consumer = Consumer(self._bootstrap, enable_auto_commit=False)
            try:
                await consumer.start()
            except BaseException:
                await consumer.stop()
                raise
            self._consumer = consumer
        if any(self._consumer.partitions_for_topic(topic) is None for topic in topics):
            for topic in topics:
                await self._consumer._client.add_topic(topic)
        return self._consumer
