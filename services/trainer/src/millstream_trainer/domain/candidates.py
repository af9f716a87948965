"""What competes before a model is fitted: histories and settings, and the slices of time that they are compared on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from millstream_trainer.domain.table import Table


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


def folds(table: Table, cut: int, length: int, count: int) -> list[Fold]:
    """Rolling origins: slices of `length` that end at `cut` and before it, the newest first. `table` ends at `cut`."""
    found = []
    for fold in range(count):
        before, _ = table.split(cut - fold * length)
        learn, check = before.split(cut - (fold + 1) * length)
        found.append(Fold(learn=learn, check=check))
    return found
