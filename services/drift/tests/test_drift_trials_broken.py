"""Two models are compared while inputs break: what was asked then says nothing of either, but that one of them fails."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from millstream.contracts.events import Finding, TrialFinding, WindowKind
from millstream.contracts.times import DAY, MINUTE, from_datetime
from millstream.contracts.topics import PREDICTIONS
from millstream_drift.adapters.memory import MemorySnapshots

from .drift_kit import JUNE, Desk, Topics, baseline
from .test_drift_trials import Answer, better, first, flights, noisy, opposite, same, told, trials

EACH = 2 * MINUTE
BEFORE, BROKEN, AFTER = 1_000, 800, 500
"""Flights: five windows, four of which most have no feature, and two and a half again."""
BREAK, WHOLE = JUNE + BEFORE * EACH, JUNE + (BEFORE + BROKEN) * EACH
END = WHOLE + AFTER * EACH
WINDOW = 200 * EACH


def through_a_break(
    answer: Answer, usual: Answer = same, *, nulls: float = 0.9, changed: bool = False, **more: Any
) -> list[Any]:
    """Both answer as usual, but for a break, in which the newer one has this answer, and the champion is wrong if `changed`."""
    return [
        *flights(BEFORE, usual, **more)[:-1],
        *flights(BROKEN, answer, start=BREAK, seed=2, nulls=nulls, changed=changed, **more)[:-1],
        *flights(AFTER, usual, start=WHOLE, seed=3, **more),
    ]


def questions(said: list[Any]) -> list[Any]:
    return [one for one in said if one[0] == PREDICTIONS.name]


@pytest.mark.parametrize(("role", "canary"), [("challenger", 0.1), ("previous", 0.0)], ids=["canary", "watch"])
async def test_what_is_answered_to_broken_inputs_is_no_shift_of_answers(role: str, canary: float) -> None:
    whole = await told(questions(through_a_break(opposite, nulls=0.1, role=role, canary=canary)))
    assert first(whole, TrialFinding.UNFIT).reason.startswith("psi "), "of whole inputs it is one"
    desk = await told(questions(through_a_break(opposite, role=role, canary=canary)))
    assert {one.finding for one in trials(desk)} == {TrialFinding.UNDECIDED}
    last = trials(desk)[-1]
    (answers,) = [check for check in last.checks if check.name == "answers"]
    left_out = BEFORE + BROKEN + AFTER - int(answers.detail.split()[-2])
    assert answers.value == 0.0, "what was counted before the first window was judged is taken back"
    assert BROKEN <= left_out <= BROKEN + 400
    assert last.questions == BEFORE + BROKEN + AFTER, "they were asked and answered"
    assert last.reason.endswith(f"; without {left_out} questions that were asked while inputs were broken")


@pytest.mark.parametrize("role", ["challenger", "previous"], ids=["trial", "watch"])
@pytest.mark.parametrize(
    ("answer", "changed", "wrongly"),
    [(noisy(1.0), False, TrialFinding.WORSE), (better, True, TrialFinding.BETTER)],
    ids=["worse", "better"],
)
async def test_pairs_of_broken_inputs_decide_nothing(
    answer: Answer, changed: bool, wrongly: TrialFinding, role: str
) -> None:
    guards = {"rollout": {"guards": {"psi": 10.0}}}
    whole = await told(through_a_break(answer, role=role, changed=changed, nulls=0.1), **guards)
    assert first(whole, wrongly).pairs < BEFORE + BROKEN, "of whole inputs they do"
    desk = await told(through_a_break(answer, role=role, changed=changed), **guards)
    last = trials(desk)[-1]
    known = [one.finding for one in trials(desk) if from_datetime(one.at) > BREAK + WINDOW]
    assert set(known) == {TrialFinding.UNDECIDED}
    assert (last.difference, last.low, last.high) == (0.0, 0.0, 0.0), "also of what was counted before it was known"
    assert BEFORE + AFTER - 200 <= last.pairs <= BEFORE + AFTER


async def test_while_inputs_are_broken_nothing_is_said_that_trainer_would_move_at() -> None:
    desk = await told(through_a_break(noisy(1.0), noisy(0.05)))
    judged = {one.at: one.finding for one in desk.verdicts if one.kind is WindowKind.INPUTS}
    since = next(from_datetime(at) for at, finding in judged.items() if finding is Finding.BROKEN_DATA)
    until = next(from_datetime(at) for at in judged if from_datetime(at) > WHOLE)
    times = [from_datetime(one.at) for one in trials(desk)]
    assert (since, until) == (BREAK + WINDOW - EACH, WHOLE + WINDOW - EACH)
    assert [at for at in times if since < at <= until] == []
    assert min(times) < BREAK < BREAK + DAY < WHOLE < max(times)
    pairs = [one.pairs for one in trials(desk) if from_datetime(one.at) > until]
    assert pairs[0] > BEFORE - 300, "it goes on with what it had"


@pytest.mark.parametrize("failure", ["raised", "not_finite", "late"])
async def test_who_fails_on_nulls_that_the_champion_answers_is_unfit(failure: str) -> None:
    said = [
        *flights(BEFORE)[:-1],
        *flights(BROKEN, start=BREAK, seed=2, nulls=0.9)[: 2 * 210],
        *flights(20, start=BREAK + 300 * EACH, nulls=0.9, fault={"output": {}, "failure": failure}),
    ]
    verdict = first(await told(said, rollout={"guards": {"failures": "0.1%"}}), TrialFinding.UNFIT)
    assert verdict.reason.startswith("10 of 1220 questions failed: ")
    assert from_datetime(verdict.at) > BREAK + WINDOW, "the break is known by then"


async def test_a_trial_that_begins_in_a_break_takes_its_inputs_as_they_are_and_no_later_ones() -> None:
    """A person had it trained on what seems broken to the champion: else such a world would never have a new model."""
    began = BREAK + 2 * WINDOW
    said = [
        (topic, msgspec.structs.replace(event, other=None) if topic == PREDICTIONS.name and at < began else event, at)
        for topic, event, at in through_a_break(better, same, changed=True)[:-1]
    ]
    found = first(await told(said), TrialFinding.BETTER)
    assert (found.pairs < 400, from_datetime(found.at) < WHOLE) == (True, True)
    said += flights(BROKEN, opposite, start=END, seed=4, nulls=0.9)
    verdicts = trials(await told(said))
    assert TrialFinding.WORSE not in {one.finding for one in verdicts}
    assert 600 < verdicts[-1].pairs <= 400 + AFTER


def promoted_in_a_break(during: Answer, after: Answer = same) -> list[Any]:
    """Version 1 alone until the second broken window of its own is judged; then version 2 in its place, watched from its first
    question on. Long after the break is mended the data break once more, and who answers `after` does so then."""
    began = BREAK + 2 * WINDOW
    alone = [*flights(BEFORE)[:-1], *flights(400, start=BREAK, seed=2, nulls=0.9)[:-1]]
    return [
        *((topic, msgspec.structs.replace(one, other=None) if topic == PREDICTIONS.name else one, at)
          for topic, one, at in alone),
        *flights(BROKEN, during, start=began, seed=3, nulls=0.9, role="previous")[:-1],
        *flights(AFTER, start=began + BROKEN * EACH, seed=4, role="previous")[:-1],
        *flights(BROKEN, after, start=began + (BROKEN + AFTER) * EACH, seed=5, nulls=0.9, role="previous"),
    ]  # fmt: skip


async def test_a_watch_that_begins_in_a_known_break_takes_its_inputs_as_they_are_and_no_later_ones() -> None:
    """A person had it trained, and trainer makes its watch no longer: were it blind, nobody would take a bad model back."""
    found = first(await told(promoted_in_a_break(noisy(1.0))), TrialFinding.WORSE)
    assert (found.watch, from_datetime(found.at) < BREAK + 2 * WINDOW + BROKEN * EACH) == (True, True)
    verdicts = trials(await told(promoted_in_a_break(same, noisy(1.0))))
    assert {one.finding for one in verdicts} == {TrialFinding.UNDECIDED}
    assert BROKEN + AFTER - 200 <= verdicts[-1].pairs <= BROKEN + AFTER


@pytest.mark.parametrize("seed", range(3))
async def test_order_and_restarts_change_nothing_of_a_trial_through_a_break(seed: int) -> None:
    said = through_a_break(noisy(1.0), noisy(0.2), canary=0.3)
    gate: dict[str, Any] = {"gate": {"slices": ["carrier"]}}
    whole = trials(await told(said, **gate))
    assert len(whole) > 3
    assert trials(await told(said, most=300, seed=seed, **gate)) == whole
    topics, store, found = Topics().add(said), MemorySnapshots(), []
    read = 1
    while read:
        desk = Desk(topics, store, **gate)
        desk.models.known["flight-delay", "2"] = baseline("2")
        await desk.start()
        before = sum(desk.next.values())
        for place in sorted(topics.records):
            await desk.read(place, 200 + 50 * seed)
        await desk.judging.save()
        found += trials(desk)
        read = sum(desk.next.values()) - before
    assert found == whole
