"""Runs that wait for a person's word: approved, refused for now, expired. Whoever asks reads what came of it, and why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from millstream.contracts.events import Cause, Decision, Finding
from millstream.contracts.times import from_datetime
from millstream_trainer.domain.rules import Mode, Rules
from millstream_trainer.domain.state import LoopState

from .test_trainer_waiting import EVERY_CAUSE, served
from .trainer_kit import PROMOTED, Desk, approves


@pytest.fixture
def rules(tides: Any) -> Rules:
    return replace(tides.rules, causes=EVERY_CAUSE)  # type: ignore[no-any-return]


def test_what_waits_for_approval_is_joined_approved_once_and_keeps_its_cause(rules: Rules, tides: Any) -> None:
    desk = served(rules, tides, mode=Mode.APPROVE)
    pending = desk.hears(tides.judged(20, id="drift"))
    assert pending is not None
    assert pending.run is not None
    joined = desk.hears(tides.judged(21, id="more"))
    assert joined is not None
    assert joined.decision is Decision.COALESCED
    accepted = desk.hears(approves(pending.run))
    assert accepted is not None
    assert (accepted.decision, accepted.run, accepted.cause) == (Decision.ACCEPTED, pending.run, Cause.DRIFT)
    assert accepted.changed_at == tides.day(19)
    run = desk.state.running
    assert run is not None
    assert (run.request, run.at, run.version) == ("drift", from_datetime(tides.day(21)), "2")
    assert desk.hears(approves(pending.run)) is None
    twice = desk.hears(approves(pending.run, id="twice"))
    assert twice is not None
    assert (twice.decision, twice.reason) == (Decision.DECLINED, f"run {pending.run} is under way")


@pytest.mark.parametrize(
    ("by_machine", "takes"), [(True, "leaves out what is known to be"), (False, "learns from them as they are")]
)
def test_who_has_a_run_made_while_inputs_are_broken_is_told_what_it_takes(
    rules: Rules, tides: Any, by_machine: bool, takes: str
) -> None:
    desk = served(rules, tides, mode=Mode.APPROVE)
    pending = desk.hears(tides.judged(20))
    assert pending is not None
    desk.hears(tides.judged(21.5, Finding.BROKEN_DATA))
    accepted = desk.hears(approves(pending.run or "") if by_machine else tides.wish("ada", 21.5))
    assert accepted is not None
    assert accepted.decision is Decision.ACCEPTED
    assert accepted.reason.endswith(f" (inputs are broken since 2013-01-21 12:00; this run {takes})")


def test_nobody_approves_past_the_budget(rules: Rules, tides: Any) -> None:
    desk = served(rules, tides, mode=Mode.APPROVE, budget_runs=2)
    pending = desk.hears(tides.judged(20))
    assert pending is not None
    desk.hears(tides.wish("ada", 20.5))
    desk.ends(PROMOTED)
    declined = desk.hears(approves(pending.run or ""))
    assert declined is not None
    assert declined.decision is Decision.DECLINED
    assert declined.reason == (
        "Ada approved it, but 2 runs within 30.0 days, the budget is 2: detected on day 20; "
        f"approve run {pending.run} again when that is over, it waits until 2013-01-23 00:00"
    )


def waiting_behind_another(rules: Rules, tides: Any) -> tuple[Desk, str, str]:
    """A run that waits for a person's word, and the name of one of Carla's that is under way."""
    desk = served(rules, tides, mode=Mode.APPROVE)
    pending = desk.hears(tides.judged(20, id="drift"))
    desk.hears(tides.wish("carla", 20.5))
    under_way = desk.state.running
    assert pending is not None
    assert under_way is not None
    return desk, pending.run or "", under_way.name


def test_an_approval_that_cannot_start_its_run_is_declined_and_may_be_given_again(rules: Rules, tides: Any) -> None:
    desk, run, under_way = waiting_behind_another(rules, tides)
    early = desk.hears(approves(run, id="early"))
    assert early is not None
    assert (early.decision, early.run, early.request) == (Decision.DECLINED, run, "early")
    assert early.reason == (
        f"Ada approved it, but run {under_way} is under way: detected on day 20; "
        f"approve run {run} again when that is over, it waits until 2013-01-23 00:00"
    )
    assert list(desk.state.pending) == [run]
    desk.ends(PROMOTED)
    later = desk.hears(approves(run, id="later"))
    assert later is not None
    assert (later.decision, later.run, later.cause) == (Decision.ACCEPTED, run, Cause.DRIFT)
    assert not desk.state.refused


def test_a_run_that_expires_after_such_an_approval_says_who_gave_it_and_what_was_in_the_way(
    rules: Rules, tides: Any
) -> None:
    desk, run, under_way = waiting_behind_another(rules, tides)
    desk.hears(tides.judged(21, Finding.HEALTHY))
    desk.hears(approves(run))
    journal = list(desk.decisions)
    desk.ends(PROMOTED)
    expired = desk.hears(tides.judged(22, Finding.HEALTHY))
    assert expired is not None
    assert (expired.decision, expired.run) == (Decision.EXPIRED, run)
    assert expired.reason == (
        f"run {run} did not start by 2013-01-23 00:00: on 2013-01-22 00:00 Ada approved it, "
        f"but run {under_way} is under way: detected on day 20"
    )
    again = desk.hears(approves(run, id="too late"))
    assert again is not None
    assert again.reason == f"run {run} expired; ask for a retrain"
    successor = LoopState(loop="tides")
    for decided in journal:
        successor = successor.apply(decided)
    assert successor.refused.keys() == {run}, "a restart knows it from the journal"


def test_a_challenger_on_trial_is_in_the_way_of_an_approval(rules: Rules, tides: Any) -> None:
    trial = replace(rules.rollout, shadow=200)
    desk = served(rules, tides, mode=Mode.APPROVE, rollout=trial)
    pending = desk.hears(tides.judged(20))
    assert pending is not None
    desk.hears(tides.wish("carla", 20.5))
    desk.ends(PROMOTED)
    assert desk.state.challenger is not None
    declined = desk.hears(approves(pending.run or ""))
    assert declined is not None
    assert declined.decision is Decision.DECLINED
    assert declined.reason.startswith("Ada approved it, but version 2 is on trial: detected on day 20; approve run ")


def test_an_approval_of_a_run_that_nobody_asked_for_names_those_that_wait(rules: Rules, tides: Any) -> None:
    decided = served(rules, tides).hears(approves("nonesuch"))
    assert decided is not None
    assert decided.reason == "no run 'nonesuch' waits for approval; waiting: none"
