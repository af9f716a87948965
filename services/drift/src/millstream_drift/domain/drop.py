"""How much worse than on the holdout: a mean loss beside that of the model's package."""

from __future__ import annotations

import math
from dataclasses import dataclass

from millstream_drift.domain.baseline import Baseline

STANDARD_ERRORS = 2.0
"""A loss increase within two standard errors is what chance gives one window in forty."""


@dataclass(frozen=True, kw_only=True)
class Drop:
    """A mean loss against the holdout's."""

    loss: float
    reference: float
    error: float
    """Standard error of the difference."""
    reference_blind: float
    """What knowing nothing but the labels' shares costs on the holdout; 0: its package does not say."""
    blind: float = 0.0
    """The same of the window; 0: its labels are not known."""

    def as_now(self, normal: float, blind: float) -> float:
        """What was a `normal` loss where knowing nothing cost `blind`, as a loss of this window: one season is harder than the
        other. As it was, where that is not known."""
        return normal * self.blind / blind if self.blind > 0 and blind > 0 else normal

    def is_over(self, bound: float) -> bool:
        """Worse by enough to act on, and beyond chance."""
        return self.relative >= bound and self.loss - self.reference > STANDARD_ERRORS * self.error

    @property
    def relative(self) -> float:
        return (self.loss - self.reference) / self.reference


def drop_of(loss: float, baseline: Baseline, rows: float) -> Drop:
    """`rows` is the sum of 1/n over the samples that `loss` comes from."""
    reference = baseline.reference
    error = reference.holdout_loss_std * math.sqrt(rows + 1 / reference.holdout_rows)
    return Drop(loss=loss, reference=reference.holdout_loss, error=error, reference_blind=reference.holdout_blind)
