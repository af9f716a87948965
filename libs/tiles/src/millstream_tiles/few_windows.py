"""Windows of a few rows in plain Python: there NumPy's cost per call is more than the arithmetic.

One row of four views with 20 features and 24 tiles takes 40 µs here and 95 µs in `windows.window_values`; beyond
`ROWS` rows or `TILES` tiles its columns win. It computes the same values (`tests/test_few_windows.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isinf, nan, sqrt
from operator import mul

from millstream_tiles.definition import Aggregate, Function
from millstream_tiles.layout import Layout, counted

ROWS = 4
"""Of one read: with more, the columns of NumPy are as fast."""
TILES = 150
"""Fetched for one read; the same."""

Tile = Sequence[float]
"""The tile's index and its components, as the layout has them."""
Columns = Sequence[Sequence[float]]
"""The tiles of one window by component: Columns[0] are their indexes. Empty where there are none."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """How one aggregate is computed from the tiles of its window."""

    slide: int
    tiles: int
    at: int
    """The component that it reads, with those behind it."""
    nothing: float
    """The value of an empty window."""
    compute: Callable[[Columns, int], float]


def steps_of(aggregates: Sequence[Aggregate], layout: Layout) -> tuple[Step, ...] | None:
    """One step an aggregate, in their order; None where one of them is not computed here."""
    steps = []
    for aggregate in aggregates:
        known = _KNOWN.get(aggregate.function)
        if known is None:
            return None
        kind, nothing, compute = known
        part = layout.find(kind, counted(aggregate.column))
        at = part.at
        if aggregate.function is Function.MEAN:
            compute = _mean(layout.find("n", counted(aggregate.column)).at)
        steps.append(
            Step(slide=aggregate.slide, tiles=aggregate.tiles, at=at, nothing=nothing, compute=compute),
        )
    return tuple(steps)


def few_values(steps: Sequence[Step], tiles: Sequence[Tile], as_of: int) -> list[float]:
    """The value of each step at `as_of` (microseconds) from the tiles of one entity; null is NaN, counts are whole."""
    windows: dict[int, Columns] = {}
    values = []
    for step in steps:
        columns = windows.get(step.tiles)
        if columns is None:
            newest = as_of // step.slide
            oldest = newest - step.tiles + 1
            columns = windows[step.tiles] = list(zip(*[t for t in tiles if oldest <= t[0] <= newest], strict=True))
        values.append(step.compute(columns, step.at) if columns else step.nothing)
    return values


def _sum(columns: Columns, at: int) -> float:
    return sum(columns[at])


def _mean(count_at: int) -> Callable[[Columns, int], float]:
    def mean(columns: Columns, at: int) -> float:
        n = sum(columns[count_at])
        return sum(columns[at]) / n if n > 0 else nan

    return mean


def _min(columns: Columns, at: int) -> float:
    return _finite(min(columns[at]))


def _max(columns: Columns, at: int) -> float:
    return _finite(max(columns[at]))


def _variance(columns: Columns, at: int) -> float:
    """As `windows._variance`: M2 = sum(M2_i) + sum(n_i (mean_i - mean)^2)."""
    counts, means = columns[at], columns[at + 1]
    total = sum(counts)
    if total <= 1:
        return nan
    overall = sum(map(mul, counts, means)) / total
    spread: float = sum(columns[at + 2]) + sum(
        [n * (mean - overall) ** 2 for n, mean in zip(counts, means, strict=True)]
    )
    return spread / (total - 1)


def _deviation(columns: Columns, at: int) -> float:
    return sqrt(_variance(columns, at))


def _first(columns: Columns, at: int) -> float:
    return _finite(min(zip(columns[at], columns[at + 1], strict=True))[1])


def _last(columns: Columns, at: int) -> float:
    return _finite(max(zip(columns[at], columns[at + 1], strict=True))[1])


def _finite(value: float) -> float:
    """The infinities that stand for "no value" as NaN."""
    return nan if isinf(value) else value


_KNOWN: dict[Function, tuple[str, float, Callable[[Columns, int], float]]] = {
    Function.COUNT: ("count", 0.0, _sum),
    Function.SUM: ("sum", 0.0, _sum),
    Function.MEAN: ("sum", nan, _sum),
    Function.MIN: ("min", nan, _min),
    Function.MAX: ("max", nan, _max),
    Function.VAR: ("moments", nan, _variance),
    Function.STD: ("moments", nan, _deviation),
    Function.FIRST: ("first", nan, _first),
    Function.LAST: ("last", nan, _last),
}
"""Function -> the part of the tile that it reads, its value without events, and how it is computed."""
