"""The gate: what a challenger has to show before it serves. It fails closed, and every check comes with its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream.contracts.events import GateCheck
from millstream_trainer.domain.metrics import losses

FEWEST_ROWS = 200
"""Holdout rows. Below this the standard error of a log loss is several hundredths: any order could be luck."""
LARGEST_PACKAGE = 64 * 1024 * 1024
"""Bytes of a graph. 200 trees with categories take 2 MB; far above that something went wrong."""
LARGEST_DIFFERENCE = 1e-4
"""Between the exported graph and the fitted model, in probability. Rounding explains 1e-6; more is another model."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """The same holdout rows, answered by both."""

    labels: NDArray[Any]
    challenger: NDArray[Any]
    """Probabilities of the exported graph, which is what would serve."""
    native: NDArray[Any]
    """Probabilities of the fitted model that it was exported from."""
    champion: NDArray[Any] | None
    """None: there is no champion, or it could not answer (`champion_error` says why)."""
    champion_error: str | None
    base_rate: float
    """Share of positives among the training rows: the answer that needs no model."""
    package_bytes: int
    tolerance: float
    """How much worse, as a share of the champion's loss, still passes."""


def judge(evidence: Evidence) -> list[GateCheck]:
    """Every check, in order; the challenger passes when all did."""
    checks = [_rows(evidence), _classes(evidence), _finite(evidence), _exported(evidence), _size(evidence)]
    if all(check.passed for check in checks[:3]):
        checks.append(_better(evidence))
    return checks


def verdict(checks: list[GateCheck]) -> tuple[bool, str]:
    """Whether all passed, and the sentence that says why."""
    failed = [check for check in checks if not check.passed]
    if failed:
        return False, "; ".join(f"{check.name}: {check.detail}" for check in failed)
    return True, checks[-1].detail


def _rows(e: Evidence) -> GateCheck:
    n = len(e.labels)
    return GateCheck(
        name="holdout_rows",
        passed=n >= FEWEST_ROWS,
        champion=None,
        challenger=float(n),
        detail=f"{n} holdout rows, at least {FEWEST_ROWS} are needed",
    )


def _classes(e: Evidence) -> GateCheck:
    positives = int(np.sum(e.labels == 1))
    return GateCheck(
        name="both_classes",
        passed=0 < positives < len(e.labels),
        champion=None,
        challenger=float(positives),
        detail=f"{positives} of {len(e.labels)} holdout rows are positive",
    )


def _finite(e: Evidence) -> GateCheck:
    p = np.asarray(e.challenger, dtype=np.float64)
    bad = int(np.sum(~(np.isfinite(p) & (p >= 0) & (p <= 1))))
    return GateCheck(
        name="valid_outputs",
        passed=bad == 0,
        champion=None,
        challenger=float(bad),
        detail=f"{bad} answers are no probability",
    )


def _exported(e: Evidence) -> GateCheck:
    worst = float(np.max(np.abs(np.asarray(e.challenger, dtype=np.float64) - e.native))) if len(e.labels) else 0.0
    return GateCheck(
        name="export_difference",
        passed=bool(worst <= LARGEST_DIFFERENCE),  # NaN compares false: fails closed
        champion=None,
        challenger=worst,
        detail=f"graph and model differ by {worst:.2g} at most, {LARGEST_DIFFERENCE:.0e} is allowed",
    )


def _size(e: Evidence) -> GateCheck:
    return GateCheck(
        name="package_size",
        passed=e.package_bytes <= LARGEST_PACKAGE,
        champion=None,
        challenger=float(e.package_bytes),
        detail=f"{e.package_bytes / 1e6:.2f} MB, at most {LARGEST_PACKAGE / 1e6:.0f} MB",
    )


def _better(e: Evidence) -> GateCheck:
    challenger = losses(e.labels, e.challenger)
    if e.champion_error is not None:
        return GateCheck(
            name="better_than_champion",
            passed=False,
            champion=None,
            challenger=float(challenger.mean()),
            detail=f"the champion could not be scored: {e.champion_error}",
        )
    if e.champion is None:
        name, who = "better_than_base_rate", "always saying the base rate"
        other = losses(e.labels, np.full(len(e.labels), e.base_rate))
        tolerance = 0.0
    else:
        name, who, tolerance = "better_than_champion", "the champion", e.tolerance
        other = losses(e.labels, e.champion)
    # Paired: the same rows, so their common difficulty cancels and small differences show.
    difference = challenger - other
    mean = float(difference.mean())
    error = float(difference.std(ddof=1) / np.sqrt(len(difference)))
    bound = tolerance * float(other.mean())
    return GateCheck(
        name=name,
        passed=bool(mean < bound),
        champion=float(other.mean()),
        challenger=float(challenger.mean()),
        detail=(
            f"log loss {challenger.mean():.4f}, {who} has {other.mean():.4f}: {mean:+.5f} ± {error:.5f} a row"
            + (f", up to {bound:+.5f} passes" if bound else "")
        ),
    )
