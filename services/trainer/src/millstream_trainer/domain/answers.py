"""What a model said to some rows, and what it cost: the losses of `contracts.tasks`, all rows at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream.contracts.tasks import SMALLEST, Task

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """One answer a row."""

    task: Task
    values: NDArray[Any]
    """Binary: probability of true, (n,). Multiclass: a probability for each class, (n, classes). Regression: (n,)."""
    classes: tuple[str, ...] = ()
    """Multiclass: what the columns stand for."""

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: NDArray[Any]) -> Answers:
        """Some rows, by mask or by index."""
        return replace(self, values=self.values[rows])

    def losses(self, labels: NDArray[Any]) -> Floats:
        """Loss of each row: log loss in nats, or the squared error. A class that is not among `classes` had no chance."""
        values = np.asarray(self.values, dtype=np.float64)
        if self.task is Task.REGRESSION:
            squared: Floats = (values - np.asarray(labels, dtype=np.float64)) ** 2
            return squared
        if self.task is Task.BINARY:
            chance = np.where(np.asarray(labels) == 1, values, 1 - values)
        else:
            codes = codes_of(labels, self.classes)
            chance = np.where(codes >= 0, values[np.arange(len(values)), codes], 0.0)
        found: Floats = -np.log(np.clip(chance, SMALLEST, 1 - SMALLEST))
        return found

    def unfit(self) -> int:
        """How many are no answer: not finite, or no probability."""
        values = np.asarray(self.values, dtype=np.float64)
        fit = np.isfinite(values)
        if self.task is not Task.REGRESSION:
            fit &= (values >= 0) & (values <= 1)
        return int(np.sum(~(fit if fit.ndim == 1 else fit.all(axis=1))))

    def likeliest(self) -> NDArray[Any]:
        """Multiclass: name of the class with the highest probability, of each row."""
        found: NDArray[Any] = np.asarray(self.classes, dtype=object)[np.argmax(self.values, axis=1)]
        return found


def codes_of(labels: NDArray[Any], classes: tuple[str, ...]) -> NDArray[np.int64]:
    """Place of each label among `classes`; -1 where it is not one of them."""
    places = {name: place for place, name in enumerate(classes)}
    return np.fromiter((places.get(label, -1) for label in labels), dtype=np.int64, count=len(labels))


def knowing_nothing(task: Task, learned: NDArray[Any], rows: int) -> Answers:
    """The best answer that needs no model: share of true, share of each class, or mean of the labels in training."""
    if task is Task.MULTICLASS:
        classes, counts = np.unique(learned.astype(str), return_counts=True)
        shares = np.tile(counts / counts.sum(), (rows, 1))
        return Answers(task=task, values=shares, classes=tuple(map(str, classes)))
    return Answers(task=task, values=np.full(rows, float(np.mean(learned, dtype=np.float64))))
