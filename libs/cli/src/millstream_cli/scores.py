"""How good the answers were: log loss and AUC of probabilities against what came true."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SMALLEST = 1e-15
"""Probabilities are clipped here before the logarithm, as scikit-learn does."""


def log_loss(truth: Floats, probability: Floats) -> float:
    """Mean negative log likelihood of binary outcomes, natural logarithm; lower is better. NaN without rows."""
    if not len(truth):
        return float("nan")
    p = np.clip(probability, SMALLEST, 1 - SMALLEST)
    return float(-np.mean(np.where(truth > 0.5, np.log(p), np.log1p(-p))))


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
