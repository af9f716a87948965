"""A promotion is done when every live replica obeys it, and never waits for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from millstream.contracts.events import ModelState, RolloutAction, RolloutMoved, Step, TrainingFinished, TrialFinding
from millstream.contracts.times import SECOND
from millstream_trainer.domain.view import view
from millstream_trainer.handlers import promotions

from .test_trainer_rollout import STEPS, models, on_trial, standing
from .trainer_kit import NOON, Office, judged, obeyed, wants

Until = Callable[[Callable[[], bool]], Any]
A, B = "serving-0", "serving-1"


@pytest.fixture
def office(tides: Any) -> Office:
    return Office(replace(tides.rules, rollout=STEPS))


async def promoting(office: Office, tides: Any, until: Until) -> int:
    """Two replicas live, and version 2 has just been promoted. Returns the revision that they have to obey."""
    await on_trial(office, tides, until)
    for instance in (A, B):
        await office.trainer.hear_replica(obeyed(2, instance=instance))
    for day, pairs in ((22, 1000), (24, 1500), (26, 2000)):
        await office.trainer.hear(judged(tides.day(day), "2", "1", pairs=pairs))
    return models(office).revision


def shown(office: Office) -> Any:
    live = office.trainer.replicas.live("tides", office.now)
    return view(office.trainer.states["tides"], office.rules, live)["promoting"]


async def test_a_promotion_is_done_with_the_word_of_the_last_live_replica(
    office: Office, tides: Any, until: Until
) -> None:
    revision = await promoting(office, tides, until)
    assert (standing(office), models(office).promoting) == ((Step.CHAMPION, "2", None, 0.0), revision)
    assert shown(office) == {"version": "2", "revision": revision, "waits_for": [A, B]}
    await office.trainer.hear_replica(obeyed(revision, instance=A, at=NOON + 1))
    assert shown(office)["waits_for"] == [B]
    await office.trainer.hear_replica(obeyed(revision, instance=B, at=NOON + 1))
    assert (standing(office), models(office).promoting) == ((Step.CHAMPION, "2", None, 0.0), 0)
    assert shown(office) is None
    done, promotion = office.announcer.of(RolloutMoved)[-1], office.announcer.of(RolloutMoved)[-2]
    assert (done.reason, done.numbers) == ("2 of 2 replicas obey it", {"replicas": 2.0, "obey": 2.0})
    assert (done.at, models(office).since) == (promotion.at, promotion.at)
    assert office.announcer.causes[done.id] == promotion.id


async def test_the_watch_does_not_end_and_no_trial_gets_on_before_all_obey(
    office: Office, tides: Any, until: Until
) -> None:
    revision = await promoting(office, tides, until)
    await office.trainer.hear(tides.matured(29))
    assert models(office).watch_until == tides.day(28)
    async with office.at_work():
        await office.trainer.hear(tides.judged(40, version="2"))
        await until(lambda: len(office.executor.specs) == 3)
        await asyncio.sleep(3 * promotions.SOON)
        assert (standing(office), models(office).promoting) == ((Step.CHAMPION, "2", None, 0.0), revision)
        for instance in (A, B):
            await office.trainer.hear_replica(obeyed(revision, instance=instance, at=NOON + 1))
        await until(office.ended(3))
    assert (standing(office), models(office).promoting) == ((Step.SHADOW, "2", "3", 0.0), 0)


async def test_a_replica_that_refuses_the_champion_takes_no_trial_of_another_version_with_it(
    office: Office, tides: Any, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It said nothing while the promotion waited, and cannot load the champion that all others obey."""
    revision = await promoting(office, tides, until)
    await office.trainer.hear_replica(obeyed(2, instance=B, at=NOON + 1, leaving=True))
    await office.trainer.hear_replica(obeyed(revision, instance=A, at=NOON + 1))
    async with office.at_work():
        await office.trainer.hear(tides.judged(40, version="2"))
        await until(office.ended(3))
    trial = models(office).revision
    await office.trainer.hear_replica(obeyed(2, refused=trial, refused_version="2", instance=B, at=NOON + 2))
    assert standing(office) == (Step.SHADOW, "2", "3", 0.0)
    await office.trainer.hear_replica(obeyed(revision, refused=trial, refused_version="3", instance=A, at=NOON + 3))
    assert standing(office) == (Step.REJECTED, "2", None, 0.0)


async def test_a_refusal_while_a_run_is_under_way_takes_the_promotion_back_and_not_the_next_trial(
    office: Office, tides: Any, until: Until
) -> None:
    revision = await promoting(office, tides, until)
    async with office.at_work():
        await office.trainer.hear(tides.judged(40, version="2"))
        await until(lambda: len(office.executor.specs) == 3)
        await office.trainer.hear_replica(obeyed(2, refused=revision, refused_version="2", instance=A, at=NOON + 1))
        await until(office.ended(3))
    assert standing(office) == (Step.SHADOW, "1", "3", 0.0)


async def test_after_a_minute_it_goes_on_and_names_who_has_said_nothing(
    office: Office, tides: Any, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotions, "EVERY", 0.01)
    revision = await promoting(office, tides, until)
    await office.trainer.hear_replica(obeyed(revision, instance=A, at=NOON + 1))
    looking = asyncio.create_task(office.trainer.promote())
    try:
        office.now += 59 * SECOND
        await asyncio.sleep(0.05)
        assert models(office).promoting == revision
        office.now += 2 * SECOND
        await until(lambda: not models(office).promoting)
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    assert standing(office) == (Step.CHAMPION, "2", None, 0.0)
    assert models(office).reason == (
        "1 of 2 replicas obey it, the rollout goes on; not within 60 s: serving-1 (at revision 2)"
    )


async def test_who_leaves_or_falls_silent_is_not_waited_for(office: Office, tides: Any, until: Until) -> None:
    revision = await promoting(office, tides, until)
    await office.trainer.hear_replica(obeyed(revision, instance=A, at=NOON + 1))
    await office.trainer.hear_replica(obeyed(2, instance=B, at=NOON + 2, leaving=True))
    assert (models(office).promoting, models(office).reason) == (0, "1 of 1 replicas obey it")


async def test_without_serving_nothing_waits(office: Office, tides: Any, until: Until) -> None:
    revision = await promoting(office, tides, until)
    for instance in (A, B):
        await office.trainer.hear_replica(obeyed(2, instance=instance, at=NOON + 2, leaving=True))
    assert (models(office).promoting, models(office).reason) == (
        0,
        "no replica lives, who starts reads it from the topic",
    )
    assert models(office).revision == revision + 1
    nobody = Office(office.rules)
    await on_trial(nobody, tides, until)
    await nobody.trainer.hear(judged(tides.day(22), "2", "1", TrialFinding.BETTER, pairs=1000))
    assert all(not state.promoting for state in nobody.announcer.of(ModelState))


async def test_a_first_model_waits_for_its_replicas_too_and_its_run_does_not(
    office: Office, tides: Any, until: Until
) -> None:
    await office.trainer.hear_replica(obeyed(0))
    async with office.at_work():
        await office.trainer.hear(tides.matured(10))
        await until(office.ended())
    assert models(office).promoting == 1
    assert len(office.announcer.of(TrainingFinished)) == 1
    await office.trainer.hear_replica(obeyed(1, at=NOON + 1))
    assert models(office).promoting == 0


async def test_a_refusal_takes_it_back_and_nobody_waits_any_more(office: Office, tides: Any, until: Until) -> None:
    revision = await promoting(office, tides, until)
    await office.trainer.hear_replica(obeyed(revision - 1, refused=revision, instance=A, at=NOON + 1))
    assert (standing(office), models(office).promoting) == ((Step.ROLLED_BACK, "1", None, 0.0), 0)


@pytest.mark.parametrize("action", [RolloutAction.ROLLBACK, RolloutAction.FREEZE, RolloutAction.PIN])
async def test_a_person_is_heard_while_it_waits(
    office: Office, tides: Any, until: Until, action: RolloutAction
) -> None:
    revision = await promoting(office, tides, until)
    await office.trainer.hear(wants(action, "1" if action is RolloutAction.PIN else None))
    assert models(office).promoting == (revision if action is RolloutAction.FREEZE else 0)
    assert standing(office)[1] == ("2" if action is RolloutAction.FREEZE else "1")
    if action is RolloutAction.FREEZE:
        for instance in (A, B):
            await office.trainer.hear_replica(obeyed(revision + 1, instance=instance, at=NOON + 1))
        assert (models(office).promoting, models(office).frozen) == (0, "Ada: the harbour said so")


async def test_a_restart_goes_on_waiting_and_gives_a_minute_of_its_own(
    office: Office, tides: Any, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotions, "EVERY", 0.01)
    revision = await promoting(office, tides, until)
    successor = office.restarted()
    successor.now = NOON + 50 * SECOND
    await successor.trainer.resume()
    assert successor.trainer.states["tides"].models == models(office)
    for word in (obeyed(2, instance=A), obeyed(2, instance=B), obeyed(revision, instance=A, at=NOON + 1)):
        await successor.trainer.hear_replica(word)
    assert not successor.announcer.of(ModelState)
    looking = asyncio.create_task(successor.trainer.promote())
    try:
        await asyncio.sleep(0.05)
        await successor.trainer.hear_replica(obeyed(2, instance=B, at=successor.now + 35 * SECOND))
        successor.now += 61 * SECOND
        await until(lambda: bool(successor.announcer.of(ModelState)))
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    assert models(successor).promoting == 0
    assert "not within 60 s: serving-1" in models(successor).reason
