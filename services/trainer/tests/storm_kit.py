"""Storms for the trainer's tests: what may happen to a loop in some months, as Hypothesis draws it, and a trainer in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import strategies as st

from millstream.contracts.events import (
    Cause,
    Event,
    Finding,
    ModelState,
    RetrainRequested,
    RolloutAction,
    RunApproved,
    TrialFinding,
    WindowKind,
)
from millstream.contracts.quiet import Quiet
from millstream.contracts.times import DAY
from millstream.errors import RetryLater
from millstream_trainer.domain.rules import Mode, Rules
from millstream_trainer.domain.run import RunResult, RunSpec
from millstream_trainer.domain.state import LoopState

from .test_trainer_rollout import STEPS
from .test_trainer_waiting import EVERY_CAUSE
from .trainer_kit import Office, approves, judged, loses, obeyed, passes, wants

FAILS = "the lake is behind"
ENDS: dict[str, Callable[[RunSpec], RunResult | str]] = {"passes": passes, "loses": loses, "fails": lambda spec: FAILS}


@dataclass(frozen=True, kw_only=True)
class Climate:
    """What the loop's file says."""

    grow: float | None
    agree: int
    mature: int
    quiet: bool
    warm_up: int
    mode: Mode
    shadow: int
    canary: tuple[float, ...]
    ends: tuple[str, ...]
    """How runs end, over and over."""

    def rules(self, tides: Any) -> Rules:
        return replace(  # type: ignore[no-any-return]
            tides.rules,
            causes=EVERY_CAUSE,
            grow=self.grow,
            agree=self.agree,
            mature=self.mature,
            mature_longest=10 * DAY,
            quiet=Quiet(hours=((22 * 60, 6 * 60),) if self.quiet else ()),
            warm_up=self.warm_up,
            mode=self.mode,
            rollout=replace(STEPS, longest=20 * DAY, shadow=self.shadow, canary=self.canary),
        )


@dataclass(frozen=True, kw_only=True)
class Clock:
    """A day is over."""


@dataclass(frozen=True, kw_only=True)
class Window:
    finding: Finding
    kind: WindowKind


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Of whoever is on trial or on watch; where nobody is, it is a wish."""

    finding: TrialFinding
    thousandths: int
    """Mean loss of the newer one minus the older one's."""
    pairs: int
    """More than before."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    cause: Cause
    dated: bool


@dataclass(frozen=True, kw_only=True)
class Approval:
    """Of one of those that wait; where none does, it is a wish."""

    which: int


@dataclass(frozen=True, kw_only=True)
class Hold:
    action: RolloutAction
    to: int
    """Which of the versions that were ever known; 0: none is named."""


A_WISH = Wish(cause=Cause.MANUAL, dated=False)
Happening = Clock | Window | Trial | Wish | Approval | Hold


@dataclass(frozen=True, kw_only=True)
class Gust:
    """One thing that happens, and how it is delivered."""

    hours: int
    """After the one before."""
    what: Happening
    number: int
    """Of a few: two gusts of one time and number have one id."""
    twice: bool
    late: tuple[int, ...]
    """How far back are verdicts that come again after it."""
    away: int
    """How many of the trainer's next words find Kafka away."""
    refused: bool
    """A replica refuses the newest state."""
    turns: int
    """Of the event loop, before the next gust."""
    restart: bool
    torn: bool
    """The restart is between a step and its state, where the last word allows that."""


@dataclass(frozen=True, kw_only=True)
class Storm:
    climate: Climate
    gusts: tuple[Gust, ...]


CLIMATES = st.builds(
    Climate,
    grow=st.sampled_from([None, 0.3]),
    agree=st.sampled_from([1, 1, 2]),
    mature=st.sampled_from([0, 300]),
    quiet=st.booleans(),
    warm_up=st.sampled_from([0, 4 * DAY]),
    mode=st.sampled_from([Mode.AUTO, Mode.AUTO, Mode.AUTO, Mode.APPROVE, Mode.SUGGEST]),
    shadow=st.sampled_from([0, 200]),
    canary=st.sampled_from([(), (0.1, 0.5)]),
    ends=st.lists(st.sampled_from(["passes", "passes", *ENDS]), min_size=1, max_size=6).map(tuple),
)
WINDOWS = st.builds(
    Window,
    finding=st.sampled_from([Finding.DETECTED, Finding.PERFORMANCE_DROP, Finding.BROKEN_DATA, Finding.HEALTHY]),
    kind=st.sampled_from(list(WindowKind)),
)
TRIALS = st.builds(
    Trial,
    finding=st.sampled_from([*[TrialFinding.UNDECIDED] * 4, TrialFinding.BETTER, *TrialFinding]),
    thousandths=st.integers(-10, 3),
    pairs=st.integers(0, 800),
)
WISHES = st.builds(Wish, cause=st.sampled_from(sorted(EVERY_CAUSE)), dated=st.booleans())
HOLDS = st.builds(Hold, action=st.sampled_from(list(RolloutAction)), to=st.integers(0, 3))
HAPPENINGS = st.one_of(
    *[st.just(Clock())] * 4,
    *[WINDOWS] * 3,
    *[TRIALS] * 5,
    *[WISHES] * 2,
    st.builds(Approval, which=st.integers(0, 2)),
    HOLDS,
)


def seldom(one_in: int) -> st.SearchStrategy[bool]:
    return st.integers(0, one_in - 1).map(lambda drawn: drawn == one_in - 1)


GUSTS = st.none() | st.builds(
    Gust,
    hours=st.integers(0, 48),
    what=HAPPENINGS,
    number=st.integers(0, 2),
    twice=seldom(5),
    late=st.one_of(*[st.just(())] * 4, st.tuples(st.integers(1, 8), st.integers(1, 8))),
    away=st.sampled_from([0, 0, 0, 0, 0, 0, 0, 1, 2]),
    refused=seldom(20),
    turns=st.integers(0, 5),
    restart=seldom(16),
    torn=st.booleans(),
)
STORMS = st.builds(
    Storm,
    climate=CLIMATES,
    gusts=st.lists(GUSTS, min_size=60, max_size=120).map(lambda gusts: tuple(one for one in gusts if one is not None)),
)
"""Long enough for a first model, a trial and what follows. One that is cut down gets calm instead, which is left out."""


class Weather:
    """A storm over one trainer: the verdicts' log and the requests' log grow as it reacts."""

    def __init__(self, tides: Any, storm: Storm) -> None:
        self.tides, self.storm = tides, storm
        self.rules = storm.climate.rules(tides)
        self.verdicts: list[Event] = []
        self.requests: list[Event] = []
        self.said: list[Event] = []
        self.begun = 0
        self.office = Office(self.rules, self.outcome)

    def outcome(self, spec: RunSpec) -> RunResult | str:
        ends = self.storm.climate.ends
        self.begun += 1
        return ENDS[ends[self.begun % len(ends)]](spec)

    def event(self, gust: Gust, day: float) -> Event:
        tides, state, what = self.tides, self.office.trainer.states["tides"], gust.what
        number = f"{day:.3f}-{gust.number}"
        if isinstance(what, Clock):
            return tides.matured(round(day), int(400 * day))  # type: ignore[no-any-return]
        if isinstance(what, Window):
            version = state.champion.version if state.champion else "1"
            return tides.judged(day, what.finding, version=version, kind=what.kind, id=f"w-{number}")  # type: ignore[no-any-return]
        if isinstance(what, Trial) and (trial := self.trial(what, state, day)) is not None:
            return trial
        if isinstance(what, Approval) and state.pending:
            waiting = sorted(state.pending)
            return approves(waiting[what.which % len(waiting)], id=f"go-{number}")
        if isinstance(what, Hold):
            named = [None, *sorted(state.versions)]
            return wants(what.action, named[what.to % len(named)], id=f"hold-{number}")
        wish = what if isinstance(what, Wish) else A_WISH
        at = tides.day(day) if wish.dated else None
        return RetrainRequested(id=f"r-{number}", loop="tides", cause=wish.cause, by="Bob", reason="why not", at=at)

    def trial(self, what: Trial, state: LoopState, day: float) -> Event | None:
        models = state.models
        if models is None or models.champion is None:
            return None
        newer, older = (models.challenger, models.champion) if models.challenger else (models.champion, models.previous)
        if newer is None or older is None:
            return None
        return judged(
            self.tides.day(day),
            newer.version,
            older.version,
            what.finding,
            pairs=models.pairs + what.pairs,
            difference=what.thousandths / 1000,
            watch=models.challenger is None,
        )

    async def blow(self) -> None:
        hours = 0
        working = asyncio.create_task(self.office.trainer.work())
        for gust in self.storm.gusts:
            hours += gust.hours
            event = self.event(gust, hours / 24)
            wish = isinstance(event, RetrainRequested | RunApproved) or hasattr(event, "action")
            (self.requests if wish else self.verdicts).append(event)
            late = [self.verdicts[-back] for back in gust.late if back <= len(self.verdicts)]
            self.office.announcer.away = gust.away
            for one in [event, *late, *[event] * gust.twice]:
                await self.deliver(one)
            if gust.refused:
                revision = self.office.trainer.states["tides"].revision
                await self.office.trainer.hear_replica(obeyed(revision - 1, refused=revision, instance=f"s-{hours}"))
            for _ in range(gust.turns):
                await asyncio.sleep(0)
            if gust.restart:
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)
                await self.restart(torn=gust.torn)
                working = asyncio.create_task(self.office.trainer.work())
        for _ in range(100):
            await asyncio.sleep(0)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        self.said += self.office.announcer.said

    async def deliver(self, event: Event) -> None:
        while True:
            try:
                await self.office.trainer.hear(event)  # type: ignore[arg-type]
                return
            except RetryLater:
                await asyncio.sleep(0)

    async def restart(self, *, torn: bool) -> None:
        """As `subscribers` does it: the journal, the verdicts, the requests that wait."""
        self.said += self.office.announcer.said
        if torn and self.said and isinstance(self.said[-1], ModelState):
            self.said.pop()  # killed between a step and its state
        self.office = Office(self.rules, self.outcome)
        for event in self.said:
            self.office.trainer.remember(event)
        await self.office.trainer.resume()
        for event in [*self.verdicts, *(one for one in self.requests if isinstance(one, RetrainRequested))]:
            await self.deliver(event)
        for event in self.requests[-2:]:
            await self.deliver(event)


async def _at_once(work: Callable[..., Any], *told: Any) -> Any:
    return work(*told)


def blown(tides: Any, storm: Storm) -> Weather:
    """The weather after the storm. Threads would end when they like, and a storm that broke a rule would not break it again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "to_thread", _at_once)
        weather = Weather(tides, storm)
        asyncio.run(weather.blow())
    return weather
