"""How good the answers were, against what came true: the task's own loss, and one number more that people know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream.contracts.tasks import PROBABILITY, SMALLEST, VALUE, Task

Floats = NDArray[np.float64]
Outputs = Mapping[str, Floats]
"""The parts of an `output` (`contracts.tasks`), one value a row; a class that a model did not know has NaN."""
Truths = NDArray[Any]
"""Float64 (binary: 0 or 1), or the names of classes as objects."""


def mean_loss(task: Task, outputs: Outputs, truth: Truths) -> float:
    """Mean of `contracts.tasks.row_loss`; lower is better. NaN without rows."""
    if not len(truth):
        return float("nan")
    if task is Task.REGRESSION:
        return float(np.mean((outputs[VALUE] - truth) ** 2))
    if task is Task.BINARY:
        chance = np.where(truth > 0.5, outputs[PROBABILITY], 1 - outputs[PROBABILITY])
    else:
        chance = np.zeros(len(truth))
        for name, of_class in outputs.items():
            chance = np.where(truth == name, np.nan_to_num(of_class), chance)
    return float(-np.mean(np.log(np.clip(chance, SMALLEST, 1 - SMALLEST))))


def accuracy(outputs: Outputs, truth: Truths) -> float:
    """Share of rows whose likeliest class came true."""
    likeliest = np.argmax(np.nan_to_num(np.column_stack(list(outputs.values()))), axis=1)
    return float(np.mean(np.asarray(list(outputs), dtype=object)[likeliest] == truth))


def mean_absolute_error(outputs: Outputs, truth: Truths) -> float:
    """In the label's own unit."""
    return float(np.mean(np.abs(outputs[VALUE] - truth)))


def auc(truth: Floats, probability: Floats) -> float:
    """Area under the ROC curve by ranks (Mann-Whitney U), ties counted half. NaN where one class is missing."""
    positive = truth > 0.5
    n, m = int(positive.sum()), int((~positive).sum())
    if n == 0 or m == 0:
        return float("nan")
    _, inverse, counts = np.unique(probability, return_inverse=True, return_counts=True)
    upper = np.cumsum(counts)
    ranks = (upper - (counts - 1) / 2.0)[inverse]
    return float((ranks[positive].sum() - n * (n + 1) / 2.0) / (n * m))


SCORES: Mapping[Task, str] = {
    Task.BINARY: "auc",
    Task.MULTICLASS: "accuracy",
    Task.REGRESSION: "mean_absolute_error",
}
"""What `score` is called."""


def score(task: Task, outputs: Outputs, truth: Truths) -> float:
    """The number beside the loss. NaN where it cannot be computed, as without rows."""
    if not len(truth):
        return float("nan")
    if task is Task.BINARY:
        return auc(truth, outputs[PROBABILITY])
    return accuracy(outputs, truth) if task is Task.MULTICLASS else mean_absolute_error(outputs, truth)
