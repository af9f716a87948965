"""Tiles, history and times in memory, for unit tests: held to the same duties as the real ones."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from millstream.runtime.user_events import UserEvent
from millstream_features.errors import LakeRefuses, LakeUnavailable
from millstream_features.ports import Applied, Slice, Tidied, ViewTime


class MemoryTiles:
    """Keeps every event it was given once, by the fence."""

    def __init__(self) -> None:
        self.fences: dict[tuple[str, int], int] = {}
        self.events: list[UserEvent] = []

    async def check(self) -> None:
        """Always there."""

    async def applied(self, stream: str, partitions: Sequence[int]) -> dict[int, int]:
        return {p: self.fences[stream, p] for p in partitions if (stream, p) in self.fences}

    async def apply(self, batch: Slice, after: asyncio.Future[Any] | None = None) -> Applied:
        if after is not None:
            await after
        partition = (batch.stream, batch.partition)
        fence = self.fences.get(partition, -1)
        if fence >= batch.end:
            return Applied(repeated=True, behind_at=None)
        if fence + 1 < batch.start:
            return Applied(repeated=False, behind_at=fence + 1)
        self.events += [e for e in batch.events if e.record.offset > fence]
        self.fences[partition] = batch.end
        return Applied(repeated=False, behind_at=None)

    async def close(self) -> None:
        """Nothing to let go of."""


class MemoryHistory:
    """Keeps rows by stream; `away` makes it unavailable, `refuses` says of streams why they do not fit."""

    def __init__(self) -> None:
        self.rows: dict[str, list[UserEvent]] = {}
        self.ends: dict[tuple[str, int], int] = {}
        self.commits = 0
        self.away = False
        self.refuses: dict[str, str] = {}

    async def append(self, slices: Sequence[Slice]) -> None:
        if self.away:
            raise LakeUnavailable("the lake is away")
        if why := self.refuses.get(slices[0].stream):
            raise LakeRefuses(why)
        for part in slices:
            end = self.ends.get((part.stream, part.partition), -1)
            self.rows.setdefault(part.stream, []).extend(e for e in part.events if e.record.offset > end)
            self.ends[part.stream, part.partition] = max(end, part.end)
        self.commits += 1

    async def positions(self, stream: str, partitions: Sequence[int]) -> dict[int, int]:
        if self.away:
            raise LakeUnavailable("the lake is away")
        return {p: self.ends[stream, p] for p in partitions if (stream, p) in self.ends}

    async def refusal(self, stream: str) -> str | None:
        if self.away:
            raise LakeUnavailable("the lake is away")
        return self.refuses.get(stream)

    async def tidy(self, stream: str) -> Tidied:
        """Nothing to do, there are no files."""
        if self.away:
            raise LakeUnavailable("the lake is away")
        return Tidied(joined=0, deleted=0, files=0)


class MemoryViewTimes:
    """Says what it was given."""

    def __init__(self, *times: ViewTime) -> None:
        self.times = list(times)

    async def all(self) -> list[ViewTime]:
        return self.times

    async def close(self) -> None:
        """Nothing to let go of."""
