"""Tiles in a dictionary: the store for tests and for trying a view out without a server."""

from __future__ import annotations

import numpy as np

from millstream_tiles.layout import Floats, merge
from millstream_tiles.partials import Family, TileBatch
from millstream_tiles.ports import Applied, Fence, Outcome


class MemoryTileStore:
    """A TileStore of one process. Expires nothing by wall-clock; drops tiles and ids as the real one does."""

    def __init__(self, shards: int = 1) -> None:
        self.shards = shards
        self.revision = 0
        """Of the table of generations; whoever makes one sets it."""
        self.tiles: dict[tuple[str, int, str, str], dict[int, Floats]] = {}
        """(view, slide, layout's mark, entity) -> index -> row."""
        self.clock: dict[tuple[str, int], int] = {}
        self._fences: dict[tuple[int, str, str, int], Fence] = {}
        self._ids: dict[tuple[int, str], dict[int, set[str]]] = {}

    async def apply(self, batch: TileBatch, *, group: str) -> Applied:
        if batch.revision != self.revision:
            return Applied(outcome=Outcome.STALE, fence=-1)
        key = (batch.shard, group, batch.stream, batch.partition)
        fence = self._fences.get(key)
        at = fence.offset if fence else -1
        refused = self.check_fence(batch, fence)
        if refused:
            return Applied(outcome=refused, fence=at)
        buckets = self._ids.setdefault((batch.shard, batch.stream), {})
        seen = {i for b, ids in batch.ids.items() for i in ids for n in (b - 1, b, b + 1) if i in buckets.get(n, ())}
        if seen:
            return Applied(outcome=Outcome.SEEN, fence=at, seen=frozenset(seen))
        time = max(batch.stream_time, fence.stream_time if fence else 0)
        self._remember(buckets, batch, time)
        for family in batch.families:
            self._merge(family)
        self._fences[key] = Fence(offset=batch.end, stream_time=time)
        where = (batch.stream, batch.partition)
        self.clock[where] = max(time, self.clock.get(where, 0))
        return Applied(outcome=Outcome.APPLIED, fence=batch.end)

    def check_fence(self, batch: TileBatch, fence: Fence | None) -> Outcome | None:
        """Why the batch must not be applied now; None: it may."""
        at = fence.offset if fence else -1
        if fence and at >= batch.end:
            return Outcome.ALREADY
        if fence and at >= batch.start:
            return Outcome.OVERLAP
        if batch.start > at + 1 and not batch.accept_gap:
            return Outcome.BEHIND
        return None

    async def fence(self, group: str, stream: str, partition: int) -> Fence | None:
        fences = [self._fences.get((shard, group, stream, partition)) for shard in range(self.shards)]
        known = [f for f in fences if f is not None]
        return min(known, key=lambda f: f.offset) if len(known) == len(fences) else None

    async def check(self) -> None:
        """Always there."""

    async def close(self) -> None:
        """Nothing to let go of."""

    def _remember(self, buckets: dict[int, set[str]], batch: TileBatch, time: int) -> None:
        slowest = min([time, *(t for (stream, _), t in self.clock.items() if stream == batch.stream)])
        for bucket, ids in batch.ids.items():
            buckets.setdefault(bucket, set()).update(ids)
        for old in [b for b in buckets if (b + 3) * batch.dedupe_span < slowest]:
            del buckets[old]

    def _merge(self, family: Family) -> None:
        rows = iter(family.rows)
        for entity, count in zip(family.entities, family.counts.tolist(), strict=True):
            tiles = self.tiles.setdefault((family.view, family.slide, family.layout.mark, entity), {})
            for _ in range(count):
                row: Floats = np.array(next(rows))
                tile = int(row[0])
                tiles[tile] = merge(family.layout, tiles[tile], row) if tile in tiles else row
            if len(tiles) > family.keep:  # a sketch has 0: here a look costs nothing worth saving
                for tile in [t for t in tiles if t < family.cutoff]:
                    del tiles[tile]
