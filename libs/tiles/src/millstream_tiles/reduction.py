"""Reduces the events of a batch to the components of their tiles, group by group, column-wise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from millstream_tiles.columns import Columns
from millstream_tiles.layout import SKETCHES, Floats, Ints, Op, Part
from millstream_tiles.sketches import packed


class Reduction:
    """One component after the other over the same groups."""

    def __init__(self, columns: Columns, chosen: Ints, starts: Ints) -> None:
        self._columns = columns
        self._chosen = chosen
        self._starts = starts
        self._counts = np.diff(np.append(starts, len(chosen)))
        self._cache: dict[str, tuple[Floats, NDArray[np.bool_], Floats, Floats]] = {}

    def part(self, part: Part) -> Floats:
        """The component(s) of `part`, shape (groups, width)."""
        kind, column = part.kind, part.column
        if kind in SKETCHES:
            slots, said = self._columns.entries(kind, column)
            if part.op is Op.BYTES:
                groups = np.repeat(np.arange(len(self._starts)), self._counts)
                return packed(groups, slots[self._chosen], said[self._chosen], len(self._starts))
            return self._add(said[self._chosen])[:, None]
        if kind == "count":
            if not column:
                return self._counts.astype(np.float64)[:, None]
            return self._add(self._columns.present(column)[self._chosen])[:, None]
        values, valid, n, total = self._column(column)
        if kind == "n":
            return n[:, None]
        if kind == "sum":
            return total[:, None]
        if kind == "min":
            return self._reduced(np.minimum, np.where(valid, values, np.inf))[:, None]
        if kind == "max":
            return self._reduced(np.maximum, np.where(valid, values, -np.inf))[:, None]
        if kind == "moments":
            mean = total / np.maximum(n, 1.0)
            away = np.where(valid, values - np.repeat(mean, self._counts), 0.0)
            return np.stack([n, mean, self._add(away * away)], axis=1)
        if kind == "latest":
            return self._latest(values, valid, part.k)
        return self._at_the_end(values, valid, *((np.minimum, np.inf) if kind == "first" else (np.maximum, -np.inf)))

    def _at_the_end(self, values: Floats, valid: NDArray[np.bool_], furthest: np.ufunc, nothing: float) -> Floats:
        """Time and value of the first (`furthest` is the minimum) or last value of each group."""
        times = np.where(valid, self._columns.batch.event_time[self._chosen].astype(np.float64), nothing)
        end = self._reduced(furthest, times)
        at_end = valid & (times == np.repeat(end, self._counts))
        value = self._reduced(furthest, np.where(at_end, values, nothing))
        return np.stack([end, value], axis=1)

    def _latest(self, values: Floats, valid: NDArray[np.bool_], k: int) -> Floats:
        """The k latest (time, value) of each group, the latest first."""
        groups = np.repeat(np.arange(len(self._starts)), self._counts)[valid]
        times = self._columns.batch.event_time[self._chosen][valid].astype(np.float64)
        return latest_of(groups, times, values[valid], len(self._starts), k)

    def _column(self, name: str) -> tuple[Floats, NDArray[np.bool_], Floats, Floats]:
        """(values with 0 for null, not null, how many a group, their sum a group)."""
        if name not in self._cache:
            values = self._columns.numbers(name)[self._chosen]
            valid = ~np.isnan(values)
            values = np.where(valid, values, 0.0)
            self._cache[name] = values, valid, self._add(valid.astype(np.float64)), self._add(values)
        return self._cache[name]

    def _add(self, values: Floats) -> Floats:
        return self._reduced(np.add, values)

    def _reduced(self, ufunc: np.ufunc, values: Floats) -> Floats:
        """One value a group."""
        found: Floats = ufunc.reduceat(values, self._starts)
        return found


def latest_of(groups: Ints, times: Floats, values: Floats, n: int, k: int) -> Floats:
    """For each of `n` groups its k latest (time, value) pairs, the latest first, -inf where there are fewer: (n, 2 k)."""
    order = np.lexsort((-values, -times, groups))
    groups = groups[order]
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    place = np.arange(len(groups)) - np.repeat(starts, np.diff(np.append(starts, len(groups))))
    few = place < k
    rows = np.full((n, 2 * k), -np.inf)
    rows[groups[few], 2 * place[few]] = times[order][few]
    rows[groups[few], 2 * place[few] + 1] = values[order][few]
    return rows
