"""A judged window once more, with the labels that came too late for it."""

from __future__ import annotations

import math
from statistics import NormalDist

from millstream.contracts.envelope import derived_id
from millstream.contracts.events import Finding, WindowCorrected, WindowKind
from millstream.contracts.tasks import Task
from millstream.contracts.times import to_datetime
from millstream_drift.domain.baseline import Baseline
from millstream_drift.domain.corrections import Correction, Tally
from millstream_drift.domain.interval import ERROR_RATE
from millstream_drift.domain.judge import Rules, drop_of, is_over
from millstream_drift.domain.memory import Memory
from millstream_drift.domain.windows import MINIMUM_ROWS


def correct(found: Correction, baseline: Baseline, rules: Rules, memory: Memory) -> WindowCorrected | None:
    """What the window is now; None where it said nothing that could be corrected, as of broken labels.

    It is not weighed again: that was its word, and what was decided by it stays decided. What it shows now counts with the next
    window, where that one is confirmed by it or is not.
    """
    judged = memory.judged_as(found.version, found.index)
    if judged is None:
        return None
    before, after = judged.losses, judged.losses.with_(found.late)
    drop = drop_of(after.mean, baseline, rules, 1 / after.rows)
    over = after.rows >= MINIMUM_ROWS and is_over(drop, rules)
    was = judged.finding
    judged.losses, judged.late = after, judged.late + found.late.rows
    if over is not judged.over:
        memory.corrected(found.version, judged, over)
        judged.finding = Finding.SUSPECTED if over else Finding.HEALTHY
    name = "squared error" if rules.task is Task.REGRESSION else "log loss"
    reason = (
        f"{found.late.rows} labels came late: {name} {after.mean:.4f} of {after.rows} rows, {drop.relative:+.1%} against the "
        f"holdout, was {before.mean:.4f} of {before.rows}"
    )
    if judged.finding is not was:
        reason += f"; {judged.finding.value} now, was {was.value}; it counts so with the next window"
    return WindowCorrected(
        id=derived_id(
            rules.loop, found.version, WindowKind.PERFORMANCE, str(found.index), "corrected", str(judged.late)
        ),
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
        before=_measures(before, baseline, rules),
        after=_measures(after, baseline, rules),
    )


def _measures(tally: Tally, baseline: Baseline, rules: Rules) -> dict[str, float]:
    """By the names that the window's own verdict has for them."""
    drop = drop_of(tally.mean, baseline, rules, 1 / tally.rows)
    reach = NormalDist().inv_cdf(1 - ERROR_RATE / 2) * tally.deviation / math.sqrt(tally.rows)
    return {
        "squared_error" if rules.task is Task.REGRESSION else "log_loss": tally.mean,
        "low": tally.mean - reach,
        "high": tally.mean + reach,
        "loss_increase": drop.relative,
        "standard_error": drop.error,
    }
