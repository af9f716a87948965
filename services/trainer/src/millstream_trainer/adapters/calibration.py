"""Fits corrections of probabilities on the validation slice, by scikit-learn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from millstream_trainer.domain.correction import Correction, Floats, Isotonic, Sigmoid, logit

FEWEST = 200
"""Validation rows: below that a correction is noise of its own."""
POINTS = 50
"""Groups of equal size whose shares the isotonic line goes through: a step for each row would learn the noise by heart."""
NARROWEST = 1e-3
"""Width of a ramp. Steeper ones would turn the rounding of float32 into another answer."""


def calibrated(kind: str, chances: Floats, codes: NDArray[np.int64]) -> Correction:
    """`kind` is `sigmoid` or `isotonic`; `chances` (n, classes) are what the model says to rows whose classes are `codes`."""
    classes = chances.shape[1]
    if classes == 2:
        # The second mirrors the first, so that both go on summing to 1.
        columns = [_mirrored(kind, chances[:, 1], codes == 1), _fitted(kind, chances[:, 1], codes == 1)]
    else:
        columns = [_fitted(kind, chances[:, i], codes == i) for i in range(classes)]
    if kind == "sigmoid":
        return Sigmoid(slopes=np.array([x[0] for x, _ in columns]), offsets=np.array([y[0] for _, y in columns]))
    ramps = max(len(x) for x, _ in columns) - 1
    first = np.array([y[0] for _, y in columns])
    starts, widths, rises = np.zeros((classes, ramps)), np.ones((classes, ramps)), np.zeros((classes, ramps))
    for i, (x, y) in enumerate(columns):
        starts[i, : len(x) - 1], widths[i, : len(x) - 1], rises[i, : len(x) - 1] = x[:-1], np.diff(x), np.diff(y)
    return Isotonic(first=first, starts=starts, widths=widths, rises=rises)


def _fitted(kind: str, chances: Floats, true: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Sigmoid: ([slope], [offset]). Isotonic: points (x, y) of a rising line."""
    if kind == "sigmoid":
        if true.all() or not true.any():
            return np.ones(1), np.zeros(1)  # of one class only nothing is to be learned
        from sklearn.linear_model import LogisticRegression

        line = LogisticRegression(C=1e6).fit(logit(chances)[:, None], true)
        return line.coef_[0], line.intercept_
    from sklearn.isotonic import IsotonicRegression

    order = np.argsort(chances, kind="stable")
    groups = [group for group in np.array_split(order, POINTS) if len(group)]
    x = np.array([chances[group].mean() for group in groups])
    y = np.array([true[group].mean() for group in groups])
    y = (
        IsotonicRegression()
        .fit(np.arange(len(y)), y, sample_weight=[len(g) for g in groups])
        .predict(np.arange(len(y)))
    )
    kept = [0]
    for i in range(1, len(x)):
        if x[i] - x[kept[-1]] >= NARROWEST:
            kept.append(i)
    if len(kept) == 1:
        return np.array([x[0], x[0] + 1]), np.array([y.mean(), y.mean()])
    return x[kept], y[kept]


def _mirrored(kind: str, chances: Floats, true: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    x, y = _fitted(kind, chances, true)
    return (x, -y) if kind == "sigmoid" else (1 - x[::-1], 1 - y[::-1])
