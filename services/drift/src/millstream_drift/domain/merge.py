"""Brings records of many partitions into stream-time order: knows up to which time everything has been read.

Kafka orders one partition only, and a poll may hold an hour of one and nothing yet of another. So records are held until
their time is settled: when every partition either is past that time, or is read to an end that was asked for after the
newest record was seen. Whoever wrote that newest record wrote it after everything older (a replay waits between ticks), so
nothing older can be missing. Without the fresh ends a slow fetch would look like an empty partition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

Place = tuple[str, int]
"""Topic and partition."""


class Merge(msgspec.Struct, array_like=True):
    """Positions and stream times per partition."""

    next: dict[Place, int] = {}
    """The first offset that was not read yet."""
    frontier: dict[Place, int] = {}
    """Largest stream time read (microseconds)."""
    ends: dict[Place, int] = {}
    """Where each partition ended when it was last asked for."""
    mark: int = 0
    """Largest stream time that had been read when the ends were asked for."""
    seen: int = 0
    """Largest stream time read so far."""

    def read(self, place: Place, following: int, newest: int | None) -> None:
        """Everything of `place` below offset `following` was read; `newest` is the largest time among it."""
        self.next[place] = following
        if newest is not None:
            self.frontier[place] = max(newest, self.frontier.get(place, newest))
            self.seen = max(self.seen, newest)

    def ended(self, ends: dict[Place, int]) -> None:
        """The ends of all partitions, asked for just now."""
        self.ends = ends
        self.mark = self.seen

    def settled(self) -> int:
        """Everything with a stream time below this has been read; 0 where that is not known."""
        slowest = self._slowest()
        return min(self.mark, slowest) if slowest is not None else self.mark

    def needs_ends(self) -> bool:
        """Whether asking for the ends again would settle more. Else it takes reading on."""
        slowest = self._slowest()
        return self.mark < self.seen and (slowest is None or slowest > self.mark)

    def _slowest(self) -> int | None:
        behind = [self.frontier.get(place, 0) for place, end in self.ends.items() if self.next.get(place, 0) < end]
        return min(behind) if behind else None


def resumed(kept: Sequence[Merge], bounds: Mapping[Place, tuple[int, int]]) -> Merge:
    """Where reading goes on for whoever keeps these: at each place where the one is that is furthest behind; where none is
    kept, or Kafka has deleted more, with the first record there is."""
    merge = Merge(seen=min((one.seen for one in kept), default=0))
    for place, (first, _) in bounds.items():
        last = min((one for one in kept if place in one.next), key=lambda one: one.next[place], default=None)
        merge.next[place] = first if last is None else max(first, last.next[place])
        if last is not None and place in last.frontier:
            merge.frontier[place] = last.frontier[place]
    return merge


def further(one: Merge, other: Merge) -> Merge:
    """At each place where the one is that has read more."""
    found = Merge(dict(one.next), dict(one.frontier), seen=max(one.seen, other.seen))
    for place, following in other.next.items():
        if following > found.next.get(place, 0):
            found.next[place] = following
            found.frontier.pop(place, None)
            if place in other.frontier:
                found.frontier[place] = other.frontier[place]
    return found
