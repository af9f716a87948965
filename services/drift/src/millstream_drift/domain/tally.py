"""Sums of a window, which late labels can be added to: of its losses, of each slice's, of the other numbers of its task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from millstream.contracts.tasks import PROBABILITY, Task, Truth
from millstream_drift.domain.events import Cell
from millstream_drift.domain.ranks import Ranks
from millstream_drift.domain.score import Floats, Output, measures


class Tally(msgspec.Struct, array_like=True):
    """Losses that need not be kept one by one to know their mean and its interval."""

    rows: int = 0
    total: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, losses: Floats) -> Tally:
        return cls(losses.size, float(losses.sum()), float((losses**2).sum()))

    def with_(self, other: Tally) -> Tally:
        return Tally(self.rows + other.rows, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> float:
        return self.total / self.rows

    @property
    def deviation(self) -> float:
        """Of the sample; 0 of a single row."""
        if self.rows < 2:
            return 0.0
        return math.sqrt(max(0.0, self.squares - self.total * self.total / self.rows) / (self.rows - 1))


class SliceTally(msgspec.Struct, array_like=True):
    """One that the verdict told."""

    column: str
    value: str
    losses: Tally


class Summary(msgspec.Struct, array_like=True):
    """What is kept of a judged window: a few kilobytes, whatever its rows."""

    losses: Tally
    sums: dict[str, float] = {}
    """Of `score.measures`: exact, since they are means of rows."""
    slices: list[SliceTally] = []
    ranks: Ranks | None = None
    """Task binary. An AUC is of pairs, and all rows would have to be kept for an exact one."""

    @classmethod
    def of(
        cls, task: Task, outputs: Sequence[Output], labels: Sequence[Truth], losses: Floats, told: Sequence[SliceTally]
    ) -> Summary:
        sums = {name: float(values.sum()) for name, values in measures(task, outputs, labels).items()}
        ranks = Ranks.of(*_scores(outputs, labels)) if task is Task.BINARY else None
        return cls(Tally.of(losses), sums, list(told), ranks)

    def with_(
        self,
        task: Task,
        outputs: Sequence[Output],
        labels: Sequence[Truth],
        losses: Floats,
        cells: Mapping[str, Sequence[Cell]],
    ) -> Summary:
        """With these rows too, one at least; `cells` by the columns of slices."""
        late = measures(task, outputs, labels)
        ranks = self.ranks.with_(*_scores(outputs, labels)) if self.ranks is not None else None
        return Summary(
            self.losses.with_(Tally.of(losses)),
            {name: total + float(late[name].sum()) for name, total in self.sums.items()},
            [
                SliceTally(one.column, one.value, one.losses.with_(Tally.of(losses[_of(one, cells)])))
                for one in self.slices
            ],
            ranks,
        )

    @property
    def metrics(self) -> dict[str, float]:
        """By the names that a verdict has for them, without the loss itself."""
        found = {name: total / self.losses.rows for name, total in self.sums.items()}
        if "mae" in found:
            found["rmse"] = math.sqrt(self.losses.mean)
        if self.ranks is not None and self.ranks.auc is not None:
            found["auc"] = self.ranks.auc
            if self.ranks.doubt:
                found["auc_error"] = self.ranks.error
        return found


def _of(one: SliceTally, cells: Mapping[str, Sequence[Cell]]) -> list[int]:
    return [
        row for row, value in enumerate(cells.get(one.column, ())) if ("" if value is None else str(value)) == one.value
    ]


def _scores(outputs: Sequence[Output], labels: Sequence[Truth]) -> tuple[list[float], list[bool]]:
    return [one[PROBABILITY] for one in outputs], [bool(one) for one in labels]
