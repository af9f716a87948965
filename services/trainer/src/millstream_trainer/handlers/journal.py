"""The loops' states and the only way to change them: say it first, then remember it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from millstream.contracts.events import Event, RetrainDecided, RolloutMoved
from millstream.contracts.times import from_datetime
from millstream.errors import RetryLater
from millstream_trainer.domain.replicas import Replicas
from millstream_trainer.domain.state import LoopState
from millstream_trainer.metrics import TrainerMetrics
from millstream_trainer.ports import Announcer

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_ANSWERED = 1000
"""Requests whose answers are kept for who asks over HTTP, within the minute after it asked; the journal has them all."""


class Journal:
    """Verdicts, runs that end and replicas all move a loop: whoever does holds `writing` of the loop meanwhile, so that each
    sees the state that the one before left, and revisions grow by one."""

    def __init__(
        self, *, loops: Iterable[str], announcer: Announcer, metrics: TrainerMetrics, pause: Callable[[int], float]
    ) -> None:
        self.states: dict[str, LoopState] = {loop: LoopState(loop=loop) for loop in loops}
        self.writing: dict[str, asyncio.Lock] = {loop: asyncio.Lock() for loop in self.states}
        self.answers: dict[str, list[RetrainDecided | RolloutMoved]] = {}
        """What was said because of a request, by its id, oldest first; of this process."""
        self._announcer = announcer
        self._metrics = metrics
        self._pause = pause

    def remember(self, event: Event) -> None:
        """Fold one event of the journal or of the model states in. Loops that left the project are forgotten."""
        loop = getattr(event, "loop", "")
        if loop in self.states:
            self.states[loop] = self.states[loop].apply(event)

    async def say(self, event: Event, *, caused_by: str) -> None:
        """Raises RetryLater: then it may have been said, and saying it again is harmless."""
        await self._announcer.announce(event, caused_by=caused_by)
        self.remember(event)
        if isinstance(event, RetrainDecided | RolloutMoved):
            self.answers.setdefault(caused_by, []).append(event)
            while len(self.answers) > MOST_ANSWERED:
                del self.answers[next(iter(self.answers))]

    async def decide(self, decided: RetrainDecided) -> None:
        """Say a decision. Raises RetryLater."""
        await self.say(decided, caused_by=decided.request)
        self._metrics.decisions.labels(decided.loop, decided.cause.value, decided.decision.value).inc()
        more = {"loop": decided.loop, "cause": decided.cause.value, "run": decided.run}
        log.info("%s: %s", decided.decision.value, decided.reason, extra=more)

    async def move(self, moved: RolloutMoved, *, caused_by: str) -> None:
        """Say a step of the rollout, and the model state that it leads to. Raises RetryLater; `settle` finishes it then."""
        if moved.id not in self.states[moved.loop].moves:
            await self.say(moved, caused_by=caused_by)
            self._metrics.moves.labels(moved.loop, moved.step.value).inc()
            more = {"loop": moved.loop, "version": moved.version, "share": moved.share}
            log.info("%s → %s: %s", moved.before.value, moved.step.value, moved.reason, extra=more)
        await self.settle(moved.loop)

    async def settle(self, loop: str) -> None:
        """Publish the model state that the journal has announced, where that was cut short. Raises RetryLater."""
        state = self.states[loop]
        if state.unfinished is not None and state.last_move is not None:
            await self.say(state.unfinished, caused_by=state.last_move.id)

    async def patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """A run's news must not be lost because Kafka or a disk is away: try until it is there."""
        attempt = 0
        while True:
            try:
                return await work()
            except RetryLater as error:
                log.warning("news waits: %s", error)
                self._metrics.announce_retries.inc()
                await asyncio.sleep(self._pause(attempt))
                attempt += 1

    def show(self, loop: str, replicas: Replicas, now: int) -> None:
        """Bring the loop's gauges up to date."""
        state, metrics, models = self.states[loop], self._metrics, self.states[loop].models
        if state.champion is not None and state.stream_time is not None:
            age = state.stream_time - from_datetime(state.champion.at)
            metrics.champion_age.labels(loop).set(age / 1e6)
        metrics.on_trial.labels(loop).set(state.challenger is not None)
        metrics.share.labels(loop).set(0.0 if models is None else models.share)
        metrics.held.labels(loop).set(models is not None and bool(models.frozen or models.pinned))
        metrics.waiting.labels(loop).set(len(state.pending) + (state.waiting is not None))
        live = replicas.live(loop, now)
        metrics.replicas.labels(loop).set(len(live))
        metrics.replicas_behind.labels(loop).set(sum(one.revision < state.revision for one in live))
