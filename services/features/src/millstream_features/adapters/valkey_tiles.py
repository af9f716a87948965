"""Tiles in Valkey or Redis, through the library's writer for generations: a view may be rebuilt while we write."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from millstream.errors import BadSetup
from millstream.project.stream import Stream
from millstream.runtime.user_events import ids_of
from millstream_features.errors import StoreUnavailable
from millstream_features.metrics import FeatureMetrics
from millstream_features.ports import Applied, Slice
from millstream_tiles import errors as tiles_errors
from millstream_tiles.columns import columns_read
from millstream_tiles.definition import View
from millstream_tiles.events import EventBatch
from millstream_tiles.generation import Table
from millstream_tiles.generations import Generations
from millstream_tiles.live_writer import LiveWriter
from millstream_tiles.ports import Outcome
from millstream_tiles.tile_store import ValkeyTileStore

log = logging.getLogger(__name__)


class ValkeyTiles:
    """`ports.Tiles` on a tile store. One writer for all streams: they share the table of generations."""

    def __init__(
        self,
        *,
        store: ValkeyTileStore,
        streams: Mapping[str, Stream],
        views: Sequence[View],
        group: str,
        metrics: FeatureMetrics,
    ) -> None:
        self._store = store
        self._group = group
        self._metrics = metrics
        self._streams = streams
        self._views = tuple(views)
        self._writer = LiveWriter(Generations(store, group), views)
        self._told: Table | None = None
        """The table of generations of which we spoke last."""
        self._columns: dict[str, tuple[str, ...]] = {}
        for name in streams:
            mine = [v for v in views if v.stream == name]
            self._columns[name] = columns_read(mine)
        self._asked_back: dict[tuple[str, int], int] = {}
        """Fence that a partition was rewound to; meeting it again means that Kafka no longer has what is between."""

    async def check(self) -> None:
        try:
            await self._store.check()
            await self._writer.claim()
        except tiles_errors.StoreUnavailable as error:
            raise StoreUnavailable(f"Valkey does not answer, check MILLSTREAM_VALKEY: {error}") from error
        except tiles_errors.ShardsDiffer as error:
            raise BadSetup(f"MILLSTREAM_SHARDS: {error}") from error
        self._tell()

    async def applied(self, stream: str, partitions: Sequence[int]) -> dict[int, int]:
        try:
            fences = {p: await self._store.fence(self._group, stream, p) for p in partitions}
        except tiles_errors.StoreUnavailable as error:
            raise StoreUnavailable(str(error)) from error
        return {p: fence.offset for p, fence in fences.items() if fence is not None}

    async def apply(self, batch: Slice, after: asyncio.Future[Any] | None = None) -> Applied:
        events = self._event_batch(batch)
        writer = self._writer
        partition = (batch.stream, batch.partition)
        try:
            result = await writer.write(events, after=after)
            if result.outcome is Outcome.BEHIND:
                if self._asked_back.get(partition) != result.fence:
                    self._asked_back[partition] = result.fence
                    return Applied(repeated=False, behind_at=result.fence + 1)
                lost = batch.start - result.fence - 1
                log.critical(
                    "Kafka dropped records before they were applied", extra={"lost": lost, "topic": batch.stream}
                )
                self._metrics.gaps.labels(batch.stream).inc(lost)
                result = await writer.write(events, accept_gap=True)
        except tiles_errors.StoreUnavailable as error:
            raise StoreUnavailable(str(error)) from error
        self._asked_back.pop(partition, None)
        self._tell()
        return Applied(repeated=result.outcome is Outcome.ALREADY, behind_at=None)

    def _tell(self) -> None:
        """Say which views are not filled, whenever that changes."""
        table = self._writer.table
        if table is None or table is self._told:
            return
        self._told = table
        for view in self._views:
            unfilled = table.generation_of(view) is None
            self._metrics.unfilled.labels(view.name).set(unfilled)
            if unfilled:
                log.error(
                    "view %s is new or changed and misses what came before: millstream features rebuild --view %s",
                    view.name,
                    view.name,
                    extra={"view": view.name},
                )

    def _event_batch(self, batch: Slice) -> EventBatch:
        events = batch.events
        return EventBatch(
            stream=batch.stream,
            partition=batch.partition,
            start=batch.start,
            end=batch.end,
            offsets=np.array([e.record.offset for e in events], dtype=np.int64),
            event_time=np.array([e.time for e in events], dtype=np.int64),
            known_at=np.array([e.known_at for e in events], dtype=np.int64),
            ids=ids_of(self._streams[batch.stream], events),
            columns={name: [e.event.get(name) for e in events] for name in self._columns[batch.stream]},
        )

    async def close(self) -> None:
        await self._store.close()
