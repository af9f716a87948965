"""A judged window once more, with the labels that came too late for it."""

from __future__ import annotations

from millstream.contracts.envelope import derived_id
from millstream.contracts.events import Finding, WindowCorrected
from millstream.contracts.tasks import Task, metric_of
from millstream.contracts.times import to_datetime
from millstream_drift.domain.baseline import Baseline
from millstream_drift.domain.corrections import Correction
from millstream_drift.domain.drop import drop_of
from millstream_drift.domain.interval import tally_interval, told_of
from millstream_drift.domain.judge import Rules
from millstream_drift.domain.memory import Memory
from millstream_drift.domain.score import losses
from millstream_drift.domain.tally import Summary
from millstream_drift.domain.windows import MINIMUM_ROWS, SLICES


def correct(found: Correction, baseline: Baseline, rules: Rules, memory: Memory) -> WindowCorrected | None:
    """What the window is now; None where it said nothing that could be corrected, as of broken labels, or where
    the late ones are of questions that were asked while inputs were broken.

    It is not weighed again: that was its word, and what was decided by it stays decided. What it shows now counts with the next
    window, where that one is confirmed by it or is not; where it had no say itself, it has none then.
    """
    judged = memory.judged_as(found.version, found.index)
    if judged is None:
        return None
    rows = memory.whole(found.version, found.late) if judged.weighed else found.late
    if not rows:
        return None
    told, names = judged.summary, rules.trials.slices
    outputs, labels = [row[0] for row in rows], [row[1] for row in rows]
    # Rows from before `gate.slices` was changed have none, and then nobody can say of which slice they are.
    whole = all(len(row) == SLICES + len(names) for row in rows)
    cells = {name: [row[SLICES + n] for row in rows] for n, name in enumerate(names)} if whole else {}
    now = told.with_(rules.task, outputs, labels, losses(rules.task, outputs, labels), cells)
    before, after, late = told.losses, now.losses, len(rows)
    drop = drop_of(after, baseline)
    over = after.rows >= MINIMUM_ROWS and drop.is_over(rules.drop)
    was = judged.finding
    judged.summary, judged.late = now, judged.late + late
    if over is not judged.over:
        memory.corrected(found.version, judged, over)
        judged.finding = Finding.SUSPECTED if over else Finding.HEALTHY
    name = "squared error" if rules.task is Task.REGRESSION else "log loss"
    reason = (
        f"{late} labels came late: {name} {after.mean:.4f} of {after.rows} rows, {drop.relative:+.1%} against the "
        f"holdout, was {before.mean:.4f} of {before.rows}"
    )
    if judged.finding is not was:
        reason += f"; {judged.finding.value} now, was {was.value}"
        reason += "; it counts so with the next window" if judged.weighed else ""
    return WindowCorrected(
        id=derived_id(judged.id, "corrected", str(judged.late)),
        loop=rules.loop,
        version=found.version,
        index=found.index,
        corrects=judged.id,
        at=to_datetime(found.at),
        labels=judged.late,
        rows=after.rows,
        was=was,
        finding=judged.finding,
        reason=reason,
        before=_measures(told, baseline, rules),
        after=_measures(now, baseline, rules),
        slices=told_of(now.slices, baseline.slices),
    )


def _measures(summary: Summary, baseline: Baseline, rules: Rules) -> dict[str, float]:
    """By the names that the window's own verdict has for them."""
    tally = summary.losses
    drop = drop_of(tally, baseline)
    low, high = tally_interval(tally)
    return {
        metric_of(rules.task): tally.mean,
        **summary.metrics,
        "low": low,
        "high": high,
        "loss_increase": drop.relative,
        "standard_error": drop.error,
    }
