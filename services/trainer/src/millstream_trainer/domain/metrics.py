"""How good answers are: what people ask about, beside the loss that decides."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream.contracts.tasks import Task, metric_of
from millstream_trainer.domain.answers import Answers


def auc(labels: NDArray[Any], scores: NDArray[Any]) -> float:
    """Area under the ROC curve by ranks, ties counting half (Mann and Whitney). NaN with one class only."""
    y = np.asarray(labels) == 1
    positives = int(y.sum())
    negatives = len(y) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    _, inverse, counts = np.unique(np.asarray(scores), return_inverse=True, return_counts=True)
    upto = np.cumsum(counts)
    ranks = (upto - (counts - 1) / 2.0)[inverse]
    return float((ranks[y].sum() - positives * (positives + 1) / 2.0) / (positives * negatives))


def brier(labels: NDArray[Any], probabilities: NDArray[Any]) -> float:
    """Mean squared difference of probability and outcome."""
    return float(np.mean((np.asarray(probabilities, dtype=np.float64) - labels) ** 2))


def calibration_error(labels: NDArray[Any], probabilities: NDArray[Any], bins: int = 10) -> float:
    """Mean absolute difference of predicted and observed share over bins of equal size (Naeini et al. 2015, ECE)."""
    order = np.argsort(probabilities, kind="stable")
    p, y = np.asarray(probabilities, dtype=np.float64)[order], np.asarray(labels, dtype=np.float64)[order]
    total = 0.0
    for part_p, part_y in zip(np.array_split(p, bins), np.array_split(y, bins), strict=True):
        if len(part_p):
            total += abs(float(part_p.mean()) - float(part_y.mean())) * len(part_p)
    return total / len(p) if len(p) else float("nan")


def miscalibration(labels: NDArray[Any], answers: Answers) -> float:
    """How far answers are from what came true, on average: 0 is honest.

    Binary: of the probability; multiclass: of the likeliest class's probability (Guo et al. 2017), both as shares.
    Regression: mean error, in standard deviations of the labels.
    """
    if answers.task is Task.BINARY:
        return calibration_error(labels, answers.values)
    if answers.task is Task.MULTICLASS:
        return calibration_error(answers.likeliest() == labels, np.max(answers.values, axis=1))
    spread = float(np.std(labels))
    return abs(float(np.mean(answers.values - labels))) / spread if spread > 0 else 0.0


def summary(labels: NDArray[Any], answers: Answers) -> dict[str, float]:
    """All that there is to say, for non-empty rows; the loss first."""
    found = {metric_of(answers.task): float(answers.losses(labels).mean())}
    if answers.task is Task.BINARY:
        return {
            **found,
            "auc": auc(labels, answers.values),
            "brier": brier(labels, answers.values),
            "calibration_error": miscalibration(labels, answers),
            "base_rate": float(np.mean(labels)),
        }
    if answers.task is Task.MULTICLASS:
        hits = answers.likeliest() == labels
        return {**found, "accuracy": float(np.mean(hits)), "calibration_error": miscalibration(labels, answers)}
    errors = np.asarray(answers.values, dtype=np.float64) - labels
    spread = float(np.var(labels))
    return {
        **found,
        "rmse": float(np.sqrt(np.mean(errors**2))),
        "mae": float(np.mean(np.abs(errors))),
        "r2": 1 - float(np.mean(errors**2)) / spread if spread > 0 else float("nan"),
        "mean_error": float(np.mean(errors)),
    }
