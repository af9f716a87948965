"""How good probabilities are: log loss, AUC, Brier score, calibration. Labels are 1 or 0."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SMALLEST = 1e-7
"""Probabilities are kept this far from 0 and 1: float32 knows no closer, and one sure mistake must not cost infinity."""


def losses(labels: NDArray[Any], probabilities: NDArray[Any]) -> Floats:
    """Log loss of each row, in nats."""
    p = np.clip(np.asarray(probabilities, dtype=np.float64), SMALLEST, 1 - SMALLEST)
    y = np.asarray(labels, dtype=np.float64)
    found: Floats = -(y * np.log(p) + (1 - y) * np.log1p(-p))
    return found


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


def summary(labels: NDArray[Any], probabilities: NDArray[Any]) -> dict[str, float]:
    """All of them, for non-empty rows with both classes."""
    return {
        "log_loss": float(losses(labels, probabilities).mean()),
        "auc": auc(labels, probabilities),
        "brier": brier(labels, probabilities),
        "calibration_error": calibration_error(labels, probabilities),
        "base_rate": float(np.mean(labels)),
    }
