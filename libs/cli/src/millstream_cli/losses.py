"""The loss that a window of labels names, whatever its task is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from millstream.contracts.events import WindowCorrected, WindowJudged

NAMES = ("log_loss", "squared_error", "loss")
"""Metrics of a window that are its mean loss, as `contracts.tasks` has it: the first that is there."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A mean loss over some labels."""

    metric: str
    value: float
    rows: int
    low: float | None = None
    high: float | None = None


def loss_of(window: WindowJudged, correction: WindowCorrected | None = None) -> Loss | None:
    """What a window says of the loss, with late labels as its last `correction` has them; None for one without labels."""
    found = _loss(window.metrics, window.rows)
    if found is None or correction is None:
        return found
    return _loss(correction.after, correction.rows) or found


def _loss(metrics: Mapping[str, float], rows: int) -> Loss | None:
    for name in NAMES:
        if name in metrics:
            return Loss(metric=name, value=metrics[name], rows=rows, low=metrics.get("low"), high=metrics.get("high"))
    return None


def mean_loss(found: Sequence[Loss]) -> Loss | None:
    """Over all their rows; None where there are none."""
    rows = sum(one.rows for one in found)
    if not rows:
        return None
    return Loss(metric=found[0].metric, value=sum(one.value * one.rows for one in found) / rows, rows=rows)
