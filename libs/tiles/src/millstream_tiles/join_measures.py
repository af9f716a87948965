"""The aggregates of the point-in-time join: running values inside each block, merged into each question's answer.

The running values (`Run` of join_forest) depend on a column alone, so all windows and functions that need them share them; a
measure is what one feature takes from them. A column's null is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from millstream_tiles.join_forest import Bools, Floats, Ints, Run

Partial = tuple[Floats, Floats, Floats]
"""Count, mean, and sum of squared deviations from the mean."""


T = TypeVar("T", np.int64, np.float64)


class Running(Generic[T]):
    """A NumPy accumulation (sum, minimum, maximum) along each block."""

    def __init__(self, leaves: npt.NDArray[T], merge: np.ufunc, nothing: float) -> None:
        self._leaves: npt.NDArray[T] = leaves
        self.merge = merge
        self.nothing = nothing
        self.values: npt.NDArray[T] = leaves

    def start(self, padded: int) -> None:
        padding = np.full(padded - len(self._leaves), self.nothing, dtype=self._leaves.dtype)
        self._leaves = np.concatenate([self._leaves, padding])
        self.values = self._leaves.copy()

    def rise(self, width: int, mixed: Ints, order: Ints) -> None:
        # A running value of the right half continues the left half's last one: pairwise, so a sum keeps its digits.
        halves = self.values.reshape(-1, 2, width // 2)
        self.merge(halves[:, 0, -1:], halves[:, 1], out=halves[:, 1])
        if len(mixed):
            leaves = self._leaves.reshape(-1, width)
            moved = np.take_along_axis(leaves[mixed], order, axis=1)
            leaves[mixed] = moved
            self.values.reshape(-1, width)[mixed] = self.merge.accumulate(moved, axis=1)


def counting(present: Bools) -> Running[np.int64]:
    """How many rows have a value."""
    return Running(present.astype(np.int64), np.add, 0)


def adding(column: Floats) -> Running[np.float64]:
    """Their sum."""
    return Running(np.where(np.isnan(column), 0.0, column), np.add, 0.0)


def furthest(column: Floats, merge: np.ufunc, nothing: float) -> Running[np.float64]:
    """Their minimum or maximum; `nothing` is the infinity that no finite value loses against."""
    return Running(np.where(np.isnan(column), nothing, column), merge, nothing)


class Ranks:
    """The value with the largest event time, as a running maximum of ranks; among equal event times the larger value.

    `places` orders the events by (key, event time). A row's rank by (place, value) says which of two rows is the later.
    With both negated it is the smallest time and the smaller value, negated.
    """

    def __init__(self, column: Floats, places: Ints) -> None:
        order = np.lexsort((column, places))
        ranks = np.empty(len(column), dtype=np.int64)
        ranks[order] = np.arange(len(column))
        self.by_rank = np.append(column[order], np.nan)
        self.run: Running[np.int64] = Running(np.where(np.isnan(column), -1, ranks), np.maximum, -1)


class Moments:
    """Count, mean and squared deviations, merged pairwise along each block.

    Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979), eq. 2.1:
    there is no sum of raw squares, so a large mean costs no digits.
    """

    def __init__(self, column: Floats) -> None:
        present = ~np.isnan(column)
        self.values: Partial = (present.astype(np.float64), np.where(present, column, 0.0), np.zeros(len(column)))

    def start(self, padded: int) -> None:
        self.values = each(lambda part: np.concatenate([part, np.zeros(padded - len(part))]), self.values)

    def rise(self, width: int, mixed: Ints, order: Ints) -> None:
        """The part of a joined block up to a row is a prefix of its left half and a prefix of its right half."""
        half = width // 2
        from_left: Ints = np.cumsum(order < half, axis=1, dtype=np.int64)
        from_right = np.arange(1, width + 1) - from_left
        base = mixed[:, None] * width
        moved = merged(self._first(base, from_left), self._first(base + half, from_right))

        halves = each(lambda part: part.reshape(-1, 2, half), self.values)
        stayed = merged(each(lambda part: part[:, 0, -1:], halves), each(lambda part: part[:, 1], halves))
        for part, right, blocks in zip(halves, stayed, moved, strict=True):
            part[:, 1] = right
            part.reshape(-1, width)[mixed] = blocks

    def _first(self, base: Ints, count: Ints) -> Partial:
        """The partial of the first `count` rows from row `base`."""
        rows = base + np.maximum(count - 1, 0)
        return each(lambda part: np.where(count > 0, part[rows], 0.0), self.values)


class _Taken(Generic[T]):
    """What the questions took from one running value."""

    def __init__(self, run: Running[T], questions: int) -> None:
        self._run: Running[T] = run
        self.runs: tuple[Run, ...] = (run,)
        self.answers: npt.NDArray[T] = np.full(questions, run.nothing, dtype=run.values.dtype)

    def take(self, questions: Ints, rows: Ints) -> None:
        self.answers[questions] = self._run.merge(self.answers[questions], self._run.values[rows])


class Count(_Taken[np.int64]):
    """Rows that have a value."""

    def values(self) -> Ints:
        return self.answers


class Sum(_Taken[np.float64]):
    """Sum of the values; 0 when there is none."""

    def values(self) -> Floats:
        return self.answers


class Mean:
    """Sum over count."""

    def __init__(self, count: Running[np.int64], total: Running[np.float64], questions: int) -> None:
        self._count = Count(count, questions)
        self._sum = Sum(total, questions)
        self.runs: tuple[Run, ...] = (count, total)

    def take(self, questions: Ints, rows: Ints) -> None:
        self._count.take(questions, rows)
        self._sum.take(questions, rows)

    def values(self) -> Floats:
        count = self._count.values()
        return np.where(count > 0, self._sum.values() / np.maximum(count, 1), np.nan)


class Extreme(_Taken[np.float64]):
    """Minimum or maximum."""

    def values(self) -> Floats:
        return np.where(np.isinf(self.answers), np.nan, self.answers)


class Last(_Taken[np.int64]):
    """The last value."""

    def __init__(self, ranks: Ranks, questions: int) -> None:
        super().__init__(ranks.run, questions)
        self._ranks = ranks

    def values(self) -> Floats:
        # Rank -1 (no value) reads the NaN appended at the end.
        last: Floats = self._ranks.by_rank[self.answers]
        return last


class First(Last):
    """The first value: the last of the negated ranks."""

    def values(self) -> Floats:
        return -super().values()


class Variance:
    """Sample variance; null below two values."""

    def __init__(self, moments: Moments, questions: int) -> None:
        self._moments = moments
        self.runs: tuple[Run, ...] = (moments,)
        self._answers: Partial = (np.zeros(questions), np.zeros(questions), np.zeros(questions))

    def take(self, questions: Ints, rows: Ints) -> None:
        mine = each(lambda part: part[questions], self._answers)
        block = each(lambda part: part[rows], self._moments.values)
        for part, joined in zip(self._answers, merged(mine, block), strict=True):
            part[questions] = joined

    def values(self) -> Floats:
        n, _, squares = self._answers
        return np.where(n > 1, squares / np.maximum(n - 1, 1), np.nan)


class Deviation(Variance):
    """Its root: the sample standard deviation."""

    def values(self) -> Floats:
        return np.sqrt(super().values())


def each(do: Callable[[Floats], Floats], partial: Partial) -> Partial:
    n, mean, squares = partial
    return do(n), do(mean), do(squares)


def merged(a: Partial, b: Partial) -> Partial:
    (n_a, mean_a, squares_a), (n_b, mean_b, squares_b) = a, b
    n = n_a + n_b
    share = n_b / np.maximum(n, 1.0)
    delta = mean_b - mean_a
    return n, mean_a + delta * share, squares_a + squares_b + delta * delta * (n_a * share)
