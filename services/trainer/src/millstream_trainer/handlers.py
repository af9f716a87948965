"""What the trainer does: hears verdicts and requests, decides, has runs run, and says what came of them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeVar

from millstream.contracts.envelope import derived_id
from millstream.contracts.events import (
    Decision,
    Event,
    LabelsMatured,
    ModelRef,
    Outcome,
    RetrainRequested,
    TrainingFinished,
    TrainingStarted,
    WindowJudged,
)
from millstream.contracts.package import BadPackage
from millstream.contracts.times import from_datetime, to_datetime
from millstream.errors import RetryLater
from millstream_trainer.domain import rollout
from millstream_trainer.domain.policy import Rules, asked_by, decide, heard
from millstream_trainer.domain.run import RunResult, RunSpec
from millstream_trainer.domain.state import LoopState, Run
from millstream_trainer.errors import RunFailed, UnknownLoop
from millstream_trainer.metrics import TrainerMetrics
from millstream_trainer.ports import Announcer, Executor, Packages, StreamEnds

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
"""A run whose trainer died three times in the middle of it is probably what killed it (memory): it counts as failed."""

T = TypeVar("T")

Hearable = LabelsMatured | WindowJudged | RetrainRequested


class Trainer:
    """The dispatcher. Its state is the fold of its own journal; `remember` it whole before anything is heard."""

    def __init__(
        self,
        *,
        rules: Mapping[str, Rules],
        streams: Iterable[str],
        announcer: Announcer,
        ends: StreamEnds,
        executor: Executor,
        packages: Packages,
        metrics: TrainerMetrics,
        pause: Callable[[int], float] = lambda attempt: min(5.0, 0.1 * 2.0 ** min(attempt, 10)),
    ) -> None:
        self.rules = rules
        self.states: dict[str, LoopState] = {loop: LoopState(loop=loop) for loop in rules}
        self._streams = sorted(streams)
        self._announcer = announcer
        self._ends = ends
        self._executor = executor
        self._packages = packages
        self._metrics = metrics
        self._pause = pause
        self._accepted: asyncio.Queue[tuple[str, Run]] = asyncio.Queue()

    def remember(self, event: Event) -> None:
        """Fold one event of the journal or of the model states in. Loops that left the project are forgotten."""
        loop = getattr(event, "loop", "")
        if loop in self.states:
            self.states[loop] = self.states[loop].apply(event)

    def resume(self) -> None:
        """The journal is read: take up the runs that were accepted and never ended."""
        for loop, state in self.states.items():
            if state.running is not None:
                log.info("taking up a run that did not end", extra={"loop": loop, "run": state.running.name})
                self._accepted.put_nowait((loop, state.running))

    async def hear(self, event: Hearable) -> None:
        """Decide on one event, once. Harmless when repeated. Raises UnknownLoop, RetryLater (nothing was decided then)."""
        if event.loop not in self.states:
            raise UnknownLoop(event.loop, sorted(self.states))
        rules, state = self.rules[event.loop], self.states[event.loop]
        if not isinstance(event, RetrainRequested):
            state = self.states[event.loop] = heard(state, event)
            self._age(event.loop)
        ask = asked_by(state, event, rules)
        decided = None if ask is None else decide(state, ask, rules)
        if decided is None:
            return
        await self._announcer.announce(decided, caused_by=decided.request)
        self.remember(decided)
        self._metrics.decisions.labels(event.loop, decided.cause.value, decided.decision.value).inc()
        log.info(
            "%s: %s",
            decided.decision.value,
            decided.reason,
            extra={"loop": event.loop, "cause": decided.cause.value, "run": decided.run},
        )
        if decided.decision is Decision.ACCEPTED:
            run = self.states[event.loop].run(decided.run or "")
            assert run is not None, "the decision was just remembered"
            self._accepted.put_nowait((event.loop, run))

    async def work(self) -> None:
        """Have accepted runs run, each in the background, until cancelled. An error nobody expected ends it."""
        async with asyncio.TaskGroup() as runs:
            while True:
                loop, run = await self._accepted.get()
                runs.create_task(self._run(loop, run), name=f"run {run.name}")

    async def _run(self, loop: str, run: Run) -> None:
        champion = self.states[loop].champion
        if champion is not None and champion.run == run.name:
            await self._finish_promoted(loop, run, champion)
            return
        attempt = run.attempt + 1
        if attempt > MAX_ATTEMPTS:
            reason = f"given up: the trainer ended in the middle of {run.attempt} attempts"
            await self._finish(loop, run, attempt=run.attempt, outcome=Outcome.FAILED, reason=reason)
            return
        self._metrics.running.labels(loop).set(1)
        began = time.monotonic()
        try:
            await self._attempt(loop, run, attempt, began)
        finally:
            self._metrics.running.labels(loop).set(0)

    async def _attempt(self, loop: str, run: Run, attempt: int, began: float) -> None:
        started = TrainingStarted(
            id=derived_id("started", loop, run.name, str(attempt)),
            loop=loop,
            run=run.name,
            attempt=attempt,
            at=to_datetime(run.at),
        )
        await self._say(started, caused_by=run.decision)
        try:
            spec = await self._spec(loop, run, attempt)
            result = await self._executor.run(spec)
        except RunFailed as error:
            seconds = time.monotonic() - began
            await self._finish(loop, run, attempt=attempt, outcome=Outcome.FAILED, reason=str(error), seconds=seconds)
            return
        outcome = Outcome.PROMOTED if result.passed else Outcome.REJECTED
        if result.passed:
            # Before TrainingFinished: who reads that a run has ended may rely on the model state that came of it.
            # A crash in between repeats neither the run nor the record: the champion then names this run.
            state = rollout.promoted(
                self.states[loop].models, loop=loop, challenger=result.model, reason=result.reason, at=run.at
            )
            await self._say(state, caused_by=started.id)
        seconds = time.monotonic() - began
        await self._finish(
            loop, run, attempt=attempt, outcome=outcome, reason=result.reason, seconds=seconds, result=result
        )

    async def _spec(self, loop: str, run: Run, attempt: int) -> RunSpec:
        positions = await self._patiently(lambda: self._ends.ends(self._streams))
        return RunSpec(
            loop=loop,
            run=run.name,
            attempt=attempt,
            version=run.version,
            at=to_datetime(run.at),
            cause=run.cause,
            request=run.request,
            positions=positions,
            champion=self.states[loop].champion,
        )

    async def _finish_promoted(self, loop: str, run: Run, champion: ModelRef) -> None:
        """The model state was published and then the trainer ended: only the end of the run remains to be said."""
        try:
            manifest = await self._patiently(lambda: asyncio.to_thread(self._packages.manifest, champion))
            metrics, rows = manifest.metrics, manifest.lineage.train_rows
        except BadPackage as error:
            log.error("the promoted package cannot be read: %s", error, extra={"loop": loop, "run": run.name})
            metrics, rows = {}, 0
        reason = f"version {champion.version} was promoted; the trainer restarted before it could say so"
        await self._finish(
            loop, run, attempt=run.attempt, outcome=Outcome.PROMOTED, reason=reason, rows=rows, metrics=metrics
        )

    async def _finish(
        self,
        loop: str,
        run: Run,
        *,
        attempt: int,
        outcome: Outcome,
        reason: str,
        seconds: float = 0.0,
        result: RunResult | None = None,
        rows: int = 0,
        metrics: dict[str, float] | None = None,
    ) -> None:
        event = TrainingFinished(
            id=derived_id("finished", loop, run.name),
            loop=loop,
            run=run.name,
            attempt=attempt,
            outcome=outcome,
            reason=reason,
            at=to_datetime(run.at),
            version=None if outcome is Outcome.FAILED else run.version,
            rows=result.rows if result else rows,
            seconds=round(seconds, 3),
            metrics=result.metrics if result else (metrics or {}),
            gate=result.gate if result else [],
            mlflow_run=result.mlflow_run if result else None,
        )
        await self._say(event, caused_by=derived_id("started", loop, run.name, str(attempt)))
        self._metrics.runs.labels(loop, outcome.value).inc()
        self._metrics.run_seconds.labels(loop).observe(seconds)
        self._age(loop)
        log.info("run ended: %s: %s", outcome.value, reason, extra={"loop": loop, "run": run.name})

    async def _say(self, event: Event, *, caused_by: str) -> None:
        await self._patiently(lambda: self._announcer.announce(event, caused_by=caused_by))
        self.remember(event)

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """A run's news must not be lost because Kafka or a disk is away: try until it is there."""
        attempt = 0
        while True:
            try:
                return await work()
            except RetryLater as error:
                log.warning("a run waits: %s", error)
                self._metrics.announce_retries.inc()
                await asyncio.sleep(self._pause(attempt))
                attempt += 1

    def _age(self, loop: str) -> None:
        state = self.states[loop]
        if state.champion is not None and state.stream_time is not None:
            age = state.stream_time - from_datetime(state.champion.at)
            self._metrics.champion_age.labels(loop).set(age / 1e6)
