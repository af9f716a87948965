"""What a new champion did to the loss on real questions, before and after its promotion."""

from __future__ import annotations

from dataclasses import dataclass

from millstream.contracts.events import Finding, WindowKind
from millstream_cli.incidents import RunStory
from millstream_cli.loop_events import Loop
from millstream_cli.losses import loss_of, mean_loss

BESIDE = 3
"""Windows before and after a promotion that its effect is told from: a fortnight of flights each."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a new champion did to the loss on real questions."""

    metric: str
    old: str
    new: str
    before: float
    before_rows: int
    after: float
    after_rows: int

    @property
    def words(self) -> str:
        name = self.metric.replace("_", " ")
        return (
            f"{name} {self.before:.4f} by version {self.old} ({self.before_rows:,} labels before), {self.after:.4f} by version "
            f"{self.new} ({self.after_rows:,} after): {self.after / self.before - 1:+.1%}"
            if self.before
            else f"{name} {self.before:.4f} by version {self.old}, {self.after:.4f} by version {self.new}"
        )


def before_and_after(loop: Loop, run: RunStory) -> Effect | None:
    """The last windows of the old champion up to the promotion, and the first of the new one; None until both are there. Labels
    that were broken measured nothing, nor did those of broken questions.

    Other questions, other weather: this is what happened, the trial is what compares.
    """
    at, version = run.promoted_at, run.version
    if at is None or version is None:
        return None
    earlier = [ref for since, ref in loop.champions if since < at and ref.version != version]
    if not earlier:
        return None
    old = earlier[-1].version
    judged = [
        one
        for one in loop.windows
        if one.kind is WindowKind.PERFORMANCE
        and one.finding is not Finding.BROKEN_DATA
        and not one.says_nothing
        and loss_of(one) is not None
    ]
    before = mean_loss(loop.losses([one for one in judged if one.version == old and one.at <= at][-BESIDE:]))
    after = mean_loss(loop.losses([one for one in judged if one.version == version and one.at > at][:BESIDE]))
    if before is None or after is None or before.metric != after.metric:
        return None
    return Effect(
        metric=before.metric,
        old=old,
        new=version,
        before=before.value,
        before_rows=before.rows,
        after=after.value,
        after_rows=after.rows,
    )
