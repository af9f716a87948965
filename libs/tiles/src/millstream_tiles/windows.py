"""From tiles to window values: every aggregate of a view for many (entity, as-of) questions at once, column-wise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millstream_tiles.definition import Aggregate, Function
from millstream_tiles.layout import Floats, Ints, Layout, Part, counted, sketch_of
from millstream_tiles.reduction import latest_of
from millstream_tiles.sketches import ROWS, combined, distinct_counts, percentiles, unpacked
from millstream_tiles.tiling import cover

Values = dict[str, NDArray[np.float64] | NDArray[np.int64]]
"""Feature name -> one value a question: int64 for counts, else float64 with NaN for null; of `last_k` a row of k values, the
latest first, NaN behind the last there is."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Coarse:
    """The coarse tiles beside fine ones, held as those are."""

    many: int
    """Fine tiles in each."""
    rows: Floats
    counts: Ints


def window_values(
    aggregates: Sequence[Aggregate],
    layout: Layout,
    rows: Floats,
    counts: Ints,
    entity_of: Ints,
    as_of: Ints,
    coarse: Coarse | None = None,
) -> list[NDArray[np.float64] | NDArray[np.int64]]:
    """The values of `aggregates`, all of one `tiling.Tiling`, in their order.

    `rows` are the tiles of all entities, (tiles, layout width), `counts` says how many belong to each entity;
    question i asks for entity `entity_of[i]` (-1: none) at `as_of[i]` microseconds. Rows in no window may be missing; with
    `coarse` tiles, so may fine ones that they stand for.
    """
    tiles = _Expanded(rows, counts, entity_of)
    long = None if coarse is None else _Expanded(coarse.rows, coarse.counts, entity_of)
    values = []
    windows: dict[int, _Window] = {}
    for aggregate in aggregates:
        window = windows.get(aggregate.tiles)
        if window is None:
            newest = as_of // aggregate.slide
            oldest = newest - aggregate.tiles + 1
            if layout.sketch:
                rows, owner = tiles.between(oldest * ROWS, newest * ROWS + ROWS - 1)
            elif coarse is None or long is None:
                rows, owner = tiles.between(oldest, newest)
            else:
                rows, owner = _two_levels(tiles, long, oldest, newest, coarse.many)
            window = windows[aggregate.tiles] = _Window(rows, owner, tiles.questions)
        values.append(_value(aggregate, layout, window))
    return values


class _Expanded:
    """The rows that each question may need, question by question."""

    def __init__(self, rows: Floats, counts: Ints, entity_of: Ints) -> None:
        self.questions = len(entity_of)
        self._rows = rows
        starts = np.concatenate(([0], np.cumsum(counts)))
        asked = np.where(entity_of < 0, 0, counts[entity_of]) if len(counts) else np.zeros_like(entity_of)
        self._owner = np.repeat(np.arange(len(entity_of)), asked)
        first = np.repeat(starts[entity_of] - (np.cumsum(asked) - asked), asked)
        # Only where each row stands: to copy them all costs as much as to compute with them.
        self._at = first + np.arange(len(self._owner))
        self._index = rows[:, 0][self._at]

    def between(self, first: Ints, last: Ints) -> tuple[Floats, Ints]:
        """The rows with an index from `first` to `last` (one a question, both included), and the question of each."""
        inside = np.flatnonzero((self._index >= first[self._owner]) & (self._index <= last[self._owner]))
        return self._rows[self._at[inside]], self._owner[inside]


def _two_levels(fine: _Expanded, long: _Expanded, oldest: Ints, newest: Ints, many: int) -> tuple[Floats, Ints]:
    """The rows of both levels that make up each window, question by question."""
    parts = cover(oldest, newest, many)
    found = [
        fine.between(parts.oldest, parts.head),
        long.between(parts.first, parts.last),
        fine.between(parts.tail, parts.newest),
    ]
    owner = np.concatenate([owner for _, owner in found])
    order = np.argsort(owner, kind="stable")
    return np.concatenate([rows for rows, _ in found])[order], owner[order]


class _Window:
    """The rows inside one window, and sums over them for each question."""

    def __init__(self, rows: Floats, owner: Ints, questions: int) -> None:
        self.rows = rows
        self.owner = owner
        self.questions = questions
        # Owners ascend, so each question's rows are one run.
        self._starts = np.flatnonzero(np.diff(self.owner, prepend=-1))
        self._present = self.owner[self._starts]

    def column(self, part: Part, offset: int = 0) -> Floats:
        return self.rows[:, part.at + offset]

    def reduce(self, ufunc: np.ufunc, values: Floats, nothing: float) -> Floats:
        out = np.full(self.questions, nothing)
        if len(self._starts):
            out[self._present] = ufunc.reduceat(values, self._starts)
        return out

    def add(self, values: Floats) -> Floats:
        return self.reduce(np.add, values, 0.0)


def _value(aggregate: Aggregate, layout: Layout, window: _Window) -> NDArray[np.float64] | NDArray[np.int64]:
    column = counted(aggregate.column)

    def part(kind: str) -> Part:
        return layout.find(kind, column)

    if sketch_of(aggregate):
        return _sketched(aggregate, window)

    match aggregate.function:
        case Function.COUNT:
            return window.add(window.column(part("count"))).astype(np.int64)
        case Function.SUM:
            return window.add(window.column(part("sum")))
        case Function.MEAN:
            n = window.add(window.column(part("n")))
            return _divide(window.add(window.column(part("sum"))), n)
        case Function.MIN:
            return _finite(window.reduce(np.minimum, window.column(part("min")), np.inf))
        case Function.MAX:
            return _finite(window.reduce(np.maximum, window.column(part("max")), -np.inf))
        case Function.VAR:
            return _variance(window, part("moments"))
        case Function.STD:
            return np.sqrt(_variance(window, part("moments")))
        case Function.FIRST:
            return _at_the_end(window, part("first"), np.minimum, np.inf)
        case Function.LAST:
            return _at_the_end(window, part("last"), np.maximum, -np.inf)
        case Function.LAST_K:
            return _latest(window, part("latest"), aggregate.k)
    raise ValueError(f"{aggregate.name}: no online value for {aggregate.function}")


def _at_the_end(window: _Window, part: Part, furthest: np.ufunc, nothing: float) -> Floats:
    """The first (`furthest` is the minimum) or last value."""
    times = window.column(part)
    end = window.reduce(furthest, times, nothing)
    values = np.where(times == end[window.owner], window.column(part, 1), nothing)
    return _finite(window.reduce(furthest, values, nothing))


def _latest(window: _Window, part: Part, k: int) -> Floats:
    """The k latest values of each question, (questions, k)."""
    pairs = window.rows[:, part.at : part.at + part.width].reshape(len(window.rows), part.k, 2)
    times, values = pairs[:, :, 0].ravel(), pairs[:, :, 1].ravel()
    there = np.isfinite(times)
    owner = np.repeat(window.owner, part.k)[there]
    return _finite(latest_of(owner, times[there], values[there], window.questions, k)[:, 1::2])


def _sketched(aggregate: Aggregate, window: _Window) -> NDArray[np.float64] | NDArray[np.int64]:
    """What the slots of each question say."""
    quantile = aggregate.function.quantile
    if quantile is None:
        owner, _, ranks = combined(*unpacked(window.owner, window.rows), np.maximum)
        return distinct_counts(owner, ranks, window.questions)
    slots = window.rows[:, 0].astype(np.int64) % ROWS
    owner, slots, counts = combined(window.owner, slots, window.rows[:, 1], np.add)
    return percentiles(owner, slots, counts, window.questions, quantile)


def _variance(window: _Window, moments: Part) -> Floats:
    """Chan, Golub and LeVeque (1983) for any number of parts: M2 = sum(M2_i) + sum(n_i (mean_i - mean)^2)."""
    n, mean, m2 = (window.column(moments, i) for i in range(3))
    total = window.add(n)
    overall = _divide(window.add(n * mean), total)
    away = np.where(n > 0, mean - overall[window.owner], 0.0)
    spread = window.add(m2 + n * away * away)
    return _divide(spread, np.where(total > 1, total - 1, 0.0))


def _divide(a: Floats, b: Floats) -> Floats:
    """a / b, NaN where b is 0."""
    out = np.full(len(a), np.nan)
    np.divide(a, b, out=out, where=b > 0)
    return out


def _finite(values: Floats) -> Floats:
    """The infinities that stand for "no value" as NaN; true values are finite."""
    return np.where(np.isinf(values), np.nan, values)
