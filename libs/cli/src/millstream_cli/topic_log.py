"""Reads a project's streams from Kafka by partition and offset, as the features service hears them: for a rebuild."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from millstream.errors import RetryLater
from millstream.project.stream import Stream
from millstream.runtime.codecs import Codecs
from millstream.runtime.kafka_clients import Consumer, does_not_answer
from millstream.runtime.kafka_security import Bootstrap
from millstream.runtime.records import Batch
from millstream.runtime.schema_registry import RegistrySettings
from millstream.runtime.user_events import ids_of, read_batch
from millstream_cli.errors import Stuck
from millstream_cli.offsets import Offsets
from millstream_tiles.columns import columns_read
from millstream_tiles.definition import View
from millstream_tiles.event_names import EventNames
from millstream_tiles.events import EventBatch

MOST = 20_000
"""Records of one poll: a few steps of the store."""
WAIT_MS = 200
"""How long a poll waits for records; then the rebuild looks whether anything is left."""


class TopicLog:
    """`rebuild.Topics` on Kafka. In no consumer group: what it reads moves nobody's position. An async context manager."""

    def __init__(
        self, bootstrap: Bootstrap, streams: Mapping[str, Stream], views: Sequence[View], readers: Sequence[View]
    ) -> None:
        """Columns are those that `views` need. `readers` are all views of their stream: what one of them cannot keep is a dead
        letter for all."""
        self._bootstrap = bootstrap
        self._streams = streams
        self._codecs = Codecs(streams, RegistrySettings.of_environment())
        self._views = views
        self._readers = readers
        self._offsets = Offsets(bootstrap)
        self._consumer = Consumer(
            bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=8 * 1024 * 1024,
        )
        self._first: dict[TopicPartition, int] = {}
        self._next: dict[TopicPartition, int] = {}

    async def __aenter__(self) -> TopicLog:
        try:
            await self._offsets.start()
            await self._consumer.start()
        except KafkaError as error:
            await self.__aexit__()
            raise Stuck(does_not_answer(self._bootstrap, error)) from error
        except asyncio.CancelledError:  # then nobody leaves what was not entered
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._consumer.stop()
        await self._offsets.stop()
        await self._codecs.close()

    async def partitions(self, stream: str) -> Mapping[int, tuple[int, int]]:
        """Each partition's first offset that is still there and the one after its last. Raises Stuck."""
        ends = await self._offsets.ends([stream])
        if self._consumer.assignment() != set(ends):
            self._consumer.assign(sorted(ends))
            self._next = {}
        try:
            self._first = await self._consumer.beginning_offsets(list(ends))
        except KafkaError as error:
            raise Stuck(f"Kafka does not say where {stream} begins: {error!r}") from error
        return {p.partition: (self._first[p], end) for p, end in ends.items()}

    async def read(self, stream: str, positions: Mapping[int, int]) -> Sequence[EventBatch]:
        """Good events from `positions` on; those that the features service dead-letters are left out. Raises Stuck."""
        starts = {}
        for number, offset in positions.items():
            partition = TopicPartition(stream, number)
            starts[partition] = max(offset, self._first.get(partition, 0))
        try:
            for partition, offset in starts.items():
                if self._next.get(partition) != offset:
                    self._consumer.seek(partition, offset)
            found = await self._consumer.getmany(timeout_ms=WAIT_MS, max_records=MOST)
        except KafkaError as error:
            raise Stuck(f"{stream} cannot be read: {error!r}") from error
        self._next = dict(starts)
        batches = []
        for partition, records in found.items():
            if records:
                self._next[partition] = records[-1].offset + 1
                end = records[-1].offset
                batch = Batch(stream, partition.partition, starts[partition], end, records)
                try:
                    await self._codecs.prepare(batch)
                except RetryLater as error:
                    raise Stuck(f"{stream} cannot be read: {error}") from error
                batches.append(self._batch(batch))
        return batches

    def _batch(self, batch: Batch) -> EventBatch:
        stream = self._streams[batch.topic]
        events, _ = read_batch(stream, batch, self._codecs[batch.topic])
        bad = self._bad(stream, [event.event for event in events])
        events = [event for place, event in enumerate(events) if place not in bad]
        return EventBatch(
            stream=batch.topic,
            partition=batch.partition,
            start=batch.start,
            end=batch.end,
            offsets=np.array([e.record.offset for e in events], dtype=np.int64),
            event_time=np.array([e.time for e in events], dtype=np.int64),
            known_at=np.array([e.known_at for e in events], dtype=np.int64),
            ids=ids_of(stream, events),
            columns={name: [e.event.get(name) for e in events] for name in columns_read(self._views)},
        )

    def _bad(self, stream: Stream, events: Sequence[Mapping[str, Any]]) -> set[int]:
        """The places of those that name nothing that can be kept, or hold what no window can add up."""
        names = EventNames.of(self._readers, stream.id, stream.types_of)
        return {place for place, event in enumerate(events) if names.fault(event)} | names.beyond(events).keys()
