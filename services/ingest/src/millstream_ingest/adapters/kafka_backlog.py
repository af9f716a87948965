"""Backlog on Kafka: what features' group has committed, against where each partition was so many seconds ago."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from millstream.contracts.topics import TILES_GROUP
from millstream.errors import RetryLater
from millstream.runtime.kafka_clients import Admin, Consumer
from millstream.runtime.kafka_security import Bootstrap

WITHIN = 5.0
"""Seconds for one look; a broker that goes away is no reason to wait longer."""


class KafkaBacklog:
    """Over connections of its own, so that no request's records wait behind a question. Connects when first asked."""

    def __init__(self, bootstrap: Bootstrap, streams: Sequence[str]) -> None:
        self._bootstrap = bootstrap
        self._streams = frozenset(streams)
        self._admin: Admin | None = None
        self._consumer: Consumer | None = None

    async def behind(self, longest: float) -> Mapping[str, int]:
        """A group that has committed nothing is no reader: features is not there yet, or not at all."""
        try:
            async with asyncio.timeout(WITHIN):
                return await self._look(longest)
        except (KafkaError, TimeoutError, OSError, AttributeError) as error:
            # AttributeError: the client trips over its own error answer. Connected anew: the coordinator may have moved.
            await self.close()
            raise RetryLater(f"Kafka does not say how far {TILES_GROUP} is: {error or 'timeout'}") from error

    async def close(self) -> None:
        consumer, self._consumer = self._consumer, None
        admin, self._admin = self._admin, None
        for leave in ([consumer.stop] if consumer else []) + ([admin.close] if admin else []):
            with suppress(KafkaError, TimeoutError, OSError):
                async with asyncio.timeout(WITHIN):
                    await leave()

    async def _look(self, longest: float) -> Mapping[str, int]:
        if self._admin is None or self._consumer is None:
            self._admin = Admin(self._bootstrap)
            self._consumer = Consumer(self._bootstrap, enable_auto_commit=False)
            await self._admin.start()
            await self._consumer.start()
        committed: dict[TopicPartition, int] = {
            partition: position.offset
            for partition, position in (await self._admin.list_consumer_group_offsets(TILES_GROUP)).items()
            if position.offset >= 0 and partition.topic in self._streams
        }
        if not committed:
            return {}
        ends = await self._consumer.end_offsets(list(committed))
        waiting = [partition for partition, offset in committed.items() if offset < ends[partition]]
        if not waiting:
            return {}
        # The first record that is younger than allowed: whoever is before it has left an older one unread.
        since = int((time.time() - longest) * 1000)
        young = await self._consumer.offsets_for_times(dict.fromkeys(waiting, since))
        found: dict[str, int] = {}
        for partition in waiting:
            first = young[partition]
            if committed[partition] < (ends[partition] if first is None else first.offset):
                left = ends[partition] - committed[partition]
                found[partition.topic] = found.get(partition.topic, 0) + left
        return found
