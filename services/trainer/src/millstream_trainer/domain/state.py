"""What the trainer knows about one loop: the fold of its own journal, so that a restart knows what its predecessor knew."""

from __future__ import annotations

from dataclasses import dataclass, replace

from millstream.contracts.envelope import derived_id
from millstream.contracts.events import (
    Cause,
    Decision,
    Event,
    ModelRef,
    ModelState,
    Outcome,
    RetrainDecided,
    TrainingFinished,
    TrainingStarted,
)
from millstream.contracts.times import from_datetime

CLOCK = frozenset({Cause.FIRST_MODEL, Cause.SCHEDULE})
"""Causes that come from time passing, not from a verdict or a person."""


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
    attempt: int = 0
    """Attempts that were started."""
    outcome: Outcome | None = None


@dataclass(frozen=True, kw_only=True)
class LoopState:
    """One loop. `apply` gives the next state; every event counts once, however often it is read."""

    loop: str
    answered: frozenset[str] = frozenset()
    """Requests that were decided: none is decided twice."""
    runs: tuple[Run, ...] = ()
    """Accepted runs, oldest first."""
    last_decision: RetrainDecided | None = None
    clock_asked_at: int | None = None
    """When the clock last asked for a run, whatever the answer was."""
    models: ModelState | None = None
    """The loop's rollout state, as last published."""
    stream_time: int | None = None
    """The largest `at` heard for this loop."""
    broken_since: int | None = None
    """Inputs are broken since then; the verdicts say so, not the journal. None: they are fine, or nothing was said."""

    @property
    def champion(self) -> ModelRef | None:
        return self.models.champion if self.models is not None else None

    @property
    def last_run(self) -> Run | None:
        return max(self.runs, key=lambda run: run.at, default=None)

    @property
    def running(self) -> Run | None:
        """The run that was accepted and has not ended."""
        return next((run for run in self.runs if run.outcome is None), None)

    @property
    def rejected_in_a_row(self) -> int:
        """Rejected challengers since the last promotion or the last run that a person asked for (which counts itself)."""
        count = 0
        for run in reversed(self.runs):
            count += run.outcome is Outcome.REJECTED
            if run.outcome is Outcome.PROMOTED or run.cause is Cause.MANUAL:
                break
        return count

    def runs_after(self, at: int) -> int:
        return sum(run.at > at for run in self.runs)

    def run(self, name: str) -> Run | None:
        return next((run for run in self.runs if run.name == name), None)

    def apply(self, event: Event) -> LoopState:
        """The state after one event of `millstream-training` or `millstream-models`; others change nothing."""
        if isinstance(event, RetrainDecided):
            return self._decided(event)
        if isinstance(event, TrainingStarted):
            return self._with_run(event.run, attempt=event.attempt)
        if isinstance(event, TrainingFinished):
            return self._with_run(event.run, outcome=event.outcome).passed(from_datetime(event.at))
        if isinstance(event, ModelState):
            if self.models is not None and event.revision <= self.models.revision:
                return self
            return replace(self, models=event)
        return self

    def passed(self, at: int) -> LoopState:
        """Stream time has reached `at`."""
        return self if self.stream_time is not None and self.stream_time >= at else replace(self, stream_time=at)

    def _decided(self, event: RetrainDecided) -> LoopState:
        if event.request in self.answered:
            return self
        at = from_datetime(event.at)
        runs = self.runs
        if event.decision is Decision.ACCEPTED:
            run = Run(
                name=event.run or run_name(self.loop, event.request),
                request=event.request,
                cause=event.cause,
                at=at,
                version=str(len(runs) + 1),
                decision=event.id,
            )
            runs = (*runs, run)
        asked = max(at, self.clock_asked_at or at) if event.cause in CLOCK else self.clock_asked_at
        return replace(
            self.passed(at),
            answered=self.answered | {event.request},
            runs=runs,
            last_decision=event,
            clock_asked_at=asked,
        )

    def _with_run(self, name: str, *, attempt: int = 0, outcome: Outcome | None = None) -> LoopState:
        runs = tuple(
            replace(run, attempt=max(run.attempt, attempt), outcome=run.outcome or outcome) if run.name == name else run
            for run in self.runs
        )
        return replace(self, runs=runs)
