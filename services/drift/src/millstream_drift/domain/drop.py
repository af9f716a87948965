"""How much worse than on the holdout: a mean loss beside that of the model's package."""

from __future__ import annotations

import math
from dataclasses import dataclass

from millstream_drift.domain.baseline import Baseline
from millstream_drift.domain.tally import Tally

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


def drop_of(losses: Tally, baseline: Baseline) -> Drop:
    """Of losses that labels show. Each sample has a spread of its own: one with heavy tails says little, however many rows."""
    return _drop(losses.mean, losses.deviation**2 / losses.rows, baseline)


def drop_expected(loss: float, baseline: Baseline, rows: float) -> Drop:
    """Of a loss that is estimated, from samples the sum of whose 1/n is `rows`; their spread is taken to be the holdout's."""
    return _drop(loss, baseline.reference.holdout_loss_std**2 * rows, baseline)


def _drop(loss: float, variance: float, baseline: Baseline) -> Drop:
    reference = baseline.reference
    error = math.sqrt(variance + reference.holdout_loss_std**2 / reference.holdout_rows)
    return Drop(loss=loss, reference=reference.holdout_loss, error=error, reference_blind=reference.holdout_blind)
