"""A challenger on its way: shadow, canary, champion, on watch; and back from every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from millstream.contracts.events import (
    Decision,
    Event,
    ModelState,
    Outcome,
    RetrainDecided,
    RolloutMoved,
    Step,
    TrainingFinished,
    TrainingStarted,
    TrialFinding,
)
from millstream.contracts.times import DAY, to_datetime
from millstream.errors import RetryLater
from millstream_trainer.domain.rollout import MOVES, IllegalMove, entered, move
from millstream_trainer.domain.rules import RolloutRules
from millstream_trainer.domain.state import LoopState

from .trainer_kit import NOON, Office, judged, obeyed, ref

Until = Callable[[Callable[[], bool]], Any]
UNDECIDED, BETTER, WORSE, UNFIT = TrialFinding
STEPS = RolloutRules(shadow=1000, canary=(0.1, 0.5), step=500, longest=60 * DAY, watch=2 * DAY, tolerance=0.0)


@pytest.fixture
def office(tides: Any) -> Office:
    return Office(replace(tides.rules, rollout=STEPS))


async def on_trial(office: Office, tides: Any, until: Until) -> None:
    """Version 1 answers since day 10, version 2 is on trial since day 20."""
    async with office.at_work():
        await office.trainer.hear(tides.matured(10))
        await until(office.ended())
        await office.trainer.hear(tides.judged(20))
        await until(office.ended(2))


async def promoted(office: Office, tides: Any, until: Until) -> None:
    """Version 2 answers since day 26, and is watched."""
    await on_trial(office, tides, until)
    for day, pairs in ((22, 1000), (24, 1500), (26, 2000)):
        await office.trainer.hear(judged(tides.day(day), "2", "1", pairs=pairs))


def models(office: Office) -> ModelState:
    return office.announcer.of(ModelState)[-1]


def standing(office: Office) -> tuple[Step, str | None, str | None, float]:
    """Step, champion, challenger, share."""
    now = models(office)
    versions = [model and model.version for model in (now.champion, now.challenger)]
    return now.step, versions[0], versions[1], now.share


async def test_a_first_model_answers_at_once_and_nobody_watches_it(office: Office, tides: Any, until: Until) -> None:
    async with office.at_work():
        await office.trainer.hear(tides.matured(10))
        await until(office.ended())
    assert standing(office) == (Step.CHAMPION, "1", None, 0.0)
    assert (models(office).previous, models(office).watch_until) == (None, None)
    assert office.announcer.of(TrainingFinished)[0].outcome is Outcome.PROMOTED


async def test_a_model_that_passed_the_gate_goes_on_trial_and_its_run_says_so(
    office: Office, tides: Any, until: Until
) -> None:
    await on_trial(office, tides, until)
    assert standing(office) == (Step.SHADOW, "1", "2", 0.0)
    assert (models(office).since, models(office).pairs) == (tides.day(20), 0)
    assert office.announcer.of(TrainingFinished)[-1].outcome is Outcome.ON_TRIAL


async def test_step_by_step_to_champion_and_through_the_watch(office: Office, tides: Any, until: Until) -> None:
    await on_trial(office, tides, until)
    hear = office.trainer.hear
    await hear(judged(tides.day(21), "2", "1", pairs=999))
    assert standing(office) == (Step.SHADOW, "1", "2", 0.0)
    await hear(judged(tides.day(22), "2", "1", pairs=1000))
    assert standing(office) == (Step.CANARY, "1", "2", 0.1)
    await hear(judged(tides.day(23), "2", "1", pairs=1499))
    assert standing(office) == (Step.CANARY, "1", "2", 0.1)
    await hear(judged(tides.day(24), "2", "1", pairs=1500))
    assert (standing(office), models(office).pairs) == ((Step.CANARY, "1", "2", 0.5), 1500)
    await hear(judged(tides.day(26), "2", "1", pairs=2000))
    assert standing(office) == (Step.CHAMPION, "2", None, 0.0)
    assert models(office).previous == office.announcer.of(ModelState)[0].champion
    assert models(office).watch_until == tides.day(28)
    await hear(tides.matured(27))
    assert models(office).watch_until is not None
    await hear(judged(tides.day(27.5), "2", "1", pairs=300, watch=True))
    await hear(judged(tides.day(27.6), "2", "1", pairs=2250))  # labels of the trial go on maturing
    await hear(tides.matured(28))
    assert (standing(office)[:2], models(office).watch_until) == ((Step.CHAMPION, "2"), None)
    assert (
        models(office).reason == f"watched until {tides.day(28):%Y-%m-%d %H:%M}, on 300 labelled pairs: version 2 stays"
    )
    assert [state.revision for state in office.announcer.of(ModelState)] == [1, 2, 3, 4, 5, 6]


async def test_every_step_is_in_the_journal_before_its_state_with_numbers_cause_and_package(
    office: Office, tides: Any, until: Until
) -> None:
    await promoted(office, tides, until)
    said = [event for event in office.announcer.said if isinstance(event, RolloutMoved | ModelState)]
    for moved, state in zip(said[::2], said[1::2], strict=True):
        assert isinstance(moved, RolloutMoved)
        assert (moved.led_to, moved.revision) == (state, state.revision)
        assert office.announcer.causes[state.id] == moved.id
        assert moved.model is not None
        assert (moved.model.version, moved.model.run) == (moved.version, moved.run)
        assert moved.reason
        move(moved.before, moved.step)
    last = office.announcer.of(RolloutMoved)[-1]
    assert last.numbers == {"pairs": 2000, "difference": -0.001, "low": -0.011, "high": 0.009, "loss": 0.5}
    assert office.announcer.causes[last.id] == judged(tides.day(26), "2", "1", pairs=2000).id


async def test_better_waits_for_no_steps_end(office: Office, tides: Any, until: Until) -> None:
    await on_trial(office, tides, until)
    for day, step in ((21, 0.1), (21.5, 0.5)):
        await office.trainer.hear(judged(tides.day(day), "2", "1", BETTER, pairs=300))
        assert standing(office) == (Step.CANARY, "1", "2", step)


async def test_one_word_is_one_step_however_often_it_is_heard(office: Office, tides: Any, until: Until) -> None:
    await on_trial(office, tides, until)
    better = judged(tides.day(21), "2", "1", BETTER, pairs=300)
    for _ in range(3):
        await office.trainer.hear(better)
    assert standing(office) == (Step.CANARY, "1", "2", 0.1)


@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize("finding", [WORSE, UNFIT])
async def test_worse_or_unfit_ends_a_trial_at_any_step(
    office: Office, tides: Any, until: Until, steps: int, finding: TrialFinding
) -> None:
    await on_trial(office, tides, until)
    for day, pairs in ((21, 1000), (22, 1500))[:steps]:
        await office.trainer.hear(judged(tides.day(day), "2", "1", pairs=pairs))
    await office.trainer.hear(judged(tides.day(23), "2", "1", finding, pairs=1501))
    assert standing(office) == (Step.REJECTED, "1", None, 0.0)
    assert models(office).reason == f"{finding.value} after 1501 pairs"


@pytest.mark.parametrize(("tolerance", "step"), [(0.0, Step.REJECTED), (0.01, Step.CANARY)])
async def test_a_mean_difference_at_the_steps_end_ends_it_unless_the_loop_tolerates_it(
    office: Office, tides: Any, until: Until, tolerance: float, step: Step
) -> None:
    office = Office(replace(tides.rules, rollout=replace(STEPS, tolerance=tolerance)))
    await on_trial(office, tides, until)
    await office.trainer.hear(judged(tides.day(22), "2", "1", pairs=999, difference=0.004))
    assert standing(office)[0] is Step.SHADOW
    await office.trainer.hear(judged(tides.day(22), "2", "1", pairs=1000, difference=0.004))
    assert standing(office)[0] is step


async def test_without_a_shadow_the_canary_is_first_and_without_both_there_is_no_trial(
    tides: Any, until: Until
) -> None:
    office = Office(replace(tides.rules, rollout=replace(STEPS, shadow=0)))
    await on_trial(office, tides, until)
    assert standing(office) == (Step.CANARY, "1", "2", 0.1)
    office = Office(replace(tides.rules, rollout=replace(STEPS, shadow=0, canary=())))
    await on_trial(office, tides, until)
    assert standing(office) == (Step.CHAMPION, "2", None, 0.0)
    assert models(office).watch_until == tides.day(22)


@pytest.mark.parametrize("finding", [WORSE, UNFIT])
async def test_a_champion_that_disappoints_on_watch_goes_back(
    office: Office, tides: Any, until: Until, finding: TrialFinding
) -> None:
    await promoted(office, tides, until)
    await office.trainer.hear(judged(tides.day(27), "2", "1", finding, pairs=2100, watch=True))
    assert standing(office) == (Step.ROLLED_BACK, "1", None, 0.0)
    assert models(office).previous is None
    moved = office.announcer.of(RolloutMoved)[-1]
    assert (moved.version, moved.before, moved.step) == ("2", Step.CHAMPION, Step.ROLLED_BACK)
    assert office.trainer.states["tides"].rejected_in_a_row == 1


async def test_after_the_watch_nothing_goes_back_by_itself(office: Office, tides: Any, until: Until) -> None:
    await promoted(office, tides, until)
    await office.trainer.hear(tides.matured(29))
    await office.trainer.hear(judged(tides.day(30), "2", "1", WORSE, pairs=2100, watch=True))
    assert standing(office)[:2] == (Step.CHAMPION, "2")


async def test_a_trial_that_begins_ends_the_watch(office: Office, tides: Any, until: Until) -> None:
    office = Office(replace(tides.rules, rollout=replace(STEPS, watch=30 * DAY)))
    await promoted(office, tides, until)
    async with office.at_work():
        await office.trainer.hear(tides.judged(30, version="2"))
        await until(office.ended(3))
    assert standing(office) == (Step.SHADOW, "2", "3", 0.0)
    assert models(office).watch_until is None
    assert models(office).reason == "better; with it the watch of version 2 ends, no comparison was heard"
    await office.trainer.hear(judged(tides.day(31), "2", "1", WORSE, pairs=9, watch=True))
    assert standing(office) == (Step.SHADOW, "2", "3", 0.0)


async def test_comparisons_of_other_models_and_of_the_step_before_move_nothing(
    office: Office, tides: Any, until: Until
) -> None:
    await on_trial(office, tides, until)
    for event in (
        judged(tides.day(21), "2", "0", WORSE, pairs=2000),
        judged(tides.day(21), "3", "1", WORSE, pairs=2000),
        judged(tides.day(21), "2", "1", WORSE, pairs=2000, watch=True),
        judged(tides.day(19), "2", "1", WORSE, pairs=2000),
    ):
        await office.trainer.hear(event)
    assert standing(office) == (Step.SHADOW, "1", "2", 0.0)


async def test_a_trial_without_labels_ends_when_it_takes_too_long(office: Office, tides: Any, until: Until) -> None:
    await on_trial(office, tides, until)
    await office.trainer.hear(tides.matured(80))
    assert standing(office)[0] is Step.SHADOW
    await office.trainer.hear(tides.matured(80.1))
    assert standing(office) == (Step.REJECTED, "1", None, 0.0)
    assert models(office).reason == "no end after 60.1 days, rollout.longest is 60.0 days"


async def test_while_one_is_on_trial_every_request_joins_it(office: Office, tides: Any, until: Until) -> None:
    await on_trial(office, tides, until)
    for event in (tides.judged(30), tides.wish("ada", 30), tides.matured(51)):
        await office.trainer.hear(event)
    last = office.announcer.of(RetrainDecided)[-3:]
    assert [decided.decision for decided in last] == [Decision.COALESCED] * 3
    assert all(decided.reason.startswith("version 2 is on trial") for decided in last)


async def test_three_trials_lost_in_a_row_open_the_breaker(tides: Any, until: Until) -> None:
    office = Office(replace(tides.rules, rollout=STEPS))
    async with office.at_work():
        await office.trainer.hear(tides.matured(10))
        await until(office.ended())
        for number, day in enumerate((20, 35, 50), start=2):
            await office.trainer.hear(tides.judged(day))
            await until(office.ended(number))
            await office.trainer.hear(judged(tides.day(day + 1), str(number), "1", WORSE, pairs=300))
        await office.trainer.hear(tides.judged(65))
    assert "3 challengers in a row were rejected" in office.announcer.of(RetrainDecided)[-1].reason


async def test_events_heard_again_after_a_restart_move_nothing(office: Office, tides: Any, until: Until) -> None:
    await promoted(office, tides, until)
    await office.trainer.hear(tides.matured(28))
    successor = office.restarted()
    await successor.trainer.resume()
    for day, pairs, finding in ((20.5, 300, UNDECIDED), (22, 1000, UNDECIDED), (24, 1500, BETTER), (26, 2000, BETTER)):
        await successor.trainer.hear(judged(tides.day(day), "2", "1", finding, pairs=pairs))
    await successor.trainer.hear(tides.matured(28))
    assert not successor.announcer.of(RolloutMoved)
    assert successor.trainer.states["tides"].models == models(office)


def cuts(said: list[Event]) -> list[int]:
    """Where the journal may break: after each step whose state is not there yet."""
    return [position + 1 for position, event in enumerate(said) if isinstance(event, RolloutMoved)]


async def test_a_step_without_its_state_is_finished_by_the_successor_with_the_same_record(
    office: Office, tides: Any, until: Until
) -> None:
    await promoted(office, tides, until)
    said = office.announcer.said
    for cut in cuts(said):
        successor = office.restarted(said=said[:cut])
        await successor.trainer.resume()
        assert successor.announcer.of(ModelState) == [said[cut]]
        assert not successor.announcer.of(RolloutMoved)


async def test_a_restart_between_trial_and_the_runs_end_trains_nothing_and_says_on_trial(
    office: Office, tides: Any, until: Until
) -> None:
    await on_trial(office, tides, until)
    said = office.announcer.said[:-1]
    for cut in (len(said), len(said) - 1):  # with and without the model state
        successor = office.restarted(said=said[:cut])
        await successor.trainer.resume()
        async with successor.at_work():
            await until(successor.ended())
        (finished,) = successor.announcer.of(TrainingFinished)
        assert (finished.outcome, finished.version) == (Outcome.ON_TRIAL, "2")
        assert not successor.announcer.of(TrainingStarted)
        assert standing(successor)[0] is Step.SHADOW if cut < len(said) else not successor.announcer.of(ModelState)


async def test_kafka_away_in_the_middle_of_a_step_finishes_it_when_the_event_comes_again(
    office: Office, tides: Any, until: Until
) -> None:
    await on_trial(office, tides, until)
    real, calls = office.announcer.announce, 0

    async def once(event: Event, *, caused_by: str) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RetryLater("Kafka is away")
        await real(event, caused_by=caused_by)

    office.announcer.announce = once  # type: ignore[method-assign]
    event = judged(tides.day(22), "2", "1", pairs=1000)
    with pytest.raises(RetryLater):
        await office.trainer.hear(event)
    assert standing(office)[0] is Step.SHADOW
    await office.trainer.hear(event)
    assert standing(office) == (Step.CANARY, "1", "2", 0.1)
    assert len(office.announcer.of(RolloutMoved)) == 3


async def test_a_replica_that_refuses_a_trial_ends_it(office: Office, tides: Any, until: Until) -> None:
    await on_trial(office, tides, until)
    await office.trainer.hear_replica(obeyed(1, refused=2))
    assert standing(office) == (Step.REJECTED, "1", None, 0.0)
    assert models(office).reason == "replica serving-0 cannot obey revision 2: its hash is wrong"


async def test_a_replica_that_refuses_a_promotion_takes_it_back(office: Office, tides: Any, until: Until) -> None:
    await promoted(office, tides, until)
    await office.trainer.hear_replica(obeyed(4, refused=5))
    assert standing(office) == (Step.ROLLED_BACK, "1", None, 0.0)


@pytest.mark.parametrize(
    "word",
    [
        obeyed(1, refused=1),
        obeyed(1, refused=2, at=NOON - 91_000_000),
        obeyed(1, refused=2, leaving=True),
        obeyed(2),
    ],
    ids=["an older state", "long silent", "leaving", "obeys"],
)
async def test_only_a_live_replicas_refusal_of_the_newest_state_counts(
    office: Office, tides: Any, until: Until, word: Any
) -> None:
    await on_trial(office, tides, until)
    await office.trainer.hear_replica(word)
    assert standing(office) == (Step.SHADOW, "1", "2", 0.0)


async def test_long_after_its_promotion_one_ill_replica_takes_no_champion_back(
    office: Office, tides: Any, until: Until
) -> None:
    await promoted(office, tides, until)
    await office.trainer.hear(tides.matured(28))
    await office.trainer.hear_replica(obeyed(5, refused=6))
    assert standing(office)[:2] == (Step.CHAMPION, "2")


async def test_replicas_behind_and_gone_are_counted(office: Office, tides: Any, until: Until) -> None:
    await on_trial(office, tides, until)
    await office.trainer.hear_replica(obeyed(2, instance="a"))
    await office.trainer.hear_replica(obeyed(1, instance="b"))
    sample = office.registry.get_sample_value
    loop = {"loop": "tides"}
    assert sample("millstream_replicas_live", loop) == 2
    assert sample("millstream_replicas_behind", loop) == 1
    await office.trainer.hear_replica(obeyed(1, instance="b", at=NOON + 1, leaving=True))
    assert [one.instance for one in office.trainer.replicas.live("tides", NOON)] == ["a"]
    assert office.trainer.replicas.live("tides", NOON + 91_000_000) == []


def test_the_table_has_a_place_for_every_step_and_a_rejected_model_moves_nowhere() -> None:
    assert set(MOVES) == set(Step)
    for step in Step:
        with pytest.raises(IllegalMove, match="after rejected comes nothing"):
            move(Step.REJECTED, step)


def test_the_first_step_of_a_run_is_the_same_record_however_often_it_is_made() -> None:
    state = LoopState(loop="tides")
    first = entered(state, ref("1"), STEPS, at=DAY, reason="better")
    assert first is not None
    assert first == entered(state, ref("1"), STEPS, at=DAY, reason="better")
    assert first.led_to is not None
    assert (first.at, first.led_to.revision, first.led_to.previous) == (to_datetime(DAY), 1, None)
