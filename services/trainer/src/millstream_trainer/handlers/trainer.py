"""The dispatcher: one event in, decisions, steps and runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

from millstream.contracts.events import (
    ChallengerJudged,
    Decision,
    Event,
    LabelsMatured,
    ReplicaObeyed,
    RetrainDecided,
    RetrainRequested,
    RolloutMoved,
    RolloutRequested,
    RunApproved,
    WindowJudged,
)
from millstream.contracts.times import from_datetime, now
from millstream.runtime.causes import Causes
from millstream_trainer.domain import rollout, wishes
from millstream_trainer.domain.ask import Waiting
from millstream_trainer.domain.hearing import Verdict, asked_by, heard
from millstream_trainer.domain.policy import approve, decide, overdue
from millstream_trainer.domain.replicas import Replicas
from millstream_trainer.domain.rules import Rules
from millstream_trainer.domain.state import LoopState
from millstream_trainer.errors import UnknownLoop
from millstream_trainer.handlers.journal import Journal
from millstream_trainer.handlers.promotions import Promotions
from millstream_trainer.handlers.runs import Runs
from millstream_trainer.metrics import TrainerMetrics
from millstream_trainer.ports import Announcer, Executor, Packages, StreamEnds

log = logging.getLogger(__name__)

Wish = RetrainRequested | RunApproved | RolloutRequested
Hearable = Verdict | Wish


class Trainer:
    """Its state is the fold of its own journal; `remember` it whole before anything is heard."""

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
        clock: Callable[[], int] = now,
        causes: Causes | None = None,
    ) -> None:
        """`clock` is the wall's, in microseconds: only whether replicas live is told by it. `causes`: the announcer's."""
        self.rules = rules
        self.clock = clock
        self.replicas = Replicas()
        self._journal = Journal(loops=rules, announcer=announcer, metrics=metrics, pause=pause)
        self._promotions = Promotions(journal=self._journal, replicas=self.replicas, clock=clock, show=self._show)
        self._runs = Runs(
            rules=rules,
            streams=streams,
            journal=self._journal,
            ends=ends,
            executor=executor,
            packages=packages,
            metrics=metrics,
            ended=self._show,
            live=self._live,
            promoted=self._promotions.done,
            causes=causes or Causes(),
        )

    @property
    def states(self) -> Mapping[str, LoopState]:
        return self._journal.states

    def answers(self, loop: str, request: str) -> list[RetrainDecided | RolloutMoved]:
        """What this process has said because of a request, oldest first; none where it is not decided, or not known."""
        return [event for event in self._journal.answers.get(request, []) if event.loop == loop]

    def remember(self, event: Event) -> None:
        """Fold one event of the journal or of the model states in. Loops that left the project are forgotten."""
        self._journal.remember(event)

    async def resume(self) -> None:
        """The journal is read: finish the step that was cut short, and take up the runs that never ended. Raises RetryLater."""
        for loop in self.states:
            async with self._journal.writing[loop]:
                await self._journal.settle(loop)
            self._show(loop)
        self._runs.resume()

    async def work(self) -> None:
        """Have accepted runs run, each in the background, until cancelled. An error nobody expected ends it."""
        await self._runs.work()

    async def promote(self) -> None:
        """See every promotion to its end, until cancelled."""
        await self._promotions.work()

    async def hear(self, event: Hearable) -> None:
        """Decide on one event, once. Harmless when repeated. Raises UnknownLoop, RetryLater (heard again it goes on there)."""
        loop = event.loop
        if loop not in self.states:
            raise UnknownLoop(loop, sorted(self.states))
        async with self._journal.writing[loop]:
            await self._journal.settle(loop)
            if isinstance(event, RolloutRequested):
                await self._grant(event)
            elif isinstance(event, RunApproved):
                await self._decide(loop, approve(self.states[loop], event, self.rules[loop]))
            else:
                await self._judge(event)
            self._show(loop)

    async def hear_replica(self, event: ReplicaObeyed) -> None:
        """Know what a replica obeys: end the promotion that waited for it, or take back what it refuses. Of a loop that left
        the project nothing is known."""
        loop = event.loop
        if loop not in self.states:
            return
        news = self.replicas.hear(event, self.clock())
        if not news and not (event.leaving and self._promotions.under_way(loop)):
            return
        async with self._journal.writing[loop]:
            if news:
                await self._journal.patiently(lambda: self._take_back(event))
            await self._journal.patiently(lambda: self._promotions.look(loop))
            self._show(loop)

    async def _judge(self, event: Verdict | RetrainRequested) -> None:
        loop, rules = event.loop, self.rules[event.loop]
        if isinstance(event, LabelsMatured | WindowJudged | ChallengerJudged):
            self._journal.states[loop] = heard(self.states[loop], event)
            await self._move(event)
            while (due := overdue(self.states[loop], from_datetime(event.at), rules)) is not None:
                await self._decide(loop, due)
        ask = asked_by(self.states[loop], event, rules)
        if ask is not None:
            await self._decide(loop, decide(self.states[loop], ask, rules))

    async def _move(self, event: Verdict) -> None:
        state, rules = self.states[event.loop], self.rules[event.loop].rollout
        moved = None
        if isinstance(event, ChallengerJudged):
            moved = rollout.judged(state, event, rules, live=self._live(event.loop))
        moved = moved or rollout.clocked(state, event.id, from_datetime(event.at), rules)
        if moved is not None:
            await self._journal.move(moved, caused_by=event.id)

    async def _decide(self, loop: str, outcome: RetrainDecided | Waiting | None) -> None:
        if isinstance(outcome, Waiting):
            self._journal.states[loop] = self.states[loop].wait(outcome)
            log.info("a request waits: %s", outcome.reason, extra={"loop": loop, "cause": outcome.ask.cause.value})
        elif outcome is not None:
            await self._journal.decide(outcome)
            if outcome.decision is Decision.ACCEPTED:
                self._runs.accept(loop, outcome.run or "")

    async def _grant(self, event: RolloutRequested) -> None:
        state = self.states[event.loop]
        if event.id in state.answered or rollout.move_id(event.loop, event.id) in state.moves:
            return
        refusal = wishes.refusal(state, event.action, event.to)
        if refusal is not None:
            await self._journal.decide(wishes.declined(state, event, refusal))
            return
        while (moved := wishes.requested(self.states[event.loop], event)) is not None:
            await self._journal.move(moved, caused_by=event.id)

    async def _take_back(self, event: ReplicaObeyed) -> None:
        await self._journal.settle(event.loop)
        moved = rollout.refused(self.states[event.loop], event)
        if moved is not None:
            await self._journal.move(moved, caused_by=event.id)

    def _live(self, loop: str) -> bool:
        return bool(self.replicas.live(loop, self.clock()))

    def _show(self, loop: str) -> None:
        self._journal.show(loop, self.replicas, self.clock())
