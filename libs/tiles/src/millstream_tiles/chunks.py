"""Cuts a long history into what fits in memory: which questions are answered together, and over how many parts of the keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np

from millstream_tiles.definition import DAY
from millstream_tiles.join_forest import Floats, Ints

EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What may be in memory at once."""

    questions: int = 500_000
    """A year of a busy stream's questions in a few chunks, each of some hundred megabytes."""
    events: int = 4_000_000
    """Events of one pass over a chunk. A view's join takes 200 to 400 bytes of each, and two views are joined at a time."""


class DailyCounts:
    """How many events each date has, read as if they were spread evenly over their day."""

    def __init__(self, counts: Mapping[date, int]) -> None:
        days = np.array([((day - EPOCH).days) * DAY for day in sorted(counts)], dtype=np.int64)
        upto = np.cumsum([0, *(counts[day] for day in sorted(counts))])
        self._times = np.stack([days, days + DAY], axis=1).ravel()
        self._counts = np.stack([upto[:-1], upto[1:]], axis=1).ravel()

    def before(self, times: Ints) -> Floats:
        """About how many events happened before each of `times` (microseconds)."""
        if not len(self._times):
            return np.zeros(len(times))
        found: Floats = np.interp(times, self._times, self._counts)
        return found

    def at_most(self, since: int, until: int) -> int:
        """No more events than this happened from `since` to `until`: those of all days that are touched."""
        first, last = since // DAY * DAY, -(-until // DAY) * DAY
        counts = self.before(np.array([first, last], dtype=np.int64))
        return round(float(counts[1] - counts[0]))


def chunks(t: Ints, lead: int, counts: DailyCounts, limits: Limits) -> Iterator[slice]:
    """Slices of the questions `t` (ascending) that are answered together; each also needs the events of `lead` before it.

    A chunk ends where its questions or, as far as `counts` tell, its events reach the limit; but it is at least as long as
    its lead, so that no event is read much more than twice. What is still too much is left to passes over the keys.
    """
    so_far, first = counts.before(t), 0
    while first < len(t):
        full = counts.before(t[first : first + 1] - lead)[0] + limits.events
        last = max(np.searchsorted(so_far, full, "right"), np.searchsorted(t, t[first] + lead, "right"), first + 1)
        last = min(int(last), first + limits.questions)
        yield slice(first, min(last, len(t)))
        first = last
