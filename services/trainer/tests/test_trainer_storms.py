"""Storms: a hundred years of verdicts, requests, trials and restarts, delivered twice and out of order. What holds, holds."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from millstream.contracts.events import (
    Decision,
    Event,
    Finding,
    LabelsMatured,
    ModelState,
    RetrainDecided,
    RetrainRequested,
    RolloutAction,
    RolloutMoved,
    RunApproved,
    Step,
    TrainingFinished,
    TrainingStarted,
    TrialFinding,
    WindowJudged,
    WindowKind,
)
from millstream.contracts.times import DAY, from_datetime
from millstream.errors import RetryLater
from millstream_trainer.domain.rollout import move
from millstream_trainer.domain.rules import Mode, Rules
from millstream_trainer.domain.run import RunResult, RunSpec
from millstream_trainer.domain.state import LoopState

from .test_trainer_rollout import STEPS
from .test_trainer_waiting import EVERY_CAUSE
from .trainer_kit import FAILED, Office, approves, judged, loses, obeyed, passes, wants

WORLD = 120
"""Days."""


def rules_of(tides: Any, chance: random.Random) -> Rules:
    return replace(  # type: ignore[no-any-return]
        tides.rules,
        causes=EVERY_CAUSE,
        grow=chance.choice([None, 0.3]),
        agree=chance.choice([1, 1, 2]),
        mature=chance.choice([0, 300]),
        mature_longest=10 * DAY,
        quiet=chance.choice([(), ((22 * 60, 6 * 60),)]),
        warm_up=chance.choice([0, 4 * DAY]),
        mode=chance.choice([Mode.AUTO, Mode.AUTO, Mode.APPROVE, Mode.SUGGEST]),
        rollout=replace(
            STEPS, longest=20 * DAY, shadow=chance.choice([0, 200]), canary=chance.choice([(), (0.1, 0.5)])
        ),
    )


class Weather:
    """What happens in `WORLD` days, from one seed: the verdicts' log and the requests' log grow as trainer reacts."""

    def __init__(self, tides: Any, seed: int) -> None:
        self.chance = random.Random(seed)
        self.tides = tides
        self.rules = rules_of(tides, self.chance)
        self.verdicts: list[Event] = []
        self.requests: list[Event] = []
        self.said: list[Event] = []
        self.office = self.opened()

    def outcome(self, spec: RunSpec) -> RunResult | str:
        return self.chance.choice([passes, passes, passes, loses, lambda spec: "the lake is behind"])(spec)

    def event(self, day: float) -> Event:
        chance, tides, state = self.chance, self.tides, self.office.trainer.states["tides"]
        version = state.champion.version if state.champion else "1"
        number = f"{day:.3f}-{chance.randrange(3)}"
        kind = chance.choice(["clock"] * 5 + ["window"] * 4 + ["trial"] * 6 + ["wish", "alert", "approve", "hold"])
        if kind == "clock":
            return tides.matured(round(day), int(400 * day))  # type: ignore[no-any-return]
        if kind == "window":
            finding = chance.choice([Finding.DETECTED, Finding.PERFORMANCE_DROP, Finding.BROKEN_DATA, Finding.HEALTHY])
            of = chance.choice(list(WindowKind))
            return tides.judged(day, finding, version=version, kind=of, id=f"w-{number}")  # type: ignore[no-any-return]
        models = state.models
        if kind == "trial" and models is not None and models.champion is not None:
            newer, older = (
                (models.challenger, models.champion) if models.challenger else (models.champion, models.previous)
            )
            if newer is not None and older is not None:
                finding = chance.choice([TrialFinding.UNDECIDED] * 5 + list(TrialFinding))
                gap = chance.uniform(-0.01, 0.003)
                pairs = models.pairs + chance.randrange(800)
                watch = models.challenger is None
                at = tides.day(day)
                return judged(at, newer.version, older.version, finding, pairs=pairs, difference=gap, watch=watch)
        if kind == "approve" and state.pending:
            return approves(chance.choice(sorted(state.pending)), id=f"go-{number}")
        if kind == "hold":
            to = chance.choice([None, *sorted(state.versions)])
            return wants(chance.choice(list(RolloutAction)), to, id=f"hold-{number}")
        cause = chance.choice(sorted(EVERY_CAUSE))
        at = chance.choice([None, tides.day(day)])
        return RetrainRequested(id=f"r-{number}", loop="tides", cause=cause, by="Bob", reason="why not", at=at)

    async def blow(self) -> None:
        day = 0.0
        working = asyncio.create_task(self.office.trainer.work())
        while day < WORLD:
            day += self.chance.uniform(0, 1)
            event = self.event(day)
            wish = isinstance(event, RetrainRequested | RunApproved) or hasattr(event, "action")
            (self.requests if wish else self.verdicts).append(event)
            late = (
                self.chance.sample(self.verdicts[-8:], min(2, len(self.verdicts))) if self.chance.random() < 0.2 else []
            )
            for one in [event, *late, *([event] if self.chance.random() < 0.2 else [])]:
                await self.deliver(one)
            if self.chance.random() < 0.05:
                revision = self.office.trainer.states["tides"].revision
                await self.office.trainer.hear_replica(obeyed(revision - 1, refused=revision, instance=f"s-{day}"))
            for _ in range(self.chance.randrange(6)):
                await asyncio.sleep(0)
            if self.chance.random() < 0.06:
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)
                await self.restart()
                working = asyncio.create_task(self.office.trainer.work())
        for _ in range(100):
            await asyncio.sleep(0)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        self.said += self.office.announcer.said

    def opened(self) -> Office:
        """An office whose Kafka is away now and then, at any word."""
        office = Office(self.rules, self.outcome)
        announce = office.announcer.announce

        async def moody(event: Event, *, caused_by: str) -> None:
            office.announcer.away = int(self.chance.random() < 0.05)
            await announce(event, caused_by=caused_by)

        office.announcer.announce = moody  # type: ignore[method-assign]
        return office

    async def deliver(self, event: Event) -> None:
        while True:
            try:
                await self.office.trainer.hear(event)  # type: ignore[arg-type]
                return
            except RetryLater:
                await asyncio.sleep(0)

    async def resumed(self) -> None:
        while True:
            try:
                return await self.office.trainer.resume()
            except RetryLater:
                await asyncio.sleep(0)

    async def restart(self) -> None:
        """As `subscribers` does it: the journal, the verdicts, the requests that wait."""
        self.said += self.office.announcer.said
        if self.said and self.chance.random() < 0.5 and isinstance(self.said[-1], ModelState):
            self.said.pop()  # killed between a step and its state
        self.office = self.opened()
        for event in self.said:
            self.office.trainer.remember(event)
        await self.resumed()
        for event in [*self.verdicts, *(one for one in self.requests if isinstance(one, RetrainRequested))]:
            await self.deliver(event)
        for event in self.requests[-2:]:
            await self.deliver(event)


def of(said: list[Event], kind: Any) -> list[Any]:
    """Each once, by its id, in order."""
    return list({event.id: event for event in said if isinstance(event, kind)}.values())


@pytest.mark.parametrize("seed", range(100))
async def test_in_any_storm_one_run_at_a_time_within_budget_one_answer_each_and_no_illegal_move(
    tides: Any, seed: int
) -> None:
    weather = Weather(tides, seed)
    await weather.blow()
    said, rules = weather.said, weather.rules
    decided = [event for event in said if isinstance(event, RetrainDecided)]
    answers = Counter(event.request for event in decided)
    assert not [request for request, count in answers.items() if count > 1]
    one_run_at_a_time(said)
    failed = {event.run for event in said if isinstance(event, TrainingFinished) and event.outcome is FAILED}
    accepted = [
        from_datetime(event.at) for event in decided if event.decision is Decision.ACCEPTED and event.run not in failed
    ]
    for at in accepted:
        assert sum(at - rules.budget_period < other <= at for other in accepted) <= rules.budget_runs
    every_request_is_answered(weather, answers)
    moves, states = of(said, RolloutMoved), of(said, ModelState)
    assert [one.revision for one in moves] == list(range(1, len(moves) + 1))
    assert [one.led_to for one in moves[: len(states)]] == states
    stands = {model.version: Step.REGISTERED for one in moves if (model := one.model) is not None}
    for one in moves:
        assert stands[one.version] is one.before
        stands[one.version] = move(one.before, one.step)
        if one.led_to.champion is not None:
            stands[one.led_to.champion.version] = Step.CHAMPION
    refolded = LoopState(loop="tides")
    for event in [*said, *said]:
        refolded = refolded.apply(event)
    assert refolded.runs == weather.office.trainer.states["tides"].runs
    assert refolded.models == weather.office.trainer.states["tides"].models


def one_run_at_a_time(said: list[Event]) -> None:
    """And no run while a challenger is on trial, which never begins while a person holds the loop."""
    open_runs: set[str] = set()
    models: ModelState | None = None
    for event in said:
        if isinstance(event, RetrainDecided) and event.decision is Decision.ACCEPTED:
            assert not open_runs, f"{event.run} was accepted while {open_runs} ran"
            assert models is None or not (models.challenger or models.frozen or models.pinned)
            open_runs.add(event.run or "")
        elif isinstance(event, RolloutMoved):
            forward = event.step in (Step.SHADOW, Step.CANARY) or (event.step is Step.CHAMPION is not event.before)
            assert not (forward and models is not None and not event.by and (models.frozen or models.pinned))
            models = event.led_to
        elif isinstance(event, TrainingStarted):
            assert event.run in open_runs
        elif isinstance(event, TrainingFinished):
            open_runs.discard(event.run)


def every_request_is_answered(weather: Weather, answers: Counter[str]) -> None:
    """All but the one that still waits; a wish on the rollout by a step or by a decision."""
    state = weather.office.trainer.states["tides"]
    waits = None if state.waiting is None else state.waiting.ask.request
    for event in [*weather.requests, *weather.verdicts]:
        asks = isinstance(event, RetrainRequested | RunApproved) or (
            isinstance(event, WindowJudged)
            and event.finding in (Finding.DETECTED, Finding.PERFORMANCE_DROP, Finding.BROKEN_DATA)
        )
        id = getattr(event, "id")  # noqa: B009
        if asks and id != waits:
            assert answers[id] == 1, event
        if isinstance(event, LabelsMatured):
            assert answers[id] <= 1


async def test_storms_are_rough_enough_to_prove_something(tides: Any) -> None:
    """What the seeds above bring about, so that none of it is held by never happening."""
    seen: Counter[str] = Counter()
    for seed in range(0, 100, 4):
        weather = Weather(tides, seed)
        await weather.blow()
        seen.update(event.decision.value for event in of(weather.said, RetrainDecided))
        seen.update(event.step.value for event in of(weather.said, RolloutMoved))
        seen["restarts"] += sum(isinstance(one, TrainingStarted) and one.attempt > 1 for one in weather.said)
        seen["waited"] += sum("days_waited" in one.numbers for one in of(weather.said, RetrainDecided))
    for what in (*Decision, *(step.value for step in Step if step is not Step.REGISTERED), "restarts", "waited"):
        assert seen[what] > 0, (what, seen)
