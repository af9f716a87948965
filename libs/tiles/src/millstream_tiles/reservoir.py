"""A fair sample of a stream in bounded memory, the same on every run."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar
from zlib import crc32

T = TypeVar("T")


class Reservoir(Generic[T]):
    """Keeps the `size` items whose ids hash lowest: a uniform sample of the different ids, in whatever order they come."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.offered = 0
        """Items that came, kept or not, repeats included."""
        self._heap: list[tuple[int, str]] = []
        self._items: dict[str, T] = {}

    def __len__(self) -> int:
        return len(self._items)

    def wants(self, id: str) -> bool:
        """Whether an item of this id would be kept, to spare who asks from making it."""
        if self.size <= 0 or id in self._items:
            return False
        return len(self._heap) < self.size or rank(id) < -self._heap[0][0]

    def offer(self, id: str, item: T) -> None:
        """Keep `item`, if the sample wants it. A repeated id is one item."""
        self.offered += 1
        if not self.wants(id):
            return
        heapq.heappush(self._heap, (-rank(id), id))
        self._items[id] = item
        if len(self._heap) > self.size:
            del self._items[heapq.heappop(self._heap)[1]]

    def drain(self) -> list[T]:
        """What was kept, in the order of its ids' hashes; the reservoir is empty then."""
        kept = [self._items[id] for _, id in sorted(self._heap, reverse=True)]
        self._heap, self._items, self.offered = [], {}, 0
        return kept


def rank(id: str) -> int:
    """An id's place in every sample, 0 to 2**32 - 1."""
    return crc32(id.encode("utf-8", "surrogatepass"))
