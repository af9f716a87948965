"""What the trainer knows about one loop: the fold of its own journal, so that a restart knows what its predecessor knew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from millstream.contracts.envelope import derived_id
from millstream.contracts.events import (
    Cause,
    ChallengerJudged,
    Decision,
    Event,
    GivenModel,
    ModelRef,
    ModelState,
    Outcome,
    RetrainDecided,
    RolloutMoved,
    Step,
    TrainingFinished,
    TrainingStarted,
    WindowJudged,
    WindowKind,
)
from millstream.contracts.times import from_datetime
from millstream_trainer.domain.ask import Waiting
from millstream_trainer.domain.broken import Spell

CLOCK = frozenset({Cause.FIRST_MODEL, Cause.SCHEDULE, Cause.LABELS})
"""Causes that come from time passing, not from a verdict or a person."""

BROKEN = "broken"
"""In a decision's numbers: the request was about broken data, which is no sign that the world has changed."""
REPLACED = "replaced"
"""In a decision's numbers: the request was about a version that no longer answers."""
MATURED = "matured"
"""In a decision's numbers: labels that had matured by then, since the stream began."""


MOST_FROZEN = 100
"""Times that a person held the loop: a trial looks back at the newest."""


def run_name(loop: str, request: str) -> str:
    """The same cause gives the same name, so that starting it twice is one run."""
    return derived_id("run", loop, request)[:12]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One accepted run."""

    name: str
    request: str
    cause: Cause
    at: int
    """Stream time up to which it may look."""
    version: str
    """Its place among the accepted runs of the loop, from "1": a repeat of the journal gives the same."""
    decision: str
    """Id of the event that accepted it."""
    matured: float | None = None
    """Labels that had matured when it was accepted; None: nobody had counted."""
    changed_at: datetime | None = None
    given: GivenModel | None = None
    """The model that it judges; None: it fits one."""
    attempt: int = 0
    """Attempts that were started."""
    outcome: Outcome | None = None
    entered: Step | None = None
    """The first step of its model: a trial's, or champion at once. None: no model of it was ever moved."""
    step: Step | None = None
    """Where its model stands."""

    @property
    def disappointed(self) -> bool:
        return self.outcome is Outcome.REJECTED or self.step in (Step.REJECTED, Step.ROLLED_BACK)


@dataclass(frozen=True, kw_only=True)
class LoopState:
    """One loop. `apply` gives the next state; every event counts once, however often it is read."""

    loop: str
    answered: frozenset[str] = frozenset()
    """Requests that were decided: none is decided twice."""
    runs: tuple[Run, ...] = ()
    """Accepted runs, oldest first."""
    pending: Mapping[str, RetrainDecided] = field(default_factory=dict)
    """Runs that wait for a person's word, by name."""
    refused: Mapping[str, RetrainDecided] = field(default_factory=dict)
    """Of these the last that were approved when they could not start, and the answer."""
    expired: frozenset[str] = frozenset()
    """Runs that waited in vain."""
    last_decision: RetrainDecided | None = None
    clock_asked_at: int | None = None
    """When the clock last asked for a run, whatever the answer was."""
    asked: Mapping[Cause, int] = field(default_factory=dict)
    """When each cause last asked, whatever the answer was."""
    models: ModelState | None = None
    """The loop's rollout state, as last published."""
    frozen: tuple[tuple[int, int | None], ...] = ()
    """When a person held the loop, and until when; None: still."""
    moves: frozenset[str] = frozenset()
    """Ids of the rollout's steps so far: none is made twice."""
    last_move: RolloutMoved | None = None
    versions: Mapping[str, ModelRef] = field(default_factory=dict)
    """Every version that was ever on trial or answered."""
    steps: Mapping[str, Step] = field(default_factory=dict)
    """Where each of them stands; a champion that was followed by another stands at champion still."""
    promoted_at: int | None = None
    """When the last promotion was."""
    champion_at: int | None = None
    """When the last promotion or rollback was: what was said before is of another version."""
    stream_time: int | None = None
    """The largest `at` heard for this loop."""
    matured: int | None = None
    """Labels that have matured, by the last count that was heard."""
    counted_at: int | None = None
    """When they were counted."""
    uncounted: int = 0
    """Of them so many are in no count any more: drift has begun to count anew."""
    broken: Mapping[WindowKind, int] = field(default_factory=dict)
    """Inputs, or labels, are broken since then; the verdicts say so, not the journal. Without an entry they are fine, or
    nothing was said."""
    spells: Mapping[WindowKind, tuple[Spell, ...]] = field(default_factory=dict)
    """When they were broken so far, by the same verdicts."""
    judged: Mapping[bool, ChallengerJudged] = field(default_factory=dict)
    """The last comparison that was heard of a watch (True) and of a trial (False), for people: labels of a trial go on maturing
    in the watch that follows it."""
    verdicts: Mapping[WindowKind, WindowJudged] = field(default_factory=dict)
    """The last verdict of each kind that was heard, for people."""
    said_until: Mapping[tuple[WindowKind, str], int] = field(default_factory=dict)
    """Up to when verdicts of each kind on each version were heard."""
    waiting: Waiting | None = None
    """A request that waits for labels or the end of quiet hours; others join it."""

    @property
    def champion(self) -> ModelRef | None:
        return self.models.champion if self.models is not None else None

    @property
    def challenger(self) -> ModelRef | None:
        return self.models.challenger if self.models is not None else None

    @property
    def unfinished(self) -> ModelState | None:
        """The model state that the journal announced and nobody has published yet."""
        said = None if self.last_move is None else self.last_move.led_to
        return said if said is not None and said.revision > self.revision else None

    @property
    def revision(self) -> int:
        return 0 if self.models is None else self.models.revision

    @property
    def last_run(self) -> Run | None:
        return max(self.runs, key=lambda run: run.at, default=None)

    @property
    def running(self) -> Run | None:
        """The run that was accepted and has not ended."""
        return next((run for run in self.runs if run.outcome is None), None)

    @property
    def rejected_in_a_row(self) -> int:
        """Challengers that the gate, a trial or a rollback took out, since the last that stayed or the last run that a
        person asked for (which counts itself). One that is still on trial says nothing yet."""
        count = 0
        for run in reversed(self.runs):
            count += run.disappointed
            stayed = run.outcome is Outcome.PROMOTED or run.step is Step.CHAMPION
            if (stayed and not run.disappointed) or run.cause is Cause.MANUAL:
                break
        return count

    def runs_after(self, at: int, *, by_person: bool) -> int:
        """Runs after `at` that the budget counts. One that failed counts against machines alone, and until a later one has
        not: who has mended the cause is not to pay for it, and what nobody mends must not train for ever."""
        ended = [n for n, run in enumerate(self.runs) if run.outcome not in (None, Outcome.FAILED)]
        mended = max(ended, default=-1)
        return sum(
            run.at > at and not (run.outcome is Outcome.FAILED and (by_person or n < mended))
            for n, run in enumerate(self.runs)
        )

    def run(self, name: str) -> Run | None:
        return next((run for run in self.runs if run.name == name), None)

    def frozen_within(self, since: int, at: int) -> list[tuple[int, int]]:
        """From when to when a person held the loop between these two."""
        spells = [(max(start, since), min(at if end is None else end, at)) for start, end in self.frozen]
        return [(start, end) for start, end in spells if start < end]

    def apply(self, event: Event) -> LoopState:
        """The state after one event of `millstream-training` or `millstream-models`; others change nothing."""
        if isinstance(event, RetrainDecided):
            return self._decided(event)
        if isinstance(event, TrainingStarted):
            return self._with_run(event.run, attempt=event.attempt)
        if isinstance(event, TrainingFinished):
            return self._with_run(event.run, outcome=event.outcome).passed(from_datetime(event.at))
        if isinstance(event, RolloutMoved):
            return self._moved(event)
        if isinstance(event, ModelState):
            if self.models is not None and event.revision <= self.models.revision:
                return self
            return replace(self._knowing(event.champion, event.challenger, event.previous), models=event)
        return self

    def passed(self, at: int) -> LoopState:
        """Stream time has reached `at`; what was decided before anything was heard has no time of its own (0)."""
        return self if at <= (self.stream_time or 0) else replace(self, stream_time=at)

    def wait(self, waiting: Waiting) -> LoopState:
        """Somebody's request has to wait."""
        return replace(self, waiting=waiting)

    def _decided(self, event: RetrainDecided) -> LoopState:
        if event.request in self.answered:
            return self
        at = from_datetime(event.at)
        runs, pending, refused, expired = self.runs, dict(self.pending), dict(self.refused), self.expired
        name = event.run or run_name(self.loop, event.request)
        if event.decision is Decision.ACCEPTED:
            asked = pending.pop(name, event)
            run = Run(
                name=name,
                request=asked.request,
                cause=asked.cause,
                at=at,
                version=str(len(runs) + 1),
                decision=event.id,
                matured=event.numbers.get(MATURED),
                changed_at=asked.changed_at,
                given=asked.given,
            )
            runs = (*runs, run)
        elif event.decision is Decision.PENDING:
            pending[name] = event
        elif event.decision is Decision.EXPIRED:
            pending.pop(name, None)
            expired |= {name}
        elif name in pending:
            refused[name] = event
        refused = {name: one for name, one in refused.items() if name in pending}
        causes = dict(self.asked)
        # What comes of a pending run is no new request.
        if not {BROKEN, REPLACED} & event.numbers.keys() and name not in self.pending:
            causes[event.cause] = max(at, causes.get(event.cause, at))
        clock = max(at, self.clock_asked_at or at) if event.cause in CLOCK else self.clock_asked_at
        waits = self.waiting is not None and self.waiting.ask.request != event.request
        return replace(
            self.passed(at),
            answered=self.answered | {event.request},
            runs=runs,
            pending=pending,
            refused=refused,
            expired=expired,
            last_decision=event,
            clock_asked_at=clock,
            asked=causes,
            waiting=self.waiting if waits else None,
        )

    def _moved(self, event: RolloutMoved) -> LoopState:
        if event.id in self.moves:
            return self
        state = self if event.led_to is None else self._knowing(event.led_to.champion)
        state = state._knowing(event.model)
        steps = {**state.steps, event.version: event.step}
        promoted = from_datetime(event.at) if event.step is Step.CHAMPION is not event.before else state.promoted_at
        if event.led_to is not None and event.led_to.champion is not None:
            steps[event.led_to.champion.version] = Step.CHAMPION
        runs = tuple(
            replace(
                run,
                step=steps.get(run.version, run.step),
                entered=event.step if run.name == event.run and event.before is Step.REGISTERED else run.entered,
            )
            for run in state.runs
        )
        is_back = event.step is Step.ROLLED_BACK and event.before is Step.CHAMPION
        frozen, at = state.frozen, from_datetime(event.at)
        is_frozen = bool(frozen) and frozen[-1][1] is None
        if event.led_to is not None and is_frozen != bool(event.led_to.frozen):
            frozen = (*frozen[:-1], (frozen[-1][0], at)) if is_frozen else (*frozen, (at, None))[-MOST_FROZEN:]
        return replace(
            state.passed(at),
            frozen=frozen,
            moves=state.moves | {event.id},
            last_move=event,
            steps=steps,
            promoted_at=promoted,
            champion_at=at if is_back else promoted if promoted != state.promoted_at else state.champion_at,
            runs=runs,
        )

    def _knowing(self, *models: ModelRef | None) -> LoopState:
        new = {model.version: model for model in models if model is not None}
        return replace(self, versions={**self.versions, **new}) if new.keys() - self.versions.keys() else self

    def _with_run(self, name: str, *, attempt: int = 0, outcome: Outcome | None = None) -> LoopState:
        runs = tuple(
            replace(run, attempt=max(run.attempt, attempt), outcome=run.outcome or outcome) if run.name == name else run
            for run in self.runs
        )
        return replace(self, runs=runs)
