"""The dispatcher: accepted runs are run once, told in order, and taken up again after a restart."""

from __future__ import annotations

from collections.abc import Callable
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
)
from millstream.contracts.package import Lineage, Manifest
from millstream.errors import RetryLater
from millstream_trainer.errors import UnknownLoop
from millstream_trainer.handlers import MAX_ATTEMPTS

from .trainer_kit import Office, loses

Until = Callable[[Callable[[], bool]], Any]


@pytest.fixture
def office(tides: Any) -> Office:
    return Office(tides.rules)


async def test_a_first_model_is_decided_trained_promoted_and_told_in_that_order(
    office: Office, tides: Any, until: Until
) -> None:
    async with office.at_work():
        await office.trainer.hear(tides.matured(10))
        await until(office.ended())
    kinds = [type(event) for event in office.announcer.said]
    assert kinds == [RetrainDecided, TrainingStarted, RolloutMoved, ModelState, TrainingFinished]
    state, finished = office.announcer.of(ModelState)[0], office.announcer.of(TrainingFinished)[0]
    assert (state.revision, state.step, state.previous) == (1, Step.CHAMPION, None)
    assert state.champion is not None
    assert (state.champion.version, finished.version, finished.outcome) == ("1", "1", Outcome.PROMOTED)
    assert office.executor.specs[0].positions == {"ships": {0: 41}, "arrivals": {0: -1}}


async def test_each_event_names_its_cause(office: Office, tides: Any, until: Until) -> None:
    async with office.at_work():
        await office.trainer.hear(tides.matured(10))
        await until(office.ended())
    causes = office.announcer.causes
    ids = [getattr(event, "id") for event in office.announcer.said]  # noqa: B009
    decided, started, moved, _, _ = ids
    assert [causes[id] for id in ids] == ["labels-10", decided, started, moved, started]


async def test_the_old_champion_stays_at_hand(office: Office, tides: Any, until: Until) -> None:
    async with office.at_work():
        await office.trainer.hear(tides.matured(10))
        await until(office.ended())
        await office.trainer.hear(tides.matured(40))
        await until(office.ended(2))
    last = office.announcer.of(ModelState)[-1]
    assert last.revision == 2
    assert last.champion is not None
    assert last.previous is not None
    assert (last.champion.version, last.previous.version) == ("2", "1")
    assert office.executor.specs[1].champion == last.previous


async def test_a_rejected_challenger_changes_no_model_state(tides: Any, until: Until) -> None:
    office = Office(tides.rules, loses)
    async with office.at_work():
        await office.trainer.hear(tides.matured(10))
        await until(office.ended())
    assert not office.announcer.of(ModelState)
    assert office.announcer.of(TrainingFinished)[0].outcome is Outcome.REJECTED


async def test_a_run_that_fails_says_why_and_the_loop_goes_on(tides: Any, until: Until) -> None:
    office = Office(tides.rules, lambda spec: "the lake is behind")
    async with office.at_work():
        await office.trainer.hear(tides.matured(10))
        await until(office.ended())
        await office.trainer.hear(tides.matured(13))
        await until(office.ended(2))
    finished = office.announcer.of(TrainingFinished)[0]
    assert (finished.outcome, finished.reason, finished.version) == (Outcome.FAILED, "the lake is behind", None)


async def test_verdicts_are_heard_while_a_run_is_under_way(office: Office, tides: Any, until: Until) -> None:
    async with office.at_work():
        await office.trainer.hear(tides.matured(10))
        await until(office.ended())
        office.executor.gate.clear()
        await office.trainer.hear(tides.judged(20))
        await until(lambda: office.executor.under_way == 1)
        await office.trainer.hear(tides.judged(24, id="another"))
        assert office.announcer.of(RetrainDecided)[-1].decision is Decision.COALESCED
        office.executor.gate.set()
        await until(office.ended(2))
    assert office.executor.most_under_way == 1


async def test_kafka_away_in_the_middle_of_a_run_delays_its_news_and_loses_none(
    office: Office, tides: Any, until: Until
) -> None:
    async with office.at_work():
        office.executor.gate.clear()
        await office.trainer.hear(tides.matured(10))
        await until(lambda: office.executor.under_way == 1)
        office.announcer.away = 5
        office.executor.gate.set()
        await until(office.ended())
    assert [type(event) for event in office.announcer.said[2:]] == [RolloutMoved, ModelState, TrainingFinished]


async def test_kafka_away_at_a_decision_leaves_it_undecided_and_a_repeat_decides_the_same(
    office: Office, tides: Any
) -> None:
    office.announcer.away = 1
    with pytest.raises(RetryLater):
        await office.trainer.hear(tides.matured(10))
    await office.trainer.hear(tides.matured(10))
    await office.trainer.hear(tides.matured(10))
    assert len(office.announcer.of(RetrainDecided)) == 1


async def test_a_restart_in_the_middle_of_a_run_starts_it_again_under_its_name(
    office: Office, tides: Any, until: Until
) -> None:
    office.executor.gate.clear()
    async with office.at_work():
        await office.trainer.hear(tides.matured(10))
        await until(lambda: office.executor.under_way == 1)
    successor = office.restarted()
    await successor.trainer.resume()
    async with successor.at_work():
        await until(successor.ended())
    again = successor.announcer.of(TrainingStarted)[0]
    assert (again.run, again.attempt) == (office.executor.specs[0].run, 2)
    assert successor.announcer.of(TrainingFinished)[0].version == "1"


async def test_a_restart_between_promotion_and_the_end_trains_nothing_and_says_the_end(
    office: Office, tides: Any, until: Until
) -> None:
    async with office.at_work():
        await office.trainer.hear(tides.matured(10))
        await until(office.ended())
    said = office.announcer.said
    crashed = Office(tides.rules)
    crashed.announcer.said = [event for event in said if not isinstance(event, TrainingFinished)]
    successor = crashed.restarted()
    successor.packages.manifests[f"memory:{office.executor.specs[0].run}"] = manifest(rows=10)
    await successor.trainer.resume()
    async with successor.at_work():
        await until(successor.ended())
    finished = successor.announcer.of(TrainingFinished)[0]
    assert (finished.id, finished.outcome) == (office.announcer.of(TrainingFinished)[0].id, Outcome.PROMOTED)
    assert (finished.rows, finished.metrics) == (10, {"auc": 0.8})
    assert not successor.announcer.of(ModelState)
    assert not successor.executor.specs


async def test_a_run_that_takes_the_trainer_down_each_time_is_given_up(
    office: Office, tides: Any, until: Until
) -> None:
    office.executor.gate.clear()
    async with office.at_work():
        await office.trainer.hear(tides.matured(10))
        await until(lambda: office.executor.under_way == 1)
    for attempt in range(1, MAX_ATTEMPTS):
        successor = office.restarted()
        successor.executor.gate.clear()
        successor.announcer.said = list(office.announcer.said)
        await successor.trainer.resume()
        async with successor.at_work():
            await until(lambda: len(successor.announcer.of(TrainingStarted)) == attempt + 1)  # noqa: B023
        office = successor
    last = office.restarted()
    await last.trainer.resume()
    async with last.at_work():
        await until(last.ended())
    assert last.announcer.of(TrainingFinished)[0].outcome is Outcome.FAILED
    assert not last.executor.specs


async def test_old_verdicts_heard_again_after_a_restart_are_not_decided_again(
    office: Office, tides: Any, until: Until
) -> None:
    story = [tides.matured(10), tides.matured(11), tides.judged(12), tides.judged(20)]
    async with office.at_work():
        for runs, event in zip((1, 1, 1, 2), story, strict=True):
            await office.trainer.hear(event)
            await until(office.ended(runs))
    successor = office.restarted()
    for event in story:
        await successor.trainer.hear(event)
    assert successor.announcer.said == []


async def test_a_loop_that_the_project_does_not_have_is_refused(office: Office, tides: Any) -> None:
    stranger: Event = tides.matured(10)
    other = type(stranger)(**{**{f: getattr(stranger, f) for f in stranger.__struct_fields__}, "loop": "winds"})
    with pytest.raises(UnknownLoop, match="no loop 'winds'; the project has tides"):
        await office.trainer.hear(other)  # type: ignore[arg-type]


async def test_decisions_runs_and_the_champions_age_are_metrics(office: Office, tides: Any, until: Until) -> None:
    async with office.at_work():
        await office.trainer.hear(tides.matured(10))
        await until(office.ended())
        await office.trainer.hear(tides.matured(12))
    sample = office.registry.get_sample_value
    decided = {"loop": "tides", "cause": "first_model", "decision": "accepted"}
    assert sample("millstream_retrains_decided_total", decided) == 1
    assert sample("millstream_training_finished_total", {"loop": "tides", "outcome": "promoted"}) == 1
    assert sample("millstream_champion_age_seconds", {"loop": "tides"}) == 2 * 86400


def manifest(rows: int) -> Manifest:
    from datetime import UTC, datetime

    from millstream.contracts.events import Cause

    lineage = Lineage(
        cause=Cause.FIRST_MODEL,
        request="labels-10",
        at=datetime(2013, 1, 11, tzinfo=UTC),
        positions={},
        train_rows=rows,
        holdout_rows=2,
        content_sha256="",
        code_version="",
        libraries={},
    )
    return Manifest(
        format=1,
        loop="tides",
        version="1",
        run="r",
        task="binary",
        inputs=[],
        output="probability",
        feature_service="s",
        views={},
        label="x",
        metrics={"auc": 0.8},
        lineage=lineage,
        files={},
    )
