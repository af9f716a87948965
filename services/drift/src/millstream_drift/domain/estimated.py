"""What a window's labels will probably show, in numbers and in words."""

from __future__ import annotations

from dataclasses import replace

from millstream.contracts.tasks import Task
from millstream_drift.domain.answer import cell_of
from millstream_drift.domain.baseline import Baseline
from millstream_drift.domain.drop import Drop, drop_expected
from millstream_drift.domain.error_groups import ANSWER, expected
from millstream_drift.domain.estimate import expected_losses
from millstream_drift.domain.memory import Memory
from millstream_drift.domain.windows import Window

Estimate = tuple[Drop, str, dict[str, float]]
"""What is expected, what it rests on in words, and numbers of its own."""


def from_chances(window: Window, baseline: Baseline, task: Task, memory: Memory) -> Estimate | None:
    """By the answers' own chances; None before a window of labels has calibrated them."""
    calibration = memory.calibrations.get(window.version)
    if calibration is None:
        return None
    losses_of = expected_losses(task, calibration, [row[0] for row in window.rows])
    drop = drop_expected(float(losses_of.mean()), baseline, 1 / losses_of.size + 1 / calibration.rows)
    basis = f"answers calibrated on {calibration.rows} labels"
    return drop, basis, {"calibrated_on": float(calibration.rows)}


def from_groups(window: Window, baseline: Baseline) -> Estimate | None:
    """By where on the holdout the model was more wrong than elsewhere; None where its package does not say."""
    reference = baseline.reference
    if not reference.error_groups:
        return None
    outputs, _, *columns = zip(*window.rows, strict=True)
    cells = {column.name: found for column, found in zip(baseline.columns, columns, strict=True)}
    found = expected(
        reference.error_groups,
        cells | {ANSWER: [cell_of(Task.REGRESSION, output) for output in outputs]},
        reference.holdout_rows,
    )
    drop = replace(drop_expected(found.loss, baseline, 0.0), error=found.error)
    groups = len(reference.error_groups)
    basis = f"by {groups} groups of the holdout's rows, if the model errs in each as it did"
    if found.loss > reference.holdout_loss:
        basis += f"; most: {found.most}"
    return drop, basis, {"low": found.low, "high": found.high, "groups": float(groups)}
