"""Accepted runs: each is run once at a time, told in order, and taken up again after a restart."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime

from millstream.contracts.envelope import derived_id
from millstream.contracts.events import Cause, ModelRef, Outcome, Step, TrainingFinished, TrainingStarted, WindowKind
from millstream.contracts.package import BadPackage
from millstream.contracts.times import to_datetime
from millstream.runtime.causes import Causes
from millstream.runtime.tracing import current_traceparent, span
from millstream_trainer.domain import rollout
from millstream_trainer.domain.broken import left_out
from millstream_trainer.domain.rules import Rules
from millstream_trainer.domain.run import RunResult, RunSpec
from millstream_trainer.domain.state import Run
from millstream_trainer.errors import RunFailed
from millstream_trainer.handlers.journal import Journal
from millstream_trainer.metrics import TrainerMetrics
from millstream_trainer.ports import Executor, Packages, StreamEnds

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
"""A run whose trainer died three times in the middle of it is probably what killed it (memory): it counts as failed."""


class Runs:
    """From an accepted run to its end. A run is told through the journal, whatever is away meanwhile."""

    def __init__(
        self,
        *,
        rules: Mapping[str, Rules],
        streams: Iterable[str],
        journal: Journal,
        ends: StreamEnds,
        executor: Executor,
        packages: Packages,
        metrics: TrainerMetrics,
        ended: Callable[[str], None],
        live: Callable[[str], bool],
        promoted: Callable[[str], Awaitable[None]],
        causes: Causes,
    ) -> None:
        """`promoted` returns once no promotion of the loop is under way."""
        self._rules = rules
        self._streams = sorted(streams)
        self._journal = journal
        self._ends = ends
        self._executor = executor
        self._packages = packages
        self._metrics = metrics
        self._ended = ended
        self._live = live
        self._promoted = promoted
        self._causes = causes
        self._accepted: asyncio.Queue[tuple[str, Run]] = asyncio.Queue()
        """Bounded by the loops: each has one run under way at most."""

    def resume(self) -> None:
        """Take up the runs that were accepted and never ended."""
        for loop, state in self._journal.states.items():
            if state.running is not None:
                log.info("taking up a run that did not end", extra={"loop": loop, "run": state.running.name})
                self._accepted.put_nowait((loop, state.running))

    def accept(self, loop: str, name: str) -> None:
        """Have the run of a decision that was just remembered run."""
        run = self._journal.states[loop].run(name)
        assert run is not None, "the decision was just remembered"
        self._accepted.put_nowait((loop, run))

    async def work(self) -> None:
        """Have accepted runs run, each in the background, until cancelled. An error nobody expected ends it."""
        async with asyncio.TaskGroup() as runs:
            while True:
                loop, run = await self._accepted.get()
                runs.create_task(self._run(loop, run), name=f"run {run.name}")

    async def _run(self, loop: str, run: Run) -> None:
        about = {"millstream.loop": loop, "millstream.run": run.name}
        with span(f"run {loop}", root=True, links=[self._causes.of(run.decision)], about=about):
            await self._to_its_end(loop, run)

    async def _to_its_end(self, loop: str, run: Run) -> None:
        model, outcome = self._moved(loop, run)
        if model is not None:
            await self._finish_moved(loop, run, model, outcome)
            return
        # A run that went on without its trainer is the same attempt, however often the trainer restarts meanwhile.
        attempt = max(run.attempt, 1) if self._executor.outlives else run.attempt + 1
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
        outcome, reason = Outcome.REJECTED, result.reason
        if result.passed:
            # Before TrainingFinished: who reads that a run has ended may rely on the model state that came of it.
            # A crash in between repeats neither the run nor the record: the journal then knows the step of this run.
            outcome, reason = await self._enter(loop, run, result, caused_by=started.id)
        seconds = time.monotonic() - began
        await self._finish(loop, run, attempt=attempt, outcome=outcome, reason=reason, seconds=seconds, result=result)

    async def _enter(self, loop: str, run: Run, result: RunResult, *, caused_by: str) -> tuple[Outcome, str]:
        """Put a model that passed the gate on trial, or have it answer at once."""
        rules, journal = self._rules[loop].rollout, self._journal
        # The state of a trial would hide which of its two models a replica refuses to promote. It waits a minute at most, and
        # no further promotion can begin meanwhile: nobody else is on trial while a run is under way.
        await self._promoted(loop)
        async with journal.writing[loop]:
            await journal.patiently(lambda: journal.settle(loop))
            moved = rollout.entered(
                journal.states[loop], result.model, rules, at=run.at, reason=result.reason, live=self._live(loop)
            )
            if moved is None:
                return Outcome.REJECTED, f"it passed the gate, but a person holds the loop meanwhile: {result.reason}"
            await journal.patiently(lambda: journal.move(moved, caused_by=caused_by))
        return self._outcome(moved.step), result.reason

    def _moved(self, loop: str, run: Run) -> tuple[ModelRef | None, Outcome]:
        """The model of a run whose step was said before the trainer ended, and what that made of it."""
        state = self._journal.states[loop]
        known = state.run(run.name) or run
        if known.entered is not None:
            return state.versions[run.version], self._outcome(known.entered)
        champion = state.champion  # journals of the first release have no steps
        return (champion if champion is not None and champion.run == run.name else None), Outcome.PROMOTED

    @staticmethod
    def _outcome(entered: Step) -> Outcome:
        return Outcome.PROMOTED if entered is Step.CHAMPION else Outcome.ON_TRIAL

    async def _spec(self, loop: str, run: Run, attempt: int) -> RunSpec:
        positions = await self._journal.patiently(lambda: self._ends.ends(self._streams))
        state = self._journal.states[loop]
        # A person who brings a model has not looked at the data.
        looked = [known.at for known in state.runs if known.cause is Cause.MANUAL and known.given is None]

        def spells(kind: WindowKind) -> tuple[tuple[datetime, datetime], ...]:
            found = left_out(state.spells.get(kind, ()), looked, run.at)
            return tuple((to_datetime(start), to_datetime(end)) for start, end in found)

        return RunSpec(
            loop=loop,
            run=run.name,
            attempt=attempt,
            version=run.version,
            at=to_datetime(run.at),
            cause=run.cause,
            request=run.request,
            positions=positions,
            champion=state.champion,
            changed_at=run.changed_at,
            given=run.given,
            broken=spells(WindowKind.INPUTS),
            broken_labels=spells(WindowKind.PERFORMANCE),
            traceparent=current_traceparent(),
        )

    async def _finish_moved(self, loop: str, run: Run, model: ModelRef, outcome: Outcome) -> None:
        """The model's step was said and then the trainer ended: only the end of the run remains to be said."""
        try:
            manifest = await self._journal.patiently(lambda: asyncio.to_thread(self._packages.manifest, model))
            metrics, rows = manifest.metrics, manifest.lineage.train_rows
        except BadPackage as error:
            log.error("the package cannot be read: %s", error, extra={"loop": loop, "run": run.name})
            metrics, rows = {}, 0
        stands = "was promoted" if outcome is Outcome.PROMOTED else "went on trial"
        reason = f"version {model.version} {stands}; the trainer restarted before it could say so"
        await self._finish(loop, run, attempt=run.attempt, outcome=outcome, reason=reason, rows=rows, metrics=metrics)

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
        self._ended(loop)
        log.info("run ended: %s: %s", outcome.value, reason, extra={"loop": loop, "run": run.name})

    async def _say(self, event: TrainingStarted | TrainingFinished, *, caused_by: str) -> None:
        await self._journal.patiently(lambda: self._journal.say(event, caused_by=caused_by))
