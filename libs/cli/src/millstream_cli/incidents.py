"""Incidents of a loop, and the runs in them.

An incident begins with a trouble (windows that drift, lose performance or are broken), with a request (a person, an alert,
another system) or with the clock (a schedule, the first model). To it belong the decisions on it, the runs that were
accepted, their trials and steps, and the verdict that says whether it helped. A request that joined a run belongs to the
incident of that run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from millstream.contracts.events import (
    Cause,
    ChallengerJudged,
    Decision,
    LabelsMatured,
    Outcome,
    RetrainDecided,
    RetrainRequested,
    RolloutMoved,
    RolloutRequested,
    RunApproved,
    Step,
    TrainingFinished,
    TrainingStarted,
    WindowJudged,
)
from millstream_cli.troubles import FINE, Trouble

CLOCK = frozenset({Cause.FIRST_MODEL, Cause.SCHEDULE, Cause.LABELS})


class Fate(StrEnum):
    """What came of an incident, in a word or three."""

    OPEN = "open"
    """Nothing was decided on it yet."""
    OVER = "over"
    """Nothing was decided on it, and the version that it is about is fine again or answers nobody any more."""
    DECLINED = "declined"
    SUGGESTED = "suggested"
    JOINED = "joined another"
    """A request that waits already; it is told there."""
    PENDING = "pending"
    EXPIRED = "expired"
    TRAINING = "training"
    FAILED = "failed"
    REJECTED_BY_GATE = "rejected by the gate"
    ON_TRIAL = "on trial"
    REJECTED_IN_TRIAL = "rejected in trial"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled back"
    BROUGHT_BACK = "brought back"
    """Rolled back, and then it came to answer again, by a person's word."""


@dataclass(eq=False)
class RunStory:
    """One run: from its acceptance to where its model stands."""

    name: str
    decisions: list[RetrainDecided] = field(default_factory=list)
    """On the run itself: pending, accepted, expired, or what an approval got. What only joined it is the incident's."""
    approvals: list[RunApproved] = field(default_factory=list)
    started: list[TrainingStarted] = field(default_factory=list)
    finished: TrainingFinished | None = None
    judged: list[ChallengerJudged] = field(default_factory=list)
    """As challenger and on watch, the oldest first."""
    moves: list[RolloutMoved] = field(default_factory=list)
    brought_back: list[RolloutMoved] = field(default_factory=list)
    """Steps that had its model answer again after it was rolled back: another's rollback to it, or a pin."""
    pinned_away: list[RolloutMoved] = field(default_factory=list)
    """Pins by which another version, that had answered before, came to answer in its place."""
    held: list[RolloutMoved] = field(default_factory=list)
    """What a person did to the loop while its model was on trial: freezes, and their ends."""
    gave_way: list[RolloutMoved] = field(default_factory=list)
    """Rollbacks of its model by which a later one answers again: a person went forward, and it was not taken back."""

    @property
    def version(self) -> str | None:
        if self.finished is not None and self.finished.version is not None:
            return self.finished.version
        return self.moves[0].version if self.moves else None

    @property
    def cause(self) -> Cause:
        return self.decisions[0].cause

    @property
    def began(self) -> datetime:
        """When it was let start; of one that was not, when it was asked for."""
        let = [one.at for one in self.decisions if one.decision is Decision.ACCEPTED]
        return let[0] if let else self.decisions[0].at

    @property
    def waits(self) -> RetrainDecided | None:
        """The decision that has it wait for a person's word. A word that did not start it changes nothing of that."""
        return self.decisions[0] if self.fate is Fate.PENDING else None

    @property
    def fate(self) -> Fate:
        end = self.finished
        if end is not None and end.outcome in (Outcome.REJECTED, Outcome.FAILED):
            return Fate.FAILED if end.outcome is Outcome.FAILED else Fate.REJECTED_BY_GATE
        moves = [one for one in self.moves if one not in self.gave_way]
        if moves:
            last = moves[-1]
            away = max((one.revision for one in self.pinned_away), default=0)
            again = bool(self.brought_back) and self.brought_back[-1].revision > max(last.revision, away)
            after = {
                Step.CHAMPION: Fate.PROMOTED,
                Step.ROLLED_BACK: Fate.BROUGHT_BACK if again else Fate.ROLLED_BACK,
                Step.REJECTED: Fate.REJECTED_IN_TRIAL,
            }
            return after.get(last.step, Fate.ON_TRIAL)
        if end is not None:
            return Fate.PROMOTED if end.outcome is Outcome.PROMOTED else Fate.ON_TRIAL
        said = [one.decision for one in self.decisions]
        if Decision.ACCEPTED in said or self.started:
            return Fate.TRAINING
        return Fate.EXPIRED if Decision.EXPIRED in said else Fate.PENDING

    @property
    def trial(self) -> list[ChallengerJudged]:
        """The looks at it as challenger, until its trial ended: a word that comes later changes nothing any more."""
        over = [move.at for move in self.moves if move.step not in (Step.REGISTERED, Step.SHADOW, Step.CANARY)]
        return [one for one in self.judged if not one.watch and (not over or one.at <= over[0])]

    @property
    def watch(self) -> list[ChallengerJudged]:
        """The looks after its promotion, whose pairs are counted anew."""
        return [one for one in self.judged if one.watch]

    @property
    def promoted_at(self) -> datetime | None:
        """When it came to answer everybody."""
        for move in self.moves:
            if move.step is Step.CHAMPION:
                return move.at
        if not self.moves and self.finished is not None and self.finished.outcome is Outcome.PROMOTED:
            return self.finished.at
        return None


@dataclass(eq=False)
class Incident:
    """One story of a loop."""

    id: str
    number: int = 0
    """From 1, in the order in which incidents became known: a later one, or a word on an older one, changes no number."""
    others: list[int] = field(default_factory=list)
    """Numbers of what joined it."""
    troubles: list[Trouble] = field(default_factory=list)
    requests: list[RetrainRequested | RolloutRequested | RunApproved] = field(default_factory=list)
    """What somebody asked for: a run; or what was declined, a run's approval or another model."""
    clock: list[LabelsMatured] = field(default_factory=list)
    decisions: list[RetrainDecided] = field(default_factory=list)
    runs: list[RunStory] = field(default_factory=list)
    """As they began: of several the last one's fate is the incident's."""
    taken_back: list[RolloutMoved] = field(default_factory=list)
    """Steps that took back a version that it is about, where they are no part of its own runs."""
    cure: WindowJudged | None = None
    """The window that says what became of its troubles; None while no window does."""
    open: bool = False
    """A version that is in trouble answers, and has had no fine window since."""
    answers_now: str | None = None
    """The version that answers at the end of what is told."""

    @property
    def began(self) -> datetime:
        times = [one.windows[0].at for one in self.troubles] + [one.at for one in self.decisions]
        return min(times)

    @property
    def ended(self) -> datetime:
        """The last thing that was heard of it."""
        times = [one.windows[-1].at for one in self.troubles] + [one.at for one in self.decisions]
        for run in self.runs:
            ends: list[TrainingStarted | ChallengerJudged | RolloutMoved] = [*run.started, *run.judged, *run.moves]
            ends += run.brought_back
            times += [one.at for one in ends] + ([run.finished.at] if run.finished else [])
        times += [one.at for one in self.taken_back]
        return max([*times, *([self.cure.at] if self.cure else [])])

    @property
    def cause(self) -> str:
        if self.decisions:
            first = min(self.decisions, key=lambda one: one.at).cause.value
            return "broken data" if any(one.began_broken for one in self.troubles) and not self.runs else first
        return (
            "broken data" if self.troubles[0].began_broken else self.troubles[0].worst.finding.value.replace("_", " ")
        )

    @property
    def fate(self) -> Fate:
        if self.runs:
            return self.runs[-1].fate
        said = [one.decision for one in self.decisions]
        if not said:
            return Fate.OPEN if self.open else Fate.OVER
        if Decision.SUGGESTED in said:
            return Fate.SUGGESTED
        return Fate.DECLINED if Decision.DECLINED in said else Fate.JOINED

    @property
    def cured(self) -> str:
        """`cleared`, `not cleared`, or nothing yet."""
        if self.cure is None:
            return ""
        return "cleared" if self.cure.finding in FINE else "not cleared"

    @property
    def routine(self) -> bool:
        """The clock asked and was refused: no incident that anybody looks for."""
        return not self.troubles and not self.runs and all(one.cause in CLOCK for one in self.decisions)
