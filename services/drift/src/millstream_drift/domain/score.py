"""How good the answers of a window were, once their labels are known: losses row by row, and each task's other numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from millstream.contracts.tasks import PROBABILITY, SMALLEST, VALUE, Task, Truth, metric_of
from millstream_drift.domain.auc import midranks

Floats = npt.NDArray[np.float64]
Output = Mapping[str, float]

IMPOSSIBLE = float(np.log(1e-6))
"""Labels that the model's own answers give a smaller chance than one in a million did not happen: something is broken."""
CALIBRATION_BINS = 10
"""Bins of the calibration error: with 5,000 rows 500 each, a noise of about 0.02."""


def losses(task: Task, outputs: Sequence[Output], labels: Sequence[Truth]) -> Floats:
    """`row_loss` of each answer, as one array. Raises KeyError for an output of another task."""
    if task is Task.REGRESSION:
        return (_numbers(outputs, VALUE) - np.asarray(labels, dtype=np.float64)) ** 2
    return -np.log(np.clip(chances(task, outputs, labels), SMALLEST, 1 - SMALLEST))


def chances(task: Task, outputs: Sequence[Output], labels: Sequence[Truth]) -> Floats:
    """The chance that each answer gave to what turned out to be true, for the tasks with classes."""
    if task is Task.BINARY:
        probabilities = _numbers(outputs, PROBABILITY)
        return np.where(np.asarray(labels, dtype=bool), probabilities, 1 - probabilities)
    return np.array([output.get(str(label), 0.0) for output, label in zip(outputs, labels, strict=True)])


def blind_loss(task: Task, labels: Sequence[Truth]) -> float:
    """Mean loss of who knows the labels' shares (of numbers: their mean) and nothing else: how hard the window is by itself."""
    if task is Task.REGRESSION:
        return float(np.var(np.asarray(labels, dtype=np.float64)))
    shares = np.array([*Counter(labels).values()], dtype=np.float64) / len(labels)
    return float(-(shares * np.log(shares)).sum())


def metrics(task: Task, outputs: Sequence[Output], labels: Sequence[Truth], row_losses: Floats) -> dict[str, float]:
    """The task's usual numbers of n answers, n >= 1; `row_losses` are theirs."""
    loss = float(row_losses.mean())
    found = {metric_of(task): loss} | {
        name: float(values.mean()) for name, values in measures(task, outputs, labels).items()
    }
    if task is Task.REGRESSION:
        return found | {"rmse": float(np.sqrt(loss))}
    if task is Task.MULTICLASS:
        return found
    probabilities, truth = _numbers(outputs, PROBABILITY), np.asarray(labels, dtype=np.float64)
    found["calibration_error"] = calibration_error(probabilities, truth)
    # With one class only there is no pair to rank.
    return found if found["base_rate"] in (0.0, 1.0) else found | {"auc": auc(probabilities, truth)}


def measures(task: Task, outputs: Sequence[Output], labels: Sequence[Truth]) -> dict[str, Floats]:
    """The task's numbers that are means of rows, beside the loss: one value a row."""
    if task is Task.BINARY:
        probabilities, truth = _numbers(outputs, PROBABILITY), np.asarray(labels, dtype=np.float64)
        return {"brier": (probabilities - truth) ** 2, "base_rate": truth, "mean_prediction": probabilities}
    if task is Task.MULTICLASS:
        # As `answer.cell_of` has it: of two equal ones the first by name.
        told = (min(output, key=lambda name: (-output[name], name)) for output in outputs)
        return {"accuracy": np.array([float(a == str(label)) for a, label in zip(told, labels, strict=True)])}
    errors = _numbers(outputs, VALUE) - np.asarray(labels, dtype=np.float64)
    return {"mae": np.abs(errors), "bias": errors}


def one_class(task: Task, outputs: Sequence[Output], labels: Sequence[Truth]) -> str:
    """In words, where all labels are of one class although the model's own answers gave that next to no chance; else empty."""
    if task is Task.REGRESSION or len(set(labels)) > 1:
        return ""
    expected = np.clip(chances(task, outputs, labels), SMALLEST, 1.0)
    if float(np.log(expected).sum()) >= IMPOSSIBLE:
        return ""
    return f"every label is {labels[0]}, the model expected {float(expected.mean()):.0%} of them to be"


def auc(scores: Floats, labels: Floats) -> float:
    """Chance that a positive scores above a negative, ties half (Mann and Whitney 1947; Hanley and McNeil 1982)."""
    positives = float(np.sum(labels))
    negatives = labels.size - positives
    return float((np.sum(midranks(scores) * labels) - positives * (positives + 1) / 2) / (positives * negatives))


def calibration_error(probabilities: Floats, labels: Floats) -> float:
    """Mean distance of answer and truth over bins of equally many rows (Naeini, Cooper, Hauskrecht: AAAI 2015)."""
    order = np.argsort(probabilities, kind="stable")
    bins = np.array_split(order, min(CALIBRATION_BINS, order.size))
    return float(sum(abs(float((probabilities[one] - labels[one]).sum())) for one in bins) / order.size)


def _numbers(outputs: Sequence[Output], name: str) -> Floats:
    return np.array([output[name] for output in outputs], dtype=np.float64)
