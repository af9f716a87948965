"""The verdict on a window: inputs against the reference, matured labels against the holdout, estimates before the labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from millstream.contracts.envelope import derived_id
from millstream.contracts.events import ColumnDrift, Finding, SlicePerformance, WindowJudged, WindowKind
from millstream.contracts.quiet import Quiet
from millstream.contracts.tasks import Task, metric_of
from millstream.contracts.times import to_datetime, to_rfc3339
from millstream_drift.domain.answer import cell_of
from millstream_drift.domain.baseline import Baseline
from millstream_drift.domain.content import ContentRules
from millstream_drift.domain.drop import STANDARD_ERRORS, Drop, drop_of
from millstream_drift.domain.estimate import calibrate
from millstream_drift.domain.estimated import from_chances, from_groups
from millstream_drift.domain.hysteresis import Weighed
from millstream_drift.domain.interval import by_slice, mean_interval, told_of, worse_slices
from millstream_drift.domain.memory import Judged, Memory
from millstream_drift.domain.psi import ColumnShift, shift
from millstream_drift.domain.score import blind_loss, losses, metrics, one_class
from millstream_drift.domain.tally import Summary, Tally
from millstream_drift.domain.triage import MOST_FIELDS, broken_field, in_words
from millstream_drift.domain.trials import TrialRules
from millstream_drift.domain.windows import MINIMUM_ROWS, SLICES, Window

MOST_OF_A_COLUMN = 10
"""Times `drift.psi` that a column counts for at most. PSI has no largest value: a column that means next to nothing to the
model and has moved far would be a drift by itself. So bounded, columns that hold less than a tenth of the importance together
are none, however far they move, and one that holds a tenth is one when it has nothing in common with training any more."""
LARGE_SHIFT = 0.25
"""PSI of the answers that is suspected even where no important column moved: large in the usual reading. It is no drift by
itself: answers follow the season, and nothing is learned again because of it."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the loop's file says about drift."""

    loop: str
    asked: str
    """Stream whose events ask."""
    window: int
    """Rows at which a window closes."""
    span: int
    """Stretch of time with which it closes (microseconds); 0: by rows alone."""
    columns: frozenset[str] | None
    """Columns that count; None: all."""
    important: bool
    """Only the columns count that the model rests on."""
    psi: float
    agree: int
    windows: int
    drop: float
    """Relative loss increase that is a performance drop."""
    within: int
    """Time that a label may take (microseconds)."""
    task: Task
    estimate: bool
    """Whether performance is estimated before the labels are there."""
    report_every: int | None
    """Stream time between two reports when nothing is suspected (microseconds); None: no such reports."""
    trials: TrialRules
    content: ContentRules
    quiet: Quiet
    """The loop's quiet hours: its labels are counted at their end too."""


def judge(window: Window, at: int, baseline: Baseline, rules: Rules, memory: Memory) -> list[WindowJudged]:
    """Judge a window that closed at stream time `at`; `memory` moves on by one. Two verdicts where it is estimated as well.

    None of one that its version left, unless it is broken: drift and calm are told by full windows.
    """
    if window.kind is WindowKind.PERFORMANCE:
        return [_judge_performance(window, at, baseline, rules, memory)]
    verdict = _judge_inputs(window, at, baseline, rules, memory)
    if verdict is None:
        return []
    estimated = None
    if verdict.finding is not Finding.BROKEN_DATA:
        estimated = _judge_estimated(window, at, baseline, rules, memory)
    return [verdict] if estimated is None else [verdict, estimated]


def _judge_inputs(window: Window, at: int, baseline: Baseline, rules: Rules, memory: Memory) -> WindowJudged | None:
    outputs, producers, *cells = zip(*window.rows, strict=True)
    answers = [cell_of(rules.task, output) for output in outputs]
    shifts = [shift(reference, column) for reference, column in zip(baseline.columns, cells, strict=True)]
    prediction = shift(baseline.reference.prediction, answers)
    watched = baseline.important if rules.important else rules.columns
    places = [n for n, one in enumerate(shifts) if watched is None or one.column in watched] or [*range(len(shifts))]
    counting = [shifts[n] for n in places]
    effect = _weighted([_counted(one, rules) for one in counting], counting)
    id = _id(rules, window, window.kind)
    broken = [
        found
        for n in places
        if (
            found := broken_field(
                baseline.columns[n], shifts[n], cells[n], producers, baseline, rules.asked, window.end - window.start
            )
        )
    ]
    if window.left and not broken:
        return None
    weighed = None
    if broken:
        # Broken data says nothing about the world, so it neither confirms nor clears a drift.
        finding, reason = Finding.BROKEN_DATA, in_words(broken)
        if window.left:
            reason += f"; {len(window.rows)} rows: version {window.version} answers no more"
        memory.inputs.doubt(window.version)
    elif len(window.rows) < MINIMUM_ROWS:
        finding, reason = Finding.HEALTHY, f"{len(window.rows)} rows are too few to judge"
    else:
        over = effect >= rules.psi
        weighed = memory.inputs.weigh(window.version, id, over, rules.agree, rules.windows, start=window.start)
        finding = weighed.finding
        reason = f"effect {effect:.3f} {_agreed(effect, rules.psi, weighed)}{_most(counting, rules)}"
        if finding is Finding.HEALTHY and prediction.psi >= LARGE_SHIFT:
            finding = Finding.SUSPECTED
            reason = f"the answers moved, psi {prediction.psi:.2f} ≥ {LARGE_SHIFT}, though the inputs did not: {reason}"
    memory.broken.judged(window.version, window.start, window.end, broken=bool(broken))
    report = None
    suspicious = finding in (Finding.SUSPECTED, Finding.DETECTED, Finding.NOT_CLEARED)
    if memory.inputs.wants_report(
        window.end, suspicious or (bool(broken) and memory.inputs.reported), rules.report_every
    ):
        report = derived_id("report", id)
    told = {
        "prediction_psi": prediction.psi,
        "jensen_shannon": _weighted([one.jensen_shannon for one in counting], counting),
    }
    if rules.task is not Task.MULTICLASS:
        told["mean_prediction"] = float(np.mean(np.asarray(answers, np.float64)))
    return _verdict(
        window,
        at,
        rules,
        finding=finding,
        reason=reason,
        effect=effect,
        columns=[_column(one) for one in shifts],
        metrics=told,
        report=report,
        broken=broken[:MOST_FIELDS],
        weighed=weighed,
    )


def _judge_performance(window: Window, at: int, baseline: Baseline, rules: Rules, memory: Memory) -> WindowJudged:
    whole = memory.whole(window.version, window.rows)
    judged_by = whole if len(whole) >= MINIMUM_ROWS else window.rows
    outputs, labels = [row[0] for row in judged_by], [row[1] for row in judged_by]
    row_losses = losses(rules.task, outputs, labels)
    low, high = mean_interval(row_losses)
    found = metrics(rules.task, outputs, labels, row_losses) | {"low": low, "high": high}
    names = rules.trials.slices
    # Rows from before `gate.slices` was changed have none.
    sliced = [row for row, cells in enumerate(judged_by) if names and len(cells) == SLICES + len(names)]
    columns = {name: [judged_by[row][SLICES + n] for row in sliced] for n, name in enumerate(names)}
    slices = by_slice(row_losses[sliced], columns) if sliced else []
    told = told_of(slices, baseline.slices)
    drop = replace(drop_of(Tally.of(row_losses), baseline), blind=blind_loss(rules.task, labels))
    in_doubt = len(window.rows) - len(whole)
    unfounded = in_doubt > 0 and judged_by is window.rows
    impossible = None if unfounded else one_class(rules.task, outputs, labels)
    weighed = None
    if impossible:
        finding, reason = Finding.BROKEN_DATA, impossible
        memory.performance.doubt(window.version)
    elif unfounded:
        # The loss is a fact, and what led to it is the inputs: it neither confirms nor clears a drop, and asks for nothing.
        finding = Finding.SUSPECTED if drop.is_over(rules.drop) else Finding.HEALTHY
        reason = (
            f"{_against_the_holdout(drop, rules)}; {in_doubt} of the {len(window.rows)} questions were asked while inputs were "
            "broken, so it says nothing of the model"
        )
    elif row_losses.size < MINIMUM_ROWS:
        finding, reason = Finding.HEALTHY, f"{row_losses.size} rows are too few to judge"
    else:
        finding, reason, weighed = _weigh_drop(drop, window, WindowKind.PERFORMANCE, rules, memory)
        worse = worse_slices(told, rules.drop)[:3]
        reason += "".join(_slice_in_words(one) for one in worse)
        if in_doubt:
            reason += f"; without {in_doubt} questions that were asked while inputs were broken"
        calibration = calibrate(rules.task, outputs, labels) if rules.estimate else None
        if calibration is not None:
            memory.calibrated(window.version, calibration)
    if not impossible:
        judged = Judged(
            window.index,
            _id(rules, window, window.kind),
            finding,
            Summary.of(rules.task, outputs, labels, row_losses, slices),
            window.start,
            over=drop.is_over(rules.drop),
            weighed=weighed is not None,
        )
        memory.remember(window.version, judged)
    return _verdict(
        window,
        at,
        rules,
        finding=finding,
        reason=reason,
        effect=drop.relative,
        rows=row_losses.size,
        metrics=found
        | {"loss_increase": drop.relative, "standard_error": drop.error}
        | ({"asked_while_broken": float(in_doubt), "whole_rows": float(len(whole))} if in_doubt else {}),
        slices=told,
        weighed=weighed,
    )


def _judge_estimated(window: Window, at: int, baseline: Baseline, rules: Rules, memory: Memory) -> WindowJudged | None:
    """Performance of the questions of an inputs window; None where it is not asked for or cannot be had."""
    # Where labels come sooner than windows close, their own windows say it better.
    if not rules.estimate or len(window.rows) < MINIMUM_ROWS or window.end - window.start >= rules.within:
        return None
    found = (
        from_groups(window, baseline)
        if rules.task is Task.REGRESSION
        else from_chances(window, baseline, rules.task, memory)
    )
    if found is None:
        return None
    drop, basis, told = found
    finding, reason, weighed = _weigh_drop(drop, window, WindowKind.ESTIMATED, rules, memory)
    return _verdict(
        window,
        at,
        rules,
        kind=WindowKind.ESTIMATED,
        finding=finding,
        reason=f"estimated, no labels yet: {reason}; {basis}",
        effect=drop.relative,
        metrics={
            metric_of(rules.task): drop.loss,
            "loss_increase": drop.relative,
            "standard_error": drop.error,
            **told,
        },
        weighed=weighed,
    )


def _weigh_drop(
    drop: Drop, window: Window, kind: WindowKind, rules: Rules, memory: Memory
) -> tuple[Finding, str, Weighed]:
    """Finding, reason, and what they were made of."""
    enough = drop.relative >= rules.drop
    id, over = _id(rules, window, kind), drop.is_over(rules.drop)
    weighed = memory.of(kind).weigh(
        window.version,
        id,
        over,
        rules.agree,
        rules.windows,
        start=window.start,
        normal=drop.reference,
        blind=drop.reference_blind,
        worse_than=lambda normal, blind: (
            kind is WindowKind.PERFORMANCE and replace(drop, reference=drop.as_now(normal, blind)).is_over(rules.drop)
        ),
    )
    numbers = _against_the_holdout(drop, rules)
    if over:
        numbers += f" ≥ {rules.drop:+.1%} and beyond {STANDARD_ERRORS:.0f} standard errors "
        numbers += f"of {drop.error:.4f} in {weighed.agreeing} of {weighed.of} windows"
    else:
        numbers += f" within {STANDARD_ERRORS:.0f} × {drop.error:.4f}" if enough else f" < {rules.drop:+.1%}"
    if kind is WindowKind.PERFORMANCE and weighed.normal:
        then = drop.as_now(weighed.normal, weighed.blind)
        numbers += f"; {replace(drop, reference=then).relative:+.1%} against {weighed.normal:.4f} before it began"
        numbers += f", {then:.4f} with the labels of today" if then != weighed.normal else ""
    finding = Finding.PERFORMANCE_DROP if weighed.finding is Finding.DETECTED else weighed.finding
    return finding, numbers, weighed


def _against_the_holdout(drop: Drop, rules: Rules) -> str:
    name = "squared error" if rules.task is Task.REGRESSION else "log loss"
    return f"{name} {drop.loss:.4f} against {drop.reference:.4f} on the holdout, {drop.relative:+.1%}"


def _verdict(
    window: Window,
    at: int,
    rules: Rules,
    *,
    weighed: Weighed | None,
    kind: WindowKind | None = None,
    rows: int | None = None,
    **said: Any,
) -> WindowJudged:
    kind = kind or window.kind
    since = 0 if weighed is None else weighed.since
    return WindowJudged(
        id=_id(rules, window, kind),
        loop=rules.loop,
        version=window.version,
        kind=kind,
        index=window.index,
        at=to_datetime(at),
        start=to_datetime(window.start),
        end=to_datetime(window.end),
        rows=len(window.rows) if rows is None else rows,
        about=None if weighed is None else weighed.about,
        changed_at=to_datetime(since) if since else None,
        **said,
    )


def _id(rules: Rules, window: Window, kind: WindowKind) -> str:
    # A snapshot that is lost begins the indices anew, and a request that has the id of one that was answered is never heard.
    return derived_id(rules.loop, window.version, kind, str(window.index), to_rfc3339(window.start))


def _weighted(values: Sequence[float], shifts: Sequence[ColumnShift]) -> float:
    """Mean by importance; a model that never splits still has its columns watched, all alike."""
    weights = [one.importance for one in shifts]
    total = math.fsum(weights)
    if total <= 0:
        return math.fsum(values) / len(values) if values else 0.0
    return math.fsum(value * weight for value, weight in zip(values, weights, strict=True)) / total


def _agreed(effect: float, bound: float, weighed: Weighed) -> str:
    return f"≥ {bound:.2f} in {weighed.agreeing} of {weighed.of} windows" if effect >= bound else f"< {bound:.2f}"


def _counted(one: ColumnShift, rules: Rules) -> float:
    """A column's PSI in the effect."""
    return min(one.psi, MOST_OF_A_COLUMN * rules.psi)


def _most(shifts: Sequence[ColumnShift], rules: Rules) -> str:
    """The three columns that count most in the effect."""
    ranked = sorted(shifts, key=lambda one: (-_counted(one, rules) * one.importance, one.column))[:3]
    named = ", ".join(_in_words(one, _counted(one, rules)) for one in ranked)
    return f"; most: {named}" if named else ""


def _in_words(one: ColumnShift, counted: float) -> str:
    bounded = f" (counted as {counted:.2f})" if counted < one.psi else ""
    return f"{one.column} {one.psi:.2f}{bounded} × importance {one.importance:.2f}"


def _slice_in_words(one: SlicePerformance) -> str:
    found = f"{one.loss:.4f} ({one.low:.4f} to {one.high:.4f})"
    return f"; {one.column} {one.value or 'null'}: {found} against {one.reference:.4f} on the holdout"


def _column(one: ColumnShift) -> ColumnDrift:
    return ColumnDrift(
        column=one.column,
        psi=one.psi,
        missing=one.missing,
        reference_missing=one.reference_missing,
        importance=one.importance,
        jensen_shannon=one.jensen_shannon,
        unknown=one.unknown,
    )
