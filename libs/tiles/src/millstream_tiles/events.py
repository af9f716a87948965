"""Consecutive events of one partition, column by column: what a worker hands to the tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class EventBatch:
    """Events of `stream` in offset order. `start` to `end` (both included) are the offsets that the batch covers; some of
    them may hold no event (dead-lettered, compacted away), so a batch may move the fence and carry nothing."""

    stream: str
    partition: int
    start: int
    end: int
    offsets: Ints
    event_time: Ints
    """Microseconds since the epoch; at most 5 minutes ahead of known-at (checked upstream)."""
    known_at: Ints
    ids: list[Any] | None
    """Event ids, where the stream has them; a None among them is never a duplicate."""
    columns: dict[str, list[Any]]
    """Raw JSON values. A column that no event has may be missing."""

    def __post_init__(self) -> None:
        n = len(self.offsets)
        lengths = {len(self.event_time), len(self.known_at), *(len(c) for c in self.columns.values())}
        if self.ids is not None:
            lengths.add(len(self.ids))
        if lengths != {n}:
            raise ValueError(f"columns of unequal length: {sorted(lengths | {n})}")
        if self.end < self.start or (n and not (self.start <= self.offsets[0] and self.offsets[-1] <= self.end)):
            raise ValueError(f"events lie outside of the offsets {self.start} to {self.end}")

    def __len__(self) -> int:
        return len(self.offsets)

    def after(self, offset: int) -> EventBatch:
        """The part behind `offset`; `offset` must lie before `end`."""
        if offset < self.start:
            return self
        first = int(np.searchsorted(self.offsets, offset, side="right"))
        return self._slice(first, len(self), offset + 1, self.end)

    def split(self, size: int) -> list[EventBatch]:
        """The same events in batches of at most `size`, in order, without a gap."""
        if len(self) <= size:
            return [self]
        parts = []
        start = self.start
        for first in range(0, len(self), size):
            last = min(first + size, len(self))
            end = self.end if last == len(self) else int(self.offsets[last]) - 1
            parts.append(self._slice(first, last, start, end))
            start = end + 1
        return parts

    def _slice(self, first: int, last: int, start: int, end: int) -> EventBatch:
        return EventBatch(
            stream=self.stream,
            partition=self.partition,
            start=start,
            end=end,
            offsets=self.offsets[first:last],
            event_time=self.event_time[first:last],
            known_at=self.known_at[first:last],
            ids=None if self.ids is None else self.ids[first:last],
            columns={name: values[first:last] for name, values in self.columns.items()},
        )
