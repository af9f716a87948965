"""The verdict on a window: inputs against the reference, matured labels against the holdout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from millstream.contracts.envelope import derived_id
from millstream.contracts.events import ColumnDrift, Finding, WindowJudged, WindowKind
from millstream.contracts.tasks import PROBABILITY, Task, row_loss
from millstream.contracts.times import to_datetime
from millstream_drift.domain.answer import cell_of
from millstream_drift.domain.baseline import Baseline
from millstream_drift.domain.hysteresis import Hysteresis
from millstream_drift.domain.psi import ColumnShift, shift
from millstream_drift.domain.score import score
from millstream_drift.domain.trials import TrialRules
from millstream_drift.domain.windows import Window

MINIMUM_ROWS = 100
"""Below this PSI over ten bins is noise: (10 - 1) / 100 = 0.09."""
BROKEN_SHARE = 0.3
"""Nulls or unknown categories up by this share of rows: a producer broke; the world does not move like that."""
STANDARD_ERRORS = 2.0
"""A loss increase within two standard errors is what chance gives one window in forty."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the loop's file says about drift."""

    loop: str
    window: int
    """Rows a window."""
    columns: frozenset[str] | None
    """Columns that count; None: all."""
    psi: float
    agree: int
    windows: int
    drop: float
    """Relative loss increase that is a performance drop."""
    within: int
    """Time that a label may take (microseconds)."""
    task: Task
    trials: TrialRules


def judge(window: Window, baseline: Baseline, rules: Rules, memory: Hysteresis) -> WindowJudged:
    """Judge one closed window; `memory` is that of the window's kind and moves on by one."""
    if window.kind is WindowKind.INPUTS:
        return _judge_inputs(window, baseline, rules, memory)
    return _judge_performance(window, baseline, rules, memory)


def _judge_inputs(window: Window, baseline: Baseline, rules: Rules, memory: Hysteresis) -> WindowJudged:
    outputs, _, *cells = zip(*window.rows, strict=True)
    answers = [cell_of(rules.task, output) for output in outputs]
    shifts = [shift(reference, column) for reference, column in zip(baseline.columns, cells, strict=True)]
    prediction = shift(baseline.reference.prediction, answers)
    counting = [one for one in shifts if rules.columns is None or one.column in rules.columns] or shifts
    effect = _weighted([one.psi for one in counting], counting)
    broken = [words for one in counting if (words := _broken(one))]
    if broken:
        # Broken data says nothing about the world, so it neither confirms nor clears a drift.
        finding, reason = Finding.BROKEN_DATA, "; ".join(broken[:5])
    elif len(window.rows) < MINIMUM_ROWS:
        finding, reason = Finding.HEALTHY, f"{len(window.rows)} rows are too few to judge"
    else:
        over = effect >= rules.psi
        finding, agreeing, of = memory.weigh(window.version, over, rules.agree, rules.windows)
        sign = "≥" if over else "<"
        counted = f" in {agreeing} of {of} windows" if over else ""
        reason = f"effect {effect:.3f} {sign} {rules.psi:.2f}{counted}{_most(counting)}"
    id = _id(rules, window)
    report = None
    if finding in (Finding.SUSPECTED, Finding.DETECTED) and memory.first_suspicion():
        report = derived_id("report", id)
    return _verdict(
        id,
        window,
        rules,
        finding=finding,
        reason=reason,
        effect=effect,
        columns=[_column(one) for one in shifts],
        metrics={
            "prediction_psi": prediction.psi,
            "jensen_shannon": _weighted([one.jensen_shannon for one in counting], counting),
        }
        | (
            {}
            if rules.task is Task.MULTICLASS
            else {"mean_prediction": float(np.mean(np.asarray(answers, np.float64)))}
        ),
        report=report,
    )


def _judge_performance(window: Window, baseline: Baseline, rules: Rules, memory: Hysteresis) -> WindowJudged:
    outputs, labels, *_ = zip(*window.rows, strict=True)
    losses = [row_loss(rules.task, output, label) for output, label in zip(outputs, labels, strict=True)]
    loss, count = math.fsum(losses) / len(losses), len(losses)
    found = None
    if rules.task is Task.BINARY:
        found = score(np.array([output[PROBABILITY] for output in outputs]), np.array(labels, dtype=np.float64))
    reference = baseline.reference
    increase = loss - reference.holdout_loss
    relative = increase / reference.holdout_loss
    error = reference.holdout_loss_std * math.sqrt(1 / count + 1 / reference.holdout_rows)
    name = "squared error" if rules.task is Task.REGRESSION else "log loss"
    numbers = f"{name} {loss:.4f} against {reference.holdout_loss:.4f} on the holdout, {relative:+.1%}"
    if found is not None and found.impossible:
        finding = Finding.BROKEN_DATA
        reason = f"every label is {bool(found.base_rate)}, the model expected {found.mean_prediction:.0%} positives"
    elif count < MINIMUM_ROWS:
        finding, reason = Finding.HEALTHY, f"{count} rows are too few to judge"
    else:
        over = relative >= rules.drop and increase > STANDARD_ERRORS * error
        finding, agreeing, of = memory.weigh(window.version, over, rules.agree, rules.windows)
        if finding is Finding.DETECTED:
            finding = Finding.PERFORMANCE_DROP
        if over:
            reason = f"{numbers} ≥ {rules.drop:+.1%} and beyond {STANDARD_ERRORS:.0f} standard errors "
            reason += f"({error:.4f} each) in {agreeing} of {of} windows"
        else:
            why = f"< {rules.drop:+.1%}" if relative < rules.drop else f"within {STANDARD_ERRORS:.0f} × {error:.4f}"
            reason = f"{numbers} {why}"
    return _verdict(
        _id(rules, window),
        window,
        rules,
        finding=finding,
        reason=reason,
        effect=relative,
        columns=[],
        metrics=(found.metrics() if found is not None else {"loss": loss})
        | {"loss_increase": relative, "standard_error": error},
        report=None,
    )


def _verdict(
    id: str,
    window: Window,
    rules: Rules,
    *,
    finding: Finding,
    reason: str,
    effect: float,
    columns: list[ColumnDrift],
    metrics: dict[str, float],
    report: str | None,
) -> WindowJudged:
    return WindowJudged(
        id=id,
        loop=rules.loop,
        version=window.version,
        kind=window.kind,
        index=window.index,
        finding=finding,
        reason=reason,
        at=to_datetime(window.end),
        start=to_datetime(window.start),
        end=to_datetime(window.end),
        rows=len(window.rows),
        effect=effect,
        columns=columns,
        metrics=metrics,
        report=report,
    )


def _id(rules: Rules, window: Window) -> str:
    return derived_id(rules.loop, window.version, window.kind, str(window.index))


def _weighted(values: Sequence[float], shifts: Sequence[ColumnShift]) -> float:
    """Mean by importance; a model that never splits still has its columns watched, all alike."""
    weights = [one.importance for one in shifts]
    total = math.fsum(weights)
    if total <= 0:
        return math.fsum(values) / len(values) if values else 0.0
    return math.fsum(value * weight for value, weight in zip(values, weights, strict=True)) / total


def _broken(one: ColumnShift) -> str:
    if one.missing - one.reference_missing >= BROKEN_SHARE:
        return f"{one.column}: {one.missing:.0%} missing, {one.reference_missing:.0%} in training"
    if one.unknown - one.reference_unknown >= BROKEN_SHARE:
        return f"{one.column}: {one.unknown:.0%} unknown categories, {one.reference_unknown:.0%} in training"
    if one.constant:
        return f"{one.column}: constant, it varied in training"
    return ""


def _most(shifts: Sequence[ColumnShift]) -> str:
    """The three columns that count most in the effect."""
    ranked = sorted(shifts, key=lambda one: (-one.psi * one.importance, one.column))[:3]
    named = ", ".join(f"{one.column} {one.psi:.2f} × importance {one.importance:.2f}" for one in ranked)
    return f"; most: {named}" if named else ""


def _column(one: ColumnShift) -> ColumnDrift:
    return ColumnDrift(
        column=one.column,
        psi=one.psi,
        missing=one.missing,
        reference_missing=one.reference_missing,
        importance=one.importance,
    )
