"""What competes before a model is fitted: histories and settings, and the slices of time that they are compared on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millstream_trainer.domain.table import Table

STANDARD_ERRORS = 2.0
"""Of the paired difference, by which another history has to be better: chance gives that once in forty runs. Rows that are
forgotten by luck are missed until the next run; where the world has changed the difference is many times that."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One history with one of the settings."""

    name: str
    since: int | None
    """Rows asked from then on; None: all."""
    setting: int
    """Its place among the settings."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fold:
    """Rows before a cut, and the slice after it on which candidates are compared."""

    learn: Table
    check: Table


def candidates(histories: Sequence[tuple[str, int | None]], settings: int, first: int) -> list[Candidate]:
    """Every history with every setting. `histories`: name and start; one that starts before the `first` row is the whole."""
    starts: dict[int | None, str] = {}
    for name, since in histories:
        starts.setdefault(None if since is None or since <= first else since, name)
    return [
        Candidate(name=name if settings == 1 else f"{name}/{place + 1}", since=since, setting=place)
        for since, name in starts.items()
        for place in range(settings)
    ]


def has_earned(losses: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    """Whether a history is worth more than one that the file names before it, beyond luck.

    `losses` and `others` are of the same rows, so their common difficulty cancels.
    """
    difference = losses - others
    error = difference.std() / np.sqrt(len(difference))
    return bool(difference.mean() < -STANDARD_ERRORS * error)


def folds(table: Table, cut: int, length: int, count: int, spells: Iterable[tuple[int, int]] = ()) -> list[Fold]:
    """Rolling origins: slices of `length` that end at `cut` and before it, the newest first. `table` ends at `cut`.

    Time in `spells` (first and last microsecond), of which `table` has no rows, does not count: after a broken week as long as
    a slice there would be nothing to compare on.
    """
    found, end, spells = [], cut, list(spells)
    for _ in range(count):
        before, _ = table.split(end)
        end = _back(end, length, spells)
        learn, check = before.split(end)
        found.append(Fold(learn=learn, check=check))
    return found


def _back(end: int, length: int, spells: Iterable[tuple[int, int]]) -> int:
    """The moment before `end` from which on `length` of time lies in none of `spells`."""
    for first, last in sorted(spells, key=lambda spell: spell[1], reverse=True):
        if first >= end:
            continue
        whole = max(0, end - last - 1)
        if whole >= length:
            break
        length, end = length - whole, first
    return end - length
