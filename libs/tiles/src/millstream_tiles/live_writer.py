"""Writes event batches to every generation that is read or coming: what a worker uses where views are rebuilt."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from millstream_tiles.definition import View
from millstream_tiles.errors import StoreUnavailable
from millstream_tiles.events import EventBatch
from millstream_tiles.generation import FIRST, Table, batch_at
from millstream_tiles.generations import Generations
from millstream_tiles.ports import Applied, Outcome
from millstream_tiles.writer import TileWriter

ATTEMPTS = 20
"""Changes of the table that one batch gives way to; a rebuild makes a handful."""


class LiveWriter:
    """`TileWriter` for several generations: each takes every batch by a fence of its own, and generation 1 takes it last.

    So generation 1 (with or without views left in it) never stands before one that is read, and a generation that is
    coming, once it has caught up, is never behind again. Use one, or one a partition.
    """

    def __init__(self, generations: Generations, views: Iterable[View]) -> None:
        self._generations = generations
        self._views = tuple(views)
        self.table: Table | None = None
        """As this writer knows it; None before the first batch."""
        self._writers: dict[tuple[str, int], TileWriter | None] = {}

    async def claim(self) -> Table:
        """Take part: see `Generations.claim`. Raises StoreUnavailable."""
        return self._knows(await self._generations.claim(self._views))

    async def write(
        self, batch: EventBatch, *, accept_gap: bool = False, after: asyncio.Future[Any] | None = None
    ) -> Applied:
        """As `TileWriter.write`. BEHIND means a generation that is read; to one that is coming its rebuild will see."""
        table = self.table or await self.claim()
        for _ in range(ATTEMPTS):
            applied = await self._write(table, batch, accept_gap, after)
            if applied.outcome is not Outcome.STALE:
                return applied
            before, table = table, self._knows(await self._generations.refresh(self._views))
            if not table.revision or table.revision < before.revision:  # the store lost the table, and all else with it
                table = await self.claim()
        raise StoreUnavailable("the table of generations does not come to rest; try again")

    async def _write(
        self, table: Table, batch: EventBatch, accept_gap: bool, after: asyncio.Future[Any] | None
    ) -> Applied:
        behind: Applied | None = None
        for generation in table.generations(batch.stream):
            is_read = generation == FIRST or table.is_read(batch.stream, generation)
            if generation == FIRST and behind is not None:
                break
            writer = self._writer(table, batch.stream, generation)
            if writer is None:
                continue
            gap = accept_gap and is_read
            applied = await writer.write(batch_at(batch, generation), accept_gap=gap, after=after)
            if applied.outcome is Outcome.STALE:
                return applied
            if applied.outcome is Outcome.BEHIND and is_read and (behind is None or applied.fence < behind.fence):
                behind = applied
        return behind or applied

    def _writer(self, table: Table, stream: str, generation: int) -> TileWriter | None:
        """None for a generation of views that this worker does not know (all): it would move the fence without them."""
        if (stream, generation) not in self._writers:
            views = table.written(self._views, stream, generation)
            whole = generation == FIRST or len(views) == len(table.members(stream, generation))
            source = self._generations
            self._writers[stream, generation] = (
                TileWriter(source.store, views, source.group, revision=table.revision) if whole else None
            )
        return self._writers[stream, generation]

    def _knows(self, table: Table) -> Table:
        self.table = table
        self._writers.clear()
        return table
