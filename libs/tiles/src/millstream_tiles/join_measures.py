"""The aggregates of the point-in-time join: running values inside each block, merged into each question's answer.

Every class is a `Measure` of join_forest. A column's null is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from millstream_tiles.join_forest import Bools, Floats, Ints

Partial = tuple[Floats, Floats, Floats]
"""Count, mean, and sum of squared deviations from the mean."""


T = TypeVar("T", np.int64, np.float64)


class _Running(Generic[T]):
    """A measure whose running value along a block is a NumPy accumulation (sum, minimum, maximum)."""

    def __init__(self, leaves: npt.NDArray[T], merge: np.ufunc, nothing: float, questions: int) -> None:
        self._leaves: npt.NDArray[T] = leaves
        self._merge = merge
        self._nothing = nothing
        self._answers: npt.NDArray[T] = np.full(questions, nothing, dtype=leaves.dtype)

    def start(self, padded: int) -> None:
        padding = np.full(padded - len(self._leaves), self._nothing, dtype=self._leaves.dtype)
        self._leaves = np.concatenate([self._leaves, padding])
        self._running: npt.NDArray[T] = self._leaves.copy()

    def rise(self, width: int, mixed: Ints, order: Ints) -> None:
        # A running value of the right half continues the left half's last one: pairwise, so a sum keeps its digits.
        halves = self._running.reshape(-1, 2, width // 2)
        halves[:, 1] = self._merge(halves[:, 0, -1:], halves[:, 1])
        if len(mixed):
            leaves = self._leaves.reshape(-1, width)
            leaves[mixed] = np.take_along_axis(leaves[mixed], order, axis=1)
            self._running.reshape(-1, width)[mixed] = self._merge.accumulate(leaves[mixed], axis=1)

    def take(self, questions: Ints, rows: Ints) -> None:
        self._answers[questions] = self._merge(self._answers[questions], self._running[rows])


class Count(_Running[np.int64]):
    """Rows where `present` is true."""

    def __init__(self, present: Bools, questions: int) -> None:
        super().__init__(present.astype(np.int64), np.add, 0, questions)

    def values(self) -> Ints:
        return self._answers


class Sum(_Running[np.float64]):
    """Sum of the values; 0 when there is none."""

    def __init__(self, column: Floats, questions: int) -> None:
        super().__init__(np.where(np.isnan(column), 0.0, column), np.add, 0.0, questions)

    def values(self) -> Floats:
        return self._answers


class Mean:
    """Sum over count."""

    def __init__(self, column: Floats, questions: int) -> None:
        self._count = Count(~np.isnan(column), questions)
        self._sum = Sum(column, questions)

    def start(self, padded: int) -> None:
        self._count.start(padded)
        self._sum.start(padded)

    def rise(self, width: int, mixed: Ints, order: Ints) -> None:
        self._count.rise(width, mixed, order)
        self._sum.rise(width, mixed, order)

    def take(self, questions: Ints, rows: Ints) -> None:
        self._count.take(questions, rows)
        self._sum.take(questions, rows)

    def values(self) -> Floats:
        count = self._count.values()
        return np.where(count > 0, self._sum.values() / np.maximum(count, 1), np.nan)


class Extreme(_Running[np.float64]):
    """Minimum or maximum; `nothing` is the infinity that no finite value loses against."""

    def __init__(self, column: Floats, questions: int, merge: np.ufunc, nothing: float) -> None:
        super().__init__(np.where(np.isnan(column), nothing, column), merge, nothing, questions)

    def values(self) -> Floats:
        return np.where(np.isinf(self._answers), np.nan, self._answers)


class Last(_Running[np.int64]):
    """The value with the largest event time; among equal event times the larger value.

    `places` orders the events by (key, event time). A row's rank by (place, value) says which of two rows is the later,
    so the last value is a running maximum of ranks.
    """

    def __init__(self, column: Floats, places: Ints, questions: int) -> None:
        order = np.lexsort((column, places))
        ranks = np.empty(len(column), dtype=np.int64)
        ranks[order] = np.arange(len(column))
        self._by_rank = np.append(column[order], np.nan)
        super().__init__(np.where(np.isnan(column), -1, ranks), np.maximum, -1, questions)

    def values(self) -> Floats:
        # Rank -1 (no value) reads the NaN appended at the end.
        last: Floats = self._by_rank[self._answers]
        return last


class First(Last):
    """The value with the smallest event time; among equal event times the smaller value: the last one seen backwards."""

    def __init__(self, column: Floats, places: Ints, questions: int) -> None:
        super().__init__(-column, -places, questions)

    def values(self) -> Floats:
        return -super().values()


class Variance:
    """Sample variance, from partials merged pairwise; null below two values.

    Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979), eq. 2.1:
    there is no sum of raw squares, so a large mean costs no digits.
    """

    def __init__(self, column: Floats, questions: int) -> None:
        present = ~np.isnan(column)
        self._running: Partial = (present.astype(np.float64), np.where(present, column, 0.0), np.zeros(len(column)))
        self._answers: Partial = (np.zeros(questions), np.zeros(questions), np.zeros(questions))

    def start(self, padded: int) -> None:
        self._running = _each(lambda part: np.concatenate([part, np.zeros(padded - len(part))]), self._running)

    def rise(self, width: int, mixed: Ints, order: Ints) -> None:
        """The part of a joined block up to a row is a prefix of its left half and a prefix of its right half."""
        half = width // 2
        from_left: Ints = np.cumsum(order < half, axis=1, dtype=np.int64)
        from_right = np.arange(1, width + 1) - from_left
        base = mixed[:, None] * width
        moved = _merge(self._first(base, from_left), self._first(base + half, from_right))

        halves = _each(lambda part: part.reshape(-1, 2, half), self._running)
        stayed = _merge(_each(lambda part: part[:, 0, -1:], halves), _each(lambda part: part[:, 1], halves))
        for part, right, blocks in zip(halves, stayed, moved, strict=True):
            part[:, 1] = right
            part.reshape(-1, width)[mixed] = blocks

    def _first(self, base: Ints, count: Ints) -> Partial:
        """The partial of the first `count` rows from row `base`."""
        rows = base + np.maximum(count - 1, 0)
        return _each(lambda part: np.where(count > 0, part[rows], 0.0), self._running)

    def take(self, questions: Ints, rows: Ints) -> None:
        mine = _each(lambda part: part[questions], self._answers)
        block = _each(lambda part: part[rows], self._running)
        for part, joined in zip(self._answers, _merge(mine, block), strict=True):
            part[questions] = joined

    def values(self) -> Floats:
        n, _, squares = self._answers
        return np.where(n > 1, squares / np.maximum(n - 1, 1), np.nan)


class Deviation(Variance):
    """Its root: the sample standard deviation."""

    def values(self) -> Floats:
        return np.sqrt(super().values())


def _each(do: Callable[[Floats], Floats], partial: Partial) -> Partial:
    n, mean, squares = partial
    return do(n), do(mean), do(squares)


def _merge(a: Partial, b: Partial) -> Partial:
    (n_a, mean_a, squares_a), (n_b, mean_b, squares_b) = a, b
    n = n_a + n_b
    share = n_b / np.maximum(n, 1.0)
    delta = mean_b - mean_a
    return n, mean_a + delta * share, squares_a + squares_b + delta * delta * (n_a * share)
