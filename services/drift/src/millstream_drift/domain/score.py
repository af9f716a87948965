"""How good the answers of a window were, once their labels are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

CLIP = 1e-7
"""A float32 probability of exactly 0 or 1 would cost infinity; this is a loss of 16, which one sees."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """Binary answers against what turned out to be true."""

    rows: int
    log_loss: float
    auc: float | None
    """None when only one class is there."""
    brier: float
    base_rate: float
    """Share of positives."""
    mean_prediction: float
    impossible: bool
    """Only one class, although by the model's own answers that had a chance below one in a million."""

    def metrics(self) -> dict[str, float]:
        found = {
            "log_loss": self.log_loss,
            "brier": self.brier,
            "base_rate": self.base_rate,
            "mean_prediction": self.mean_prediction,
        }
        return found if self.auc is None else found | {"auc": self.auc}


def score(probabilities: Floats, labels: Floats) -> Score:
    """Score n answers, n >= 1; `labels` are 0.0 or 1.0."""
    p = np.clip(probabilities, CLIP, 1 - CLIP)
    chances = labels * np.log(p) + (1 - labels) * np.log1p(-p)
    base_rate = float(np.mean(labels))
    one_class = base_rate in (0.0, 1.0)
    return Score(
        rows=labels.size,
        log_loss=float(-np.mean(chances)),
        auc=None if one_class else auc(probabilities, labels),
        brier=float(np.mean((probabilities - labels) ** 2)),
        base_rate=base_rate,
        mean_prediction=float(np.mean(probabilities)),
        impossible=one_class and float(np.sum(chances)) < np.log(1e-6),
    )


def auc(scores: Floats, labels: Floats) -> float:
    """Chance that a positive scores above a negative, ties half (Mann and Whitney 1947; Hanley and McNeil 1982)."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    positives = float(np.sum(labels))
    negatives = labels.size - positives
    return float((np.sum(ranks[inverse] * labels) - positives * (positives + 1) / 2) / (positives * negatives))
