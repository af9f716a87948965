"""The gate: what a challenger has to show before it serves. It fails closed, and every check comes with its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream.contracts.events import GateCheck
from millstream.contracts.tasks import Task, metric_of
from millstream_trainer.domain.answers import Answers
from millstream_trainer.domain.metrics import miscalibration
from millstream_trainer.domain.slices import Slice

FEWEST_ROWS = 200
"""Holdout rows. Below this the standard error of a log loss is several hundredths: any order could be luck."""
LARGEST_PACKAGE = 64 * 1024 * 1024
"""Bytes of a graph. 200 trees with categories take 2 MB; far above that something went wrong."""
SLOWEST = 20.0
"""Milliseconds of one row through onnxruntime, alone. Trees take a tenth of one; a deadline of serving is some hundreds."""
LARGEST_DIFFERENCE = 1e-4
"""Between the exported graph and the fitted model: in probability, or in standard deviations of the labels of a regression.
Rounding explains 1e-6; more is another model."""
MISCALIBRATED = 0.15
"""Of `metrics.miscalibration`. What is further off than that, than the champion and than always saying the mean misleads who
acts on its numbers. A week unlike any other costs an honest model some hundredths, and a stormy one costs everybody more."""
ERROR_RATE = 0.05
"""Chance that chance alone keeps the gate closed by the slices, or by the drifted rows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """The same holdout rows, answered by both."""

    labels: NDArray[Any]
    challenger: Answers
    """Of the exported graph, which is what would serve."""
    native: Answers
    """Of the fitted model that it was exported from."""
    champion: Answers | None
    """None: there is no champion, or it could not answer (`champion_error` says why)."""
    champion_error: str | None
    knowing_nothing: Answers
    """The answer that needs no model (`answers.knowing_nothing`)."""
    package_bytes: int
    milliseconds: float
    """Of one row."""
    tolerance: float
    """How much worse, as a share of the champion's loss, still passes."""
    slices: Sequence[Slice] = ()
    slice_tolerance: float = 0.0
    drifted: NDArray[np.bool_] | None = None
    """Rows asked since what drift noticed, where the holdout is more than those."""


def judge(evidence: Evidence) -> list[GateCheck]:
    """Every check, in order; the challenger passes when all did."""
    checks = [
        _rows(evidence),
        _labels(evidence),
        _honest(evidence),
        _exported(evidence),
        _size(evidence),
        _time(evidence),
    ]
    if all(check.passed for check in checks[:3]):
        checks.append(_calibrated(evidence))
        if evidence.champion is not None:
            if evidence.drifted is not None:
                checks.append(_drifted(evidence, evidence.drifted))
            if evidence.slices:
                checks.append(_slices(evidence))
        checks.append(_better(evidence))
    return checks


def verdict(checks: list[GateCheck]) -> tuple[bool, str]:
    """Whether all passed, and the sentence that says why."""
    failed = [check for check in checks if not check.passed]
    if failed:
        return False, "; ".join(f"{check.name}: {check.detail}" for check in failed)
    return True, checks[-1].detail


def largest_difference(labels: NDArray[Any], one: Answers, other: Answers) -> float:
    """On any row and class: in probability, or in standard deviations of a regression's labels. NaN when one says NaN."""
    if not len(labels):
        return 0.0
    worst = float(np.max(np.abs(np.asarray(one.values, dtype=np.float64) - other.values)))
    spread = float(np.std(labels)) if one.task is Task.REGRESSION else 1.0
    return worst / spread if spread > 0 else worst


def _rows(e: Evidence) -> GateCheck:
    n = len(e.labels)
    return GateCheck(
        name="holdout_rows",
        passed=n >= FEWEST_ROWS,
        champion=None,
        challenger=float(n),
        detail=f"{n} holdout rows, at least {FEWEST_ROWS} are needed",
    )


def _labels(e: Evidence) -> GateCheck:
    """On labels that are all the same no model can show that it tells anything apart."""
    if e.challenger.task is Task.BINARY:
        positives = int(np.sum(e.labels == 1))
        name, found = "both_classes", float(positives)
        passed, detail = 0 < positives < len(e.labels), f"{positives} of {len(e.labels)} holdout rows are positive"
    else:
        values = len(set(e.labels.tolist()))
        name, found = "different_labels", float(values)
        passed, detail = values > 1, f"{values} different labels in the holdout"
    return GateCheck(name=name, passed=passed, champion=None, challenger=found, detail=detail)


def _honest(e: Evidence) -> GateCheck:
    bad = e.challenger.unfit()
    what = "finite number" if e.challenger.task is Task.REGRESSION else "probability"
    return GateCheck(
        name="valid_outputs",
        passed=bad == 0,
        champion=None,
        challenger=float(bad),
        detail=f"{bad} answers are no {what}",
    )


def _exported(e: Evidence) -> GateCheck:
    worst = largest_difference(e.labels, e.challenger, e.native)
    unit = " standard deviations" if e.challenger.task is Task.REGRESSION else ""
    return GateCheck(
        name="export_difference",
        passed=bool(worst <= LARGEST_DIFFERENCE),  # NaN compares false: fails closed
        champion=None,
        challenger=worst,
        detail=f"graph and model differ by {worst:.2g}{unit} at most, {LARGEST_DIFFERENCE:.0e} is allowed",
    )


def _size(e: Evidence) -> GateCheck:
    return GateCheck(
        name="package_size",
        passed=e.package_bytes <= LARGEST_PACKAGE,
        champion=None,
        challenger=float(e.package_bytes),
        detail=f"{e.package_bytes / 1e6:.2f} MB, at most {LARGEST_PACKAGE / 1e6:.0f} MB",
    )


def _time(e: Evidence) -> GateCheck:
    return GateCheck(
        name="row_latency",
        passed=bool(e.milliseconds <= SLOWEST),
        champion=None,
        challenger=e.milliseconds,
        detail=f"one row takes {e.milliseconds:.3f} ms, at most {SLOWEST:.0f} ms",
    )


def _calibrated(e: Evidence) -> GateCheck:
    found = miscalibration(e.labels, e.challenger)
    champion = None if e.champion is None else miscalibration(e.labels, e.champion)
    bound = max(MISCALIBRATED, champion or 0.0, miscalibration(e.labels, e.knowing_nothing))
    return GateCheck(
        name="calibration",
        passed=bool(found <= bound),
        champion=champion,
        challenger=found,
        detail=f"answers are {found:.3f} off on average, up to {bound:.3f} passes",
    )


def _drifted(e: Evidence, rows: NDArray[np.bool_]) -> GateCheck:
    """What the retrain is for: the rows since the change must not be worse than before it, beyond chance."""
    assert e.champion is not None
    count = int(rows.sum())
    if count < FEWEST_ROWS:
        detail = f"{count} holdout rows since the change, too few to judge by themselves"
        return GateCheck(name="drifted_window", passed=True, champion=None, challenger=float(count), detail=detail)
    mine, other = _losses(e, rows)
    mean, error = _paired(mine - other)
    allowed = e.tolerance * float(other.mean())
    return GateCheck(
        name="drifted_window",
        passed=bool(mean - NormalDist().inv_cdf(1 - ERROR_RATE) * error <= allowed),
        champion=float(other.mean()),
        challenger=float(mine.mean()),
        detail=f"{_metric(e)} of {count} rows since the change: {mean:+.5f} ± {error:.5f} a row against the champion",
    )


def _slices(e: Evidence) -> GateCheck:
    """No slice that is large enough may be worse by more than its tolerance, beyond chance; each divides the error rate."""
    large = [s for s in e.slices if int(s.rows.sum()) >= FEWEST_ROWS]
    if not large:
        detail = f"no slice has {FEWEST_ROWS} holdout rows"
        return GateCheck(name="slices", passed=True, champion=None, challenger=0.0, detail=detail)
    z = NormalDist().inv_cdf(1 - ERROR_RATE / len(large))
    worst, told, broken = -np.inf, "", []
    for one in large:
        mine, other = _losses(e, one.rows)
        mean, error = _paired(mine - other)
        relative = mean / max(float(other.mean()), 1e-12)
        words = f"{one.name} {relative:+.1%} ({mean:+.5f} ± {error:.5f} a row, {int(one.rows.sum())} rows)"
        if not mean - z * error <= e.slice_tolerance * float(other.mean()):
            broken.append(words)
        if relative > worst:
            worst, told = relative, words
    beside = f"{len(broken)} of {len(large)} slices are worse by more than {e.slice_tolerance:.0%} beyond chance"
    return GateCheck(
        name="slices",
        passed=not broken,
        champion=0.0,
        challenger=float(worst),
        detail=f"{beside}: {'; '.join(broken[:5])}" if broken else f"{beside}; the worst is {told}",
    )


def _better(e: Evidence) -> GateCheck:
    challenger = e.challenger.losses(e.labels)
    if e.champion_error is not None:
        return GateCheck(
            name="better_than_champion",
            passed=False,
            champion=None,
            challenger=float(challenger.mean()),
            detail=f"the champion could not be scored: {e.champion_error}",
        )
    if e.champion is None:
        name = "better_than_mean" if e.challenger.task is Task.REGRESSION else "better_than_base_rate"
        who = f"always saying the {'mean' if e.challenger.task is Task.REGRESSION else 'base rate'}"
        other, tolerance = e.knowing_nothing.losses(e.labels), 0.0
    else:
        name, who, tolerance = "better_than_champion", "the champion", e.tolerance
        other = e.champion.losses(e.labels)
    # Paired: the same rows, so their common difficulty cancels and small differences show.
    mean, error = _paired(challenger - other)
    bound = tolerance * float(other.mean())
    return GateCheck(
        name=name,
        passed=bool(mean < bound),
        champion=float(other.mean()),
        challenger=float(challenger.mean()),
        detail=(
            f"{_metric(e)} {challenger.mean():.4f}, {who} has {other.mean():.4f}: {mean:+.5f} ± {error:.5f} a row"
            + (f", up to {bound:+.5f} passes" if bound else "")
        ),
    )


def _losses(e: Evidence, rows: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    assert e.champion is not None
    labels = e.labels[rows]
    return e.challenger.take(rows).losses(labels), e.champion.take(rows).losses(labels)


def _paired(difference: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))


def _metric(e: Evidence) -> str:
    return metric_of(e.challenger.task).replace("_", " ")
