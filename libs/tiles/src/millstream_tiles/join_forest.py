"""The forest of blocks that the point-in-time join walks: sizes 1, 2, 4, ... over events in (key, event time) order.

At each size the rows of a block are ordered by known-at, so "the rows of this block known at t" is a prefix of it. The
walk visits one size at a time, bottom up, and keeps only that size in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
NEVER = np.iinfo(np.int64).max
"""Known-at of the padding that fills the last block."""


class Run(Protocol):
    """A running value along the rows of each block. `walk` calls `start`, then `rise` for each size but 1."""

    def start(self, padded: int) -> None:
        """Lay the events out as `padded` blocks of one row; rows past the last event count as null."""

    def rise(self, width: int, mixed: Ints, order: Ints) -> None:
        """Join neighbouring blocks into blocks of `width` rows.

        `order[i]` says which row of the joined block `mixed[i]` comes where; in the other blocks the rows stay in place.
        """


class Measure(Protocol):
    """One aggregate of one span, taken from the runs that it may share with others. `walk` calls `take` size by size."""

    @property
    def runs(self) -> Sequence[Run]:
        """What it is taken from."""

    def take(self, questions: Ints, rows: Ints) -> None:
        """Add to each question the part of a block from its first row up to and including `rows`."""

    def values(self) -> Floats | Ints:
        """The answers: one per question."""


@dataclass
class Span:
    """For each question the events from `start` to before `end` (positions) that were known at `t`; one window and slide."""

    start: Ints
    end: Ints
    t: Ints
    measures: list[Measure] = field(default_factory=list)


def walk(known: Ints, spans: list[Span]) -> None:
    """Feed every span's measures with the events they cover. `known`: known-at of the events in (key, event time) order."""
    longest = max((int(np.max(span.end - span.start, initial=0)) for span in spans), default=0)
    # A block longer than every range is never taken whole, so the forest stops below that size.
    top = 1 << (longest.bit_length() - 1) if longest else 1
    padded = -(-max(len(known), 1) // top) * top
    known = np.concatenate([known, np.full(padded - len(known), NEVER)])
    frontiers = [_Frontier(span) for span in spans]
    runs = {id(run): run for span in spans for measure in span.measures for run in measure.runs}
    for run in runs.values():
        run.start(padded)
    width = 1
    while True:
        for frontier in frontiers:
            frontier.advance(known, width)
        width *= 2
        if width > top:
            return
        mixed, order = _sort_blocks(known, width)
        for run in runs.values():
            run.rise(width, mixed, order)


def _sort_blocks(known: Ints, width: int) -> tuple[Ints, Ints]:
    """Sort each block of `width` rows by known-at, in place; returns the blocks whose rows moved and their new order."""
    blocks = known.reshape(-1, width)
    half = width // 2
    mixed = np.flatnonzero(blocks[:, half - 1] > blocks[:, half])
    # Stable is merge sort, which only merges what the level below has sorted.
    order = np.argsort(blocks[mixed], axis=1, kind="stable")
    blocks[mixed] = np.take_along_axis(blocks[mixed], order, axis=1)
    return mixed, order


class _Frontier:
    """What is still to be covered of each question's range, in blocks of the current size."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._open = np.flatnonzero(span.start < span.end)
        self._left = span.start[self._open]
        self._right = span.end[self._open]

    def advance(self, known: Ints, width: int) -> None:
        """Take the blocks of `width` rows that stick out left and right, then halve what remains."""
        odd_left = (self._left & 1).astype(bool)
        self._take(known, width, self._open[odd_left], self._left[odd_left])
        # The left block may have been the last one: then there is no right one to take.
        left = (self._left + odd_left) >> 1
        odd_right = (self._right & 1).astype(bool) & (self._left + odd_left < self._right)
        self._take(known, width, self._open[odd_right], self._right[odd_right] - 1)
        right = self._right >> 1
        more = left < right
        self._open, self._left, self._right = self._open[more], left[more], right[more]

    def _take(self, known: Ints, width: int, questions: Ints, blocks: Ints) -> None:
        if not len(questions):
            return
        t = self._span.t[questions]
        rows = blocks * width + (width - 1)
        partly = np.flatnonzero(known[rows] > t)
        if len(partly):
            rows[partly] = _last_known(known, width, blocks[partly] * width, t[partly])
            some = rows >= blocks * width
            questions, rows = questions[some], rows[some]
        for measure in self._span.measures:
            measure.take(questions, rows)


def _last_known(known: Ints, width: int, first: Ints, t: Ints) -> Ints:
    """The last row of each block (from row `first`) known at `t`, or `first` - 1. The block's last row is not known."""
    count = np.zeros_like(first)
    step = width // 2
    while step:
        count += step * (known[first + count + (step - 1)] <= t)
        step //= 2
    return first + count - 1
