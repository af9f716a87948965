"""Storms: months of verdicts, requests, trials and restarts, delivered twice and out of order. What holds, holds.

Hypothesis draws a storm as a list of gusts, each small and by itself: one that breaks a rule is cut down to the few gusts that
it takes, and printed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from millstream.contracts.events import (
    Decision,
    Event,
    Finding,
    LabelsMatured,
    ModelState,
    Outcome,
    RetrainDecided,
    RetrainRequested,
    RolloutMoved,
    RunApproved,
    Step,
    TrainingFinished,
    TrainingStarted,
    WindowJudged,
)
from millstream.contracts.times import from_datetime
from millstream_trainer.domain import policy
from millstream_trainer.domain.rollout import move
from millstream_trainer.domain.state import LoopState

from .storm_kit import STORMS, Storm, Weather, blown

SKIES = 4
"""Seeds, so that several processes share the storms."""
EACH = settings(
    max_examples=100,
    deadline=None,
    database=None,
    print_blob=False,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def of(said: list[Event], kind: Any) -> list[Any]:
    """Each once, by its id, in order."""
    return list({event.id: event for event in said if isinstance(event, kind)}.values())


def holds(weather: Weather) -> None:
    """One run at a time, within budget, one answer each, and no illegal move."""
    said = weather.said
    decided = [event for event in said if isinstance(event, RetrainDecided)]
    answers = Counter(event.request for event in decided)
    assert not [request for request, count in answers.items() if count > 1]
    one_run_at_a_time(said)
    within_budget(weather)
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


def budget_used(weather: Weather) -> list[int]:
    """At each run that was accepted: how many are in its period, without those that failed."""
    period = weather.rules.budget_period
    failed = {one.run for one in of(weather.said, TrainingFinished) if one.outcome is Outcome.FAILED}
    accepted = [
        from_datetime(one.at)
        for one in of(weather.said, RetrainDecided)
        if one.decision is Decision.ACCEPTED and one.run not in failed
    ]
    return [sum(at - period < other <= at for other in accepted) for at in accepted]


def within_budget(weather: Weather) -> None:
    assert max(budget_used(weather), default=0) <= weather.rules.budget_runs


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


def storms(sky: int, **more: Any) -> Callable[[Callable[[Storm], None]], None]:
    """Have a function meet the storms of one seed: the same ones each time."""

    def meet(check: Callable[[Storm], None]) -> None:
        seed(sky)(settings(EACH, **more)(given(STORMS)(check)))()

    return meet


@pytest.mark.parametrize("sky", range(SKIES))
def test_in_any_storm_one_run_at_a_time_within_budget_one_answer_each_and_no_illegal_move(tides: Any, sky: int) -> None:
    @storms(sky)
    def _(storm: Storm) -> None:
        holds(blown(tides, storm))


def test_storms_are_rough_enough_to_prove_something(tides: Any) -> None:
    """What they bring about, so that none of it is held by never happening."""
    seen: Counter[str] = Counter()

    @storms(0)
    def _(storm: Storm) -> None:
        weather = blown(tides, storm)
        seen.update(event.decision.value for event in of(weather.said, RetrainDecided))
        seen.update(event.step.value for event in of(weather.said, RolloutMoved))
        seen["restarts"] += sum(isinstance(one, TrainingStarted) and one.attempt > 1 for one in weather.said)
        seen["waited"] += sum("days_waited" in one.numbers for one in of(weather.said, RetrainDecided))
        seen["budget used up"] += max(budget_used(weather), default=0) == weather.rules.budget_runs

    steps = (step.value for step in Step if step is not Step.REGISTERED)
    for what in (*Decision, *steps, "restarts", "waited", "budget used up"):
        assert seen[what] > 0, (what, seen)


@pytest.mark.parametrize(
    ("rule", "says"), [("_within_budget", "assert .* <= 4"), ("_joins_what_is_under_way", "was accepted while")]
)
def test_a_policy_without_one_of_its_rules_breaks_in_a_storm(
    tides: Any, monkeypatch: pytest.MonkeyPatch, rule: str, says: str
) -> None:
    left = tuple(one for one in policy.RULES if one.__name__ != rule)
    assert len(left) == len(policy.RULES) - 1, [one.__name__ for one in policy.RULES]
    monkeypatch.setattr(policy, "RULES", left)
    with pytest.raises(AssertionError, match=says):

        @storms(0, phases=[Phase.generate], max_examples=200)
        def _(storm: Storm) -> None:
            holds(blown(tides, storm))
