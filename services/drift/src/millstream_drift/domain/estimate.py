"""Performance before the labels: what the answers themselves promise, as calibrated on the labels that came last.

Confidence-based performance estimation, as NannyML documents its CBPE (Kivimäki, Białek, Kuberski, Nurminen: Performance
Estimation in Binary Classification Using Calibrated Confidence, arXiv 2505.05295, 2025). A calibrated answer q for an answer p
says how often it will turn out true, so the expected loss of a row is -(q ln p + (1 - q) ln(1 - p)), and -sum_c q_c ln p_c with
classes. It sees harder questions; that a model is worse at the same ones it sees as far as the last labels showed it; and that
questions mean something else than before (concept drift) not at all. Numbers have no such confidence: see `error_groups`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from millstream.contracts.tasks import PROBABILITY, SMALLEST, Task, Truth
from millstream_drift.domain.score import Floats

ENOUGH = 500
"""Matured labels of one window that calibrate: ten bins of 50. With fewer nothing is estimated, since an uncalibrated answer
only repeats what the model thinks of itself."""
BIN_ROWS = 50
"""Rows a bin: its share has an error of 0.07, which pooling halves."""
MOST_BINS = 20
MOST_CLASSES = 100
"""Classes with a curve of their own: 16 KB a version. A model with more is not estimated."""


class Curve(msgspec.Struct, array_like=True, frozen=True):
    """An answer and how often it turned out true, both growing; straight between two points, flat beyond the last."""

    answered: list[float]
    true: list[float]

    def __call__(self, probabilities: Floats) -> Floats:
        return np.interp(probabilities, self.answered, self.true)


class Calibration(msgspec.Struct, array_like=True, frozen=True):
    """How one version's answers relate to the truth, by the last window of matured labels."""

    rows: int
    curves: dict[str, Curve]
    """By entry of the output."""


def calibrate(task: Task, outputs: Sequence[Mapping[str, float]], labels: Sequence[Truth]) -> Calibration | None:
    """Isotonic regression of the truth on the answer, class by class; None where there are too few labels."""
    if task is Task.REGRESSION or len(labels) < ENOUGH:
        return None
    if task is Task.BINARY:
        answers = np.array([output[PROBABILITY] for output in outputs])
        return Calibration(len(labels), {PROBABILITY: isotonic(answers, np.asarray(labels, dtype=np.float64))})
    classes = sorted({name for output in outputs for name in output})
    if len(classes) > MOST_CLASSES:
        return None
    truth = [str(label) for label in labels]
    curves = {}
    for name in classes:
        answers = np.array([output.get(name, 0.0) for output in outputs])
        curves[name] = isotonic(answers, np.array([float(one == name) for one in truth]))
    return Calibration(len(labels), curves)


def expected_losses(task: Task, calibration: Calibration, outputs: Sequence[Mapping[str, float]]) -> Floats:
    """Expected loss of each answer, for the tasks with classes."""
    if task is Task.BINARY:
        p = np.array([output[PROBABILITY] for output in outputs])
        q = calibration.curves[PROBABILITY](p)
        return -(q * _log(p) + (1 - q) * _log(1 - p))
    p = np.array([[output.get(name, 0.0) for name in calibration.curves] for output in outputs])
    q = np.column_stack([curve(p[:, column]) for column, curve in enumerate(calibration.curves.values())])
    total = q.sum(axis=1, keepdims=True)
    q = np.divide(q, total, out=p.copy(), where=total > 0)  # curves of single classes need not add up
    losses: Floats = -(q * _log(p)).sum(axis=1)
    return losses


def isotonic(answers: Floats, truth: Floats) -> Curve:
    """The truth as a growing function of the answer, over bins of equally many rows.

    Pool adjacent violators (Ayer, Brunk, Ewing, Reid, Silverman: Annals of Mathematical Statistics 26(4), 1955).
    """
    order = np.argsort(answers, kind="stable")
    pools: list[tuple[int, float, float]] = []
    for rows in np.array_split(order, max(1, min(MOST_BINS, order.size // BIN_ROWS))):
        pools.append((rows.size, float(answers[rows].mean()), float(truth[rows].mean())))
        while len(pools) > 1 and (pools[-1][2] < pools[-2][2] or pools[-1][1] <= pools[-2][1]):
            (m, x, y), (n, u, v) = pools.pop(), pools.pop()
            pools.append((m + n, (m * x + n * u) / (m + n), (m * y + n * v) / (m + n)))
    return Curve([x for _, x, _ in pools], [y for _, _, y in pools])


def _log(probabilities: Floats) -> Floats:
    return np.log(np.clip(probabilities, SMALLEST, 1 - SMALLEST))
