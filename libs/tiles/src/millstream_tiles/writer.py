"""Writes event batches to a tile store: the loop around one atomic apply."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from millstream_tiles.definition import View
from millstream_tiles.events import EventBatch
from millstream_tiles.partials import TileBatch, by_shard, tile_batch
from millstream_tiles.ports import Applied, Outcome, TileStore

LARGEST_BATCH = 10_000
"""Events of one script call: it holds Valkey's one thread, and 10,000 events hold it for about 0.1 s."""


class TileWriter:
    """Applies batches of the streams of `views` for one consumer group. Keeps no state: use one, or one a partition."""

    def __init__(
        self,
        store: TileStore,
        views: Iterable[View],
        group: str,
        *,
        revision: int = 0,
        largest: int | None = None,
    ) -> None:
        """`revision` of the table of generations, where there is one; at most `largest` events go into one call."""
        self.store = store
        self.views = tuple(views)
        self.group = group
        self.revision = revision
        self.largest = largest

    async def write(
        self, batch: EventBatch, *, accept_gap: bool = False, after: asyncio.Future[Any] | None = None
    ) -> Applied:
        """Apply `batch` to every shard, as far as a shard has not applied it before.

        Answers APPLIED if anything was new, ALREADY if nothing was, and BEHIND (with the least fence) if a shard misses
        what came before: seek to `fence + 1`, nothing is lost. `accept_gap` moves over offsets that are gone for good;
        say it only for the first batch after the log's start has overtaken the fence. STALE: where views are rebuilt,
        write through a LiveWriter. Raises StoreUnavailable; then call again with the same or any later batch that leaves
        no gap.

        Nothing is sent before `after` is done, and what it raises is raised: the batch before, say, on which the store
        works while this one's tiles are made.
        """
        applied = Applied(outcome=Outcome.ALREADY, fence=batch.end)
        for part in batch.split(self.largest or LARGEST_BATCH):
            # All shards at once: on a cluster each has a thread of its own.
            shards = self._tiles(part, accept_gap)
            if after is not None:
                await after
            writing = (self._write_shard(part, shard, accept_gap) for shard in shards)
            # With a shard that fails the others are still waited for, so that a repetition never runs beside its first try.
            answers = await asyncio.gather(*writing, return_exceptions=True)
            results = [answer for answer in answers if isinstance(answer, Applied)]
            if failed := [answer for answer in answers if isinstance(answer, BaseException)]:
                raise failed[0]
            if stale := [result for result in results if result.outcome is Outcome.STALE]:
                return stale[0]
            if behind := [result for result in results if result.outcome is Outcome.BEHIND]:
                return min(behind, key=lambda result: result.fence)
            if any(result.outcome is Outcome.APPLIED for result in results):
                applied = Applied(outcome=Outcome.APPLIED, fence=batch.end)
        return applied

    async def _write_shard(self, batch: EventBatch, tiles: TileBatch, accept_gap: bool) -> Applied:
        seen: frozenset[str] = frozenset()
        while True:
            result = await self.store.apply(tiles, group=self.group)
            # Both answers leave less to do: the fence lies inside the batch, the ids were not in `seen` yet.
            if result.outcome is Outcome.OVERLAP:
                batch = batch.after(result.fence)
            elif result.outcome is Outcome.SEEN:
                seen |= result.seen
            else:
                return result
            tiles = self._tiles(batch, accept_gap, seen)[tiles.shard]

    def _tiles(self, batch: EventBatch, accept_gap: bool, seen: frozenset[str] = frozenset()) -> list[TileBatch]:
        """What each shard is to be told."""
        tiles = tile_batch(self.views, batch, seen=seen, accept_gap=accept_gap)
        return by_shard(replace(tiles, revision=self.revision), self.store.shards)
