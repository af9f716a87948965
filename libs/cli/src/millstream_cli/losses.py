"""The loss that a window of labels names, whatever its task is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from millstream.contracts.events import WindowJudged

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


def loss_of(window: WindowJudged) -> Loss | None:
    """What a window says of the loss; None for one without labels."""
    for name in NAMES:
        if name in window.metrics:
            low, high = window.metrics.get("low"), window.metrics.get("high")
            return Loss(metric=name, value=window.metrics[name], rows=window.rows, low=low, high=high)
    return None


def mean_loss(windows: Sequence[WindowJudged]) -> Loss | None:
    """Over all their rows; None where there are none."""
    found = [loss for one in windows if (loss := loss_of(one)) is not None]
    rows = sum(one.rows for one in found)
    if not rows:
        return None
    return Loss(metric=found[0].metric, value=sum(one.value * one.rows for one in found) / rows, rows=rows)
