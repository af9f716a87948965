"""Area under the ROC curve with its interval, from the scores of both classes.

The variance is that of DeLong, DeLong and Clarke-Pearson (Biometrics 44(3), 1988) as Sun and Xu compute it from midranks
(IEEE Signal Processing Letters 21(11), 2014). The interval is taken on the logit, so that it stays between 0 and 1. Scores of
different folds are of different models; of equal sides that makes the AUC rather smaller than 0.5.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]
Z = 1.959963984540054
"""Of a 95 % interval."""


def auc_interval(positives: Scores, negatives: Scores) -> tuple[float, float, float]:
    """AUC, and the ends of its 95 % interval. Two scores of either class at least."""
    m, n = positives.size, negatives.size
    ranks = midranks(np.concatenate([positives, negatives]))
    auc = (ranks[:m].sum() - m * (m + 1) / 2) / (m * n)
    of_positives = (ranks[:m] - midranks(positives)) / n
    of_negatives = 1 - (ranks[m:] - midranks(negatives)) / m
    variance = of_positives.var(ddof=1) / m + of_negatives.var(ddof=1) / n
    # Where nothing overlaps the variance is 0 and the logit has no value: half a pair in error is the least that can be said.
    inside = min(max(auc, 0.5 / (m * n)), 1 - 0.5 / (m * n))
    logit, error = math.log(inside / (1 - inside)), math.sqrt(variance) / (inside * (1 - inside))
    return float(auc), _share(logit - Z * error), _share(logit + Z * error)


def midranks(values: Scores) -> Scores:
    """Ranks from 1; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    found: Scores = (last - (counts - 1) / 2)[place]
    return found


def _share(logit: float) -> float:
    return 1 / (1 + math.exp(-max(-700.0, min(700.0, logit))))
