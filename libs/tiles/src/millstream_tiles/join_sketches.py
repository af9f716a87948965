"""The point-in-time join of the sketches: each question's slots, put together from its tiles as known at its time.

A tile of which every event was known by then gives its slots, merged once for all questions; of any other tile (the newest
ones, mostly) the events themselves are looked through. So a question costs as many steps as its window has filled slots,
however many events they stand for. Memory is bounded by answering so many questions at a time as have at most `AT_ONCE`
events in their windows (and a single question that has more, by itself).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from millstream_tiles.join_forest import Floats, Ints
from millstream_tiles.sketches import combined

AT_ONCE = 4_000_000
"""Events in the windows of the questions that are answered together; where all must be looked through, about 60 bytes each."""


class TileSlots:
    """The slots of one column, tile by tile, of events in (key, event time) order."""

    def __init__(self, codes: Ints, tiles: Ints, known: Ints, slots: Ints, said: Floats, merge: np.ufunc) -> None:
        """`codes` (keys), `tiles`, `known` (known-at), `slots` (-1: the event says nothing) and what each `said` there."""
        self._merge = merge
        self._known, self._slots, self._said = known, slots, said
        new = np.ones(len(codes), dtype=bool)
        new[1:] = (codes[1:] != codes[:-1]) | (tiles[1:] != tiles[:-1])
        self._tile_of = np.cumsum(new) - 1
        self._starts = np.append(np.flatnonzero(new), len(codes))
        self._complete = np.maximum.reduceat(known, self._starts[:-1]) if len(codes) else known
        there = slots >= 0
        owners, self._tile_slots, self._tile_said = combined(self._tile_of[there], slots[there], said[there], merge)
        self._slot_starts = np.searchsorted(owners, np.arange(len(self._starts)))

    def answers(self, start: Ints, end: Ints, t: Ints) -> Iterator[tuple[Ints, Ints, Ints, Floats]]:
        """For some questions at a time: which they are, and their `combined` slots (owner: place among them, slot, value).

        `start` and `end` (positions of events, both at the edge of a tile) and `t` of each question.
        """
        none = len(self._starts) - 1
        tile_of = np.append(self._tile_of, none)
        first, last = tile_of[start], np.where(end > start, tile_of[np.maximum(end - 1, 0)] + 1, tile_of[start])
        # No question needs more than the events of its tiles; it fills no more slots than those.
        cost = np.cumsum(self._starts[last] - self._starts[first] + 1)
        begin = 0
        while begin < len(t):
            done = cost[begin - 1] if begin else 0
            upto = max(begin + 1, int(np.searchsorted(cost, done + AT_ONCE, side="right")))
            questions = np.arange(begin, upto)
            yield questions, *self._some(first[questions], last[questions], t[questions])
            begin = upto

    def _some(self, first: Ints, last: Ints, t: Ints) -> tuple[Ints, Ints, Floats]:
        owner, tile = _ranges(first, last)
        whole = self._complete[tile] <= t[owner]
        asked, at = _ranges(self._slot_starts[tile[whole]], self._slot_starts[tile[whole] + 1])
        owners, slots, said = [owner[whole][asked]], [self._tile_slots[at]], [self._tile_said[at]]
        partly = ~whole
        asked, at = _ranges(self._starts[tile[partly]], self._starts[tile[partly] + 1])
        asker = owner[partly][asked]
        heard = (self._known[at] <= t[asker]) & (self._slots[at] >= 0)
        owners.append(asker[heard])
        slots.append(self._slots[at[heard]])
        said.append(self._said[at[heard]])
        return combined(np.concatenate(owners), np.concatenate(slots), np.concatenate(said), self._merge)


def _ranges(first: Ints, last: Ints) -> tuple[Ints, Ints]:
    """All whole numbers from each `first` to before each `last`, one after the other, and which range each belongs to."""
    sizes = last - first
    owner = np.repeat(np.arange(len(first)), sizes)
    before = np.cumsum(sizes) - sizes
    return owner, np.arange(len(owner)) - before[owner] + first[owner]
