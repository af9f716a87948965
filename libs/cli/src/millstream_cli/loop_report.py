"""The state of a loop for somebody who was away: what answers, how well, what happened, and what needs a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TypeVar

from millstream.contracts.events import (
    ChallengerJudged,
    Finding,
    GivenModel,
    ModelRef,
    ModelState,
    Outcome,
    ReplicaObeyed,
    RolloutMoved,
    SkewJudged,
    WindowCorrected,
    WindowJudged,
    WindowKind,
)
from millstream_cli.errors import CommandFailed
from millstream_cli.incidents import Fate, Incident
from millstream_cli.loop_events import Loop, request_of
from millstream_cli.losses import Loss, loss_of, mean_loss
from millstream_cli.report_needs import needs_of, notices_of
from millstream_cli.steps import moved, step_of
from millstream_cli.telling import outcome_of, title_of

T = TypeVar("T")

MANY_AGAIN = 0.05
"""Of the labels of a span: Kafka's "at least once" and a producer's restart repeat fewer."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One window of labels."""

    at: datetime
    version: str
    kind: WindowKind
    finding: str
    loss: Loss
    """With the labels that came late."""
    was: Loss | None = None
    """As the verdict had it, where late labels corrected it."""
    late: int = 0
    """Labels that did."""
    shows: str = ""
    """The finding with them, where it is another one."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the newest window of inputs."""

    column: str
    psi: float
    importance: float
    missing: float
    reference_missing: float


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Questions and their labels, since the stream began; `new` and `new_duplicated` since the report's span began."""

    at: datetime
    matured: int
    new: int
    pending: int
    expired: int
    late: int
    orphaned: int
    duplicated: int
    """Labels that came again for a question that had one: the first counts, whatever they say."""
    new_duplicated: int


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Two models side by side, now."""

    version: str
    against: str
    step: str
    since: datetime | None
    compared: ChallengerJudged | None


@dataclass(frozen=True, kw_only=True)
class Line:
    """One incident."""

    number: int
    id: str
    began: datetime
    title: str
    outcome: str
    fate: Fate


@dataclass(frozen=True, kw_only=True)
class Word:
    """A person's word that was followed."""

    at: datetime
    by: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """One page about one loop. Times are stream time."""

    loop: str
    now: datetime
    since: datetime
    champion: str | None
    answers_since: datetime | None
    learned_until: datetime | None
    """The newest row that it has learned, as a person said of it; of a `fitted` one the time of its run: what was labelled by
    then it learned, or was judged on."""
    fitted: bool
    previous: str | None
    frozen: str
    pinned: str
    trial: Trial | None
    performance: list[Measured]
    mean: Loss | None
    """Over the span, all champions together, without windows of broken data: nothing was measured by those."""
    mean_left_out: int
    """Those windows."""
    incidents: list[Line]
    decisions: dict[str, int]
    runs: dict[str, int]
    """What became of the runs that began in the span."""
    drift_at: datetime | None
    drift_finding: str
    drift: list[Column]
    labels: Labels | None
    skew: SkewJudged | None
    people: list[Word]
    """What people did to the rollout in the span."""
    needs: list[str]
    """What waits for a person, the most pressing first."""
    notices: list[str]
    """What waits for nobody and is not well all the same: incidents that are open, runs that failed and labels that came again
    in the span."""

    @property
    def age_days(self) -> float | None:
        """Stream time since the champion last saw data."""
        return None if self.learned_until is None else (self.now - self.learned_until) / timedelta(days=1)


def report_of(loop: Loop, span: timedelta) -> Report:
    """What happened in the last `span` of stream time, and how it stands now. Raises CommandFailed where nothing was heard."""
    now = max(_times(loop), default=None)
    if now is None:
        raise CommandFailed(f"nothing was heard of loop {loop.name!r} yet: no labels, no verdict, no decision")
    since = now - span
    state = loop.states[-1] if loop.states else None
    ref = state.champion if state is not None else None
    given = None if ref is None else _given(loop, ref)
    changes = loop.champions
    inputs = [
        one for one in loop.windows if one.kind is WindowKind.INPUTS and (ref is None or one.version == ref.version)
    ]
    newest = inputs[-1] if inputs else None
    skew = max(_events(loop, SkewJudged), key=lambda one: one.at, default=None)
    decisions = [one for incident in loop.incidents for one in incident.decisions if one.at > since]
    labels = _labels(loop, since)
    performance = [
        _measured(one, loss, loop.corrected.get(one.id))
        for one in loop.windows
        if one.at > since and one.kind is not WindowKind.INPUTS and (loss := loss_of(one)) is not None
    ]
    broken = Finding.BROKEN_DATA.value
    whole = [one for one in performance if one.kind is WindowKind.PERFORMANCE and one.finding != broken]
    return Report(
        loop=loop.name,
        now=now,
        since=since,
        champion=None if ref is None else ref.version,
        answers_since=changes[-1][0] if changes else None,
        learned_until=None if ref is None else ref.at if given is None else given.learned_until,
        fitted=given is None,
        previous=None if state is None or state.previous is None else state.previous.version,
        frozen="" if state is None else state.frozen,
        pinned="" if state is None else state.pinned,
        trial=_trial(loop, state),
        performance=performance,
        mean=mean_loss([one.loss for one in whole]),
        mean_left_out=sum(one.kind is WindowKind.PERFORMANCE for one in performance) - len(whole),
        incidents=[_line(one) for one in loop.incidents if one.ended > since and not one.routine],
        decisions=dict(sorted(Counter(one.decision.value for one in decisions).items())),
        runs=_runs(loop, since),
        drift_at=None if newest is None else newest.at,
        drift_finding="" if newest is None else newest.finding.value,
        drift=_columns(newest),
        labels=labels,
        skew=skew,
        people=_people(loop, since),
        needs=needs_of(loop, state, skew, now),
        notices=notices_of(loop, since) + _again(loop, since),
    )


def _given(loop: Loop, ref: ModelRef) -> GivenModel | None:
    """What a person said of a model that was made elsewhere; None for one that was fitted."""
    decided = (
        one for incident in loop.incidents for run in incident.runs if run.name == ref.run for one in run.decisions
    )
    return next((one.given for one in decided if one.given is not None), None)


def _measured(window: WindowJudged, loss: Loss, correction: WindowCorrected | None) -> Measured:
    found = Measured(at=window.at, version=window.version, kind=window.kind, finding=window.finding.value, loss=loss)
    if correction is None:
        return found
    # A window by itself confirms nothing, so of a drop that was confirmed a correction says `suspected` at most.
    turned = correction.finding.value if is_well(correction.finding) is not is_well(window.finding) else ""
    now = loss_of(window, correction) or loss
    return replace(found, loss=now, was=loss, late=correction.labels, shows=turned)


def is_well(finding: Finding) -> bool:
    return finding in (Finding.HEALTHY, Finding.CLEARED)


def _times(loop: Loop) -> Iterable[datetime]:
    """Of what is told in stream time; a replica's word is of the wall clock."""
    for told in loop.told.values():
        at = getattr(told.event, "at", None)
        if at is not None and not isinstance(told.event, ReplicaObeyed):
            yield at


def _events(loop: Loop, kind: type[T]) -> list[T]:
    return [one.event for one in loop.told.values() if isinstance(one.event, kind)]


def _line(incident: Incident) -> Line:
    return Line(
        number=incident.number,
        id=incident.id,
        began=incident.began,
        title=title_of(incident),
        outcome=outcome_of(incident),
        fate=incident.fate,
    )


def _trial(loop: Loop, state: ModelState | None) -> Trial | None:
    """A challenger on trial, or a new champion on watch."""
    if state is None or state.champion is None:
        return None
    if state.challenger is not None:
        new, old, watch, step = state.challenger, state.champion, False, step_of(state.step, state.share)
    elif state.watch_until is not None and state.previous is not None:
        new, old, watch, step = (
            state.champion,
            state.previous,
            True,
            f"on watch until {state.watch_until:%Y-%m-%d %H:%M}",
        )
    else:
        return None
    looks = [
        one
        for one in _events(loop, ChallengerJudged)
        if (one.version, one.against, one.watch) == (new.version, old.version, watch)
    ]
    newest = max(looks, key=lambda one: (one.at, one.pairs), default=None)
    return Trial(version=new.version, against=old.version, step=step, since=state.since, compared=newest)


def _runs(loop: Loop, since: datetime) -> dict[str, int]:
    runs = [run for one in loop.incidents for run in one.runs if run.decisions[-1].at > since]
    fates = Counter(run.fate.value for run in runs)
    begun = sum(run.fate not in (Fate.PENDING, Fate.EXPIRED) for run in runs)
    return {"retrains": begun} | {fate.value: fates[fate.value] for fate in Fate if fates[fate.value]}


def _columns(window: WindowJudged | None) -> list[Column]:
    ranked = sorted(window.columns if window else [], key=lambda one: (-one.psi * one.importance, -one.psi, one.column))
    return [
        Column(
            column=one.column,
            psi=one.psi,
            importance=one.importance,
            missing=one.missing,
            reference_missing=one.reference_missing,
        )
        for one in ranked
    ]


def _labels(loop: Loop, since: datetime) -> Labels | None:
    if not loop.labels:
        return None
    last = loop.labels[-1]
    before = [one for one in loop.labels if one.at <= since][-1:]
    counts = before + [one for one in loop.labels if one.at > since]
    return Labels(
        at=last.at,
        matured=last.matured,
        new=_grown([one.matured for one in counts], since_zero=not before),
        pending=last.pending,
        expired=last.expired,
        late=last.late,
        orphaned=last.orphaned,
        duplicated=last.duplicated,
        new_duplicated=_grown([one.duplicated for one in counts], since_zero=not before),
    )


def _grown(counts: list[int], *, since_zero: bool) -> int:
    """By how much together; a count that falls was begun anew, for drift had lost its snapshot."""
    return sum(max(0, later - one) for one, later in pairwise([0, *counts] if since_zero else counts))


def _again(loop: Loop, since: datetime) -> list[str]:
    """A notice where so many labels came again that somebody should look at what they say, since a run has said it last."""
    runs = [run.finished for one in loop.incidents for run in one.runs if run.finished is not None]
    learned = max((end.at for end in runs if end.rows and end.outcome is not Outcome.FAILED), default=since)
    labels = _labels(loop, max(since, learned))
    if labels is None or labels.new_duplicated <= MANY_AGAIN * (labels.new + labels.new_duplicated):
        return []
    share = labels.new_duplicated / (labels.new + labels.new_duplicated)
    return [
        f"{labels.new_duplicated:,} labels ({share:.0%}) came again for a question that had one: the first counts. "
        "Does their stream repeat itself or contradict itself? The next run says how many do"
    ]


def _people(loop: Loop, since: datetime) -> list[Word]:
    moves = sorted(_events(loop, RolloutMoved), key=lambda one: one.revision)
    return [Word(at=one.at, by=one.by, text=_did(loop, one)) for one in moves if one.by and one.at > since]


def _did(loop: Loop, move: RolloutMoved) -> str:
    request = request_of(loop, move)
    action = f"{request.action.value}, " if request is not None else ""
    state = next((one for one in loop.states if one.revision == move.revision), None)
    now = state.champion.version if state is not None and state.champion is not None else move.version
    answers = f", version {now} answers" if now != move.version else ""
    return f"{action}{moved(move)}{answers}: {move.reason}"
