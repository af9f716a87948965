"""The three things a model may be asked for: what its answers look like, and how far one is from the truth.

| task | `output` of a prediction | label | loss of one row |
| --- | --- | --- | --- |
| `binary` | `{"probability": p}` of true | true or false | log loss, nats |
| `multiclass` | `{class: p, ...}`, summing to 1 | the name of a class | log loss, nats |
| `regression` | `{"value": y}` | a number | squared error |

Log loss and squared error are proper scores (of a probability, of a mean): nobody gains by answering other than he believes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum

PROBABILITY = "probability"
VALUE = "value"

SMALLEST = 1e-7
"""Probabilities are kept this far from 0 and 1: float32 knows no closer, and one sure mistake must not cost infinity."""

Truth = bool | int | float | str
"""A label as its expression gave it."""


class Task(StrEnum):
    BINARY = "binary"
    MULTICLASS = "multiclass"
    REGRESSION = "regression"


def metric_of(task: Task) -> str:
    """Name of the loss."""
    return "squared_error" if task is Task.REGRESSION else "log_loss"


def class_name(truth: Truth) -> str:
    """The class that a label names: 3 and 3.0 are one JSON number and one class, true is `true`."""
    if isinstance(truth, bool):
        return "true" if truth else "false"
    return str(int(truth)) if isinstance(truth, float) and truth.is_integer() else str(truth)


def row_loss(task: Task, output: Mapping[str, float], truth: Truth) -> float:
    """Loss of one answer. A class that the model does not know costs what a probability of 0 costs.

    Raises KeyError for an output of another task.
    """
    if task is Task.REGRESSION:
        return (output[VALUE] - float(truth)) ** 2
    if task is Task.BINARY:
        probability = output[PROBABILITY]
        chance = probability if truth else 1 - probability
    else:
        chance = output.get(class_name(truth), 0.0)
    return -math.log(min(max(chance, SMALLEST), 1 - SMALLEST))


def is_answer(task: Task, output: Mapping[str, float]) -> bool:
    """Whether `output` is an honest answer: finite, and probabilities within 0 and 1."""
    if task is Task.REGRESSION:
        return math.isfinite(output.get(VALUE, math.nan))
    if task is Task.BINARY:
        return 0.0 <= output.get(PROBABILITY, math.nan) <= 1.0  # NaN fails both comparisons
    return bool(output) and all(0.0 <= chance <= 1.0 for chance in output.values())
