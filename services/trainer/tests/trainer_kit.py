"""A trainer on memory ports, a desk that only decides, and models that pass or lose: what the trainer's stories share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry

from millstream.contracts.envelope import derived_id
from millstream.contracts.events import (
    ChallengerJudged,
    Event,
    ModelRef,
    Outcome,
    ReplicaObeyed,
    RetrainDecided,
    RetrainRequested,
    RolloutAction,
    RolloutRequested,
    RunApproved,
    TrainingFinished,
    TrialFinding,
)
from millstream.contracts.times import from_datetime, to_datetime
from millstream_trainer.adapters.memory import MemoryAnnouncer, MemoryEnds, MemoryExecutor, MemoryPackages
from millstream_trainer.domain.ask import Waiting
from millstream_trainer.domain.hearing import asked_by, heard
from millstream_trainer.domain.policy import approve, decide, overdue
from millstream_trainer.domain.rollout import entered
from millstream_trainer.domain.rules import Rules
from millstream_trainer.domain.run import RunResult, RunSpec
from millstream_trainer.domain.state import LoopState
from millstream_trainer.handlers import Trainer
from millstream_trainer.metrics import TrainerMetrics
from millstream_trainer.ports import Executor

PROMOTED, REJECTED, FAILED = Outcome.PROMOTED, Outcome.REJECTED, Outcome.FAILED
NOON = 1_800_000_000_000_000
"""The wall's clock in every story."""


def ref(version: str, run: str | None = None) -> ModelRef:
    return ModelRef(version=version, run=run or f"r{version}", uri=f"memory:{version}", sha256="0", at=to_datetime(0))


def judged(
    at: datetime,
    version: str,
    against: str,
    finding: TrialFinding = TrialFinding.UNDECIDED,
    *,
    pairs: int = 0,
    difference: float = -0.001,
    watch: bool = False,
    id: str | None = None,
) -> ChallengerJudged:
    """What drift says of two models."""
    return ChallengerJudged(
        id=id or derived_id(version, against, finding.value, str(pairs), at.isoformat()),
        loop="tides",
        version=version,
        against=against,
        watch=watch,
        finding=finding,
        reason=f"{finding.value} after {pairs} pairs",
        at=at,
        questions=pairs + 10,
        answered=0,
        pairs=pairs,
        difference=difference,
        low=round(difference - 0.01, 6),
        high=round(difference + 0.01, 6),
        loss=0.5,
        error_rate=0.05,
    )


def obeyed(
    revision: int,
    *,
    refused: int = 0,
    refused_version: str = "",
    instance: str = "serving-0",
    at: int = NOON,
    leaving: bool = False,
) -> ReplicaObeyed:
    return ReplicaObeyed(
        id=derived_id(instance, str(revision), str(refused), str(at)),
        loop="tides",
        instance=instance,
        revision=revision,
        version="1",
        refused=refused,
        refused_version=refused_version,
        reason="its hash is wrong" if refused else "",
        at=to_datetime(at),
        leaving=leaving,
    )


def wants(action: RolloutAction, to: str | None = None, *, id: str | None = None) -> RolloutRequested:
    return RolloutRequested(
        id=id or f"{action.value}-{to}", loop="tides", action=action, by="Ada", reason="the harbour said so", to=to
    )


def approves(run: str, id: str = "go") -> RunApproved:
    return RunApproved(id=id, loop="tides", run=run, by="Ada")


class Desk:
    """Hears events one after the other, as the dispatcher does, and ends runs when told to."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.state = LoopState(loop="tides")
        self.decisions: list[RetrainDecided] = []

    def hears(self, event: Any) -> RetrainDecided | None:
        """The last decision that the event led to, or None."""
        before = len(self.decisions)
        if isinstance(event, RunApproved):
            self._take(approve(self.state, event, self.rules))
        else:
            if not isinstance(event, RetrainRequested):
                self.state = heard(self.state, event)
                while (due := overdue(self.state, from_datetime(event.at), self.rules)) is not None:
                    self._take(due)
            ask = asked_by(self.state, event, self.rules)
            if ask is not None:
                self._take(decide(self.state, ask, self.rules))
        return self.decisions[-1] if len(self.decisions) > before else None

    def _take(self, outcome: RetrainDecided | Waiting | None) -> None:
        if isinstance(outcome, Waiting):
            self.state = self.state.wait(outcome)
        elif outcome is not None:
            self.state = self.state.apply(outcome)
            self.decisions.append(outcome)

    def ends(self, outcome: Outcome) -> None:
        run = self.state.running
        assert run is not None
        if outcome is PROMOTED:
            moved = entered(self.state, ref(run.version, run.name), self.rules.rollout, at=run.at, reason="better")
            assert moved is not None
            assert moved.led_to is not None
            self.state = self.state.apply(moved).apply(moved.led_to)
        self.state = self.state.apply(
            TrainingFinished(
                id=f"finished-{run.name}",
                loop="tides",
                run=run.name,
                attempt=1,
                outcome=outcome,
                reason="",
                at=to_datetime(run.at),
                version=run.version,
                rows=1,
                seconds=1,
                metrics={},
                gate=[],
                mlflow_run=None,
            )
        )


def model_of(spec: RunSpec) -> ModelRef:
    return ModelRef(version=spec.version, run=spec.run, uri=f"memory:{spec.run}", sha256="0", at=spec.at)


def passes(spec: RunSpec) -> RunResult:
    return RunResult(
        passed=True, reason="better", model=model_of(spec), rows=10, metrics={"auc": 0.8}, gate=[], mlflow_run=None
    )


def loses(spec: RunSpec) -> RunResult:
    return RunResult(passed=False, reason="worse", model=model_of(spec), rows=10, metrics={}, gate=[], mlflow_run=None)


class Office:
    """A trainer on memory ports; `restarted` is its successor, which knows only what was said."""

    def __init__(
        self, rules: Any, outcome: Callable[[RunSpec], RunResult | str] = passes, runs_in: Executor | None = None
    ) -> None:
        """`runs_in`: where runs happen instead of in memory."""
        self.rules = rules
        self.announcer = MemoryAnnouncer()
        self.executor = MemoryExecutor(outcome)
        self.packages = MemoryPackages()
        self.registry = CollectorRegistry()
        self.now = NOON
        """By the wall's clock."""
        self.trainer = Trainer(
            rules={"tides": rules},
            streams=["ships", "arrivals"],
            announcer=self.announcer,
            ends=MemoryEnds({"ships": {0: 41}, "arrivals": {0: -1}}),
            executor=runs_in or self.executor,
            packages=self.packages,
            metrics=TrainerMetrics(self.registry),
            pause=lambda attempt: 0.0,
            clock=lambda: self.now,
        )

    def restarted(
        self,
        outcome: Callable[[RunSpec], RunResult | str] = passes,
        said: Iterable[Event] | None = None,
        runs_in: Executor | None = None,
    ) -> Office:
        successor = Office(self.rules, outcome, runs_in)
        for event in self.announcer.said if said is None else said:
            successor.trainer.remember(event)
            successor.trainer.remember(event)  # a journal may hold an event twice
        return successor

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        working = asyncio.create_task(self.trainer.work())
        try:
            yield
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    def ended(self, runs: int = 1) -> Callable[[], bool]:
        return lambda: len(self.announcer.of(TrainingFinished)) == runs
