"""What drift says about the weather at one airport: one story for each finding."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from millstream.contracts.events import Finding, PredictionServed, WindowKind
from millstream.contracts.times import DAY, HOUR, from_datetime, from_rfc3339, to_rfc3339
from millstream.project.retrain import Retrain
from millstream_drift.app import rules_of

from .drift_kit import JUNE, LOOP, Desk, Topics, World, baseline, day, landing, prediction, unanswered


async def told(world: World, **drift: Any) -> Desk:
    desk = await Desk(Topics().add(world.said), **drift).start()
    return await desk.read_all()


def findings(desk: Desk, kind: WindowKind) -> list[Finding]:
    return [verdict.finding for verdict in desk.verdicts if verdict.kind is kind]


async def test_a_month_like_training_is_healthy() -> None:
    desk = await told(World().hours(JUNE, 30))
    assert set(findings(desk, WindowKind.INPUTS)) == {Finding.HEALTHY}
    assert [verdict.rows for verdict in desk.verdicts if verdict.kind is WindowKind.INPUTS] == [200] * 6


async def test_a_storm_is_suspected_then_detected_and_cleared_when_it_is_over() -> None:
    world = World().hours(JUNE, 5)
    world.stretch = 3.0
    world.hours(JUNE + 5 * HOUR, 15)
    world.stretch = 1.0
    world.hours(JUNE + 20 * HOUR, 11)
    desk = await told(world)
    assert findings(desk, WindowKind.INPUTS) == [
        Finding.HEALTHY,
        Finding.SUSPECTED,
        Finding.DETECTED,
        Finding.DETECTED,
        Finding.CLEARED,
        Finding.HEALTHY,
    ]
    detected = next(v for v in desk.verdicts if v.finding is Finding.DETECTED)
    assert "≥ 0.20 in 2 of 3 windows; most: origin__mean_1h" in detected.reason
    assert detected.effect > 0.2
    worst = max(detected.columns, key=lambda column: column.psi)
    assert worst.column == "origin__mean_1h"


@pytest.mark.parametrize("flagged", [True, False])
async def test_nulls_that_nobody_read_are_no_broken_inputs(flagged: bool) -> None:
    world = World().hours(JUNE, 5)
    before = len(world.said)
    world.nulls = 1.0
    world.hours(JUNE + 5 * HOUR, 10)
    away = [
        (topic, msgspec.structs.replace(said, store_away=flagged) if isinstance(said, PredictionServed) else said, at)
        for topic, said, at in world.said[before:]
    ]
    world.said[before:] = away
    world.nulls = 0.1
    desk = await told(world.hours(JUNE + 15 * HOUR, 11))
    found = set(findings(desk, WindowKind.INPUTS))
    assert (found == {Finding.HEALTHY}) is flagged


async def test_one_odd_window_is_weather() -> None:
    world = World().hours(JUNE, 5)
    world.stretch = 3.0
    world.hours(JUNE + 5 * HOUR, 5)
    world.stretch = 1.0
    world.hours(JUNE + 10 * HOUR, 11)
    found = findings(await told(world), WindowKind.INPUTS)
    assert found == [Finding.HEALTHY, Finding.SUSPECTED, Finding.HEALTHY, Finding.HEALTHY]


async def test_a_report_is_asked_for_once_per_incident() -> None:
    world = World(stretch=3.0).hours(JUNE, 21)
    desk = await told(world)
    assert len(desk.verdicts) >= 4
    (job,) = desk.reports.asked
    first = desk.verdicts[0]
    assert job.id == first.report
    assert all(verdict.report is None for verdict in desk.verdicts[1:])
    assert len(job.current["origin__mean_1h"]) == first.rows
    assert set(job.types) == {"distance", "carrier", "origin__mean_1h"}


async def test_a_sensor_that_fell_silent_is_broken_data_and_no_drift() -> None:
    desk = await told(World(nulls=0.9).hours(JUNE, 12))
    assert set(findings(desk, WindowKind.INPUTS)) == {Finding.BROKEN_DATA}
    assert desk.verdicts[0].reason.startswith("origin__mean_1h: 88% missing")
    assert "10% in training" in desk.verdicts[0].reason


async def test_a_producer_that_always_says_united_is_broken() -> None:
    desk = await told(World(carrier="UA").hours(JUNE, 12))
    assert desk.verdicts[0].finding is Finding.BROKEN_DATA
    assert "carrier: constant" in desk.verdicts[0].reason


async def test_carriers_nobody_trained_on_are_broken_data() -> None:
    world = World(carrier="ZZ").hours(JUNE, 3)
    world.carrier = None
    world.hours(JUNE + 3 * HOUR, 3)
    desk = await told(world)
    assert desk.verdicts[0].finding is Finding.BROKEN_DATA
    assert "carrier: 60% unknown categories, 0% in training" in desk.verdicts[0].reason


async def test_only_watched_columns_count() -> None:
    desk = await told(World(stretch=3.0).hours(JUNE, 12), columns=["distance", "carrier"])
    assert set(findings(desk, WindowKind.INPUTS)) == {Finding.HEALTHY}


async def test_answers_that_became_wrong_are_a_performance_drop() -> None:
    desk = await told(World(skill=-1.0).hours(JUNE, 26))
    found = findings(desk, WindowKind.PERFORMANCE)
    assert found[:2] == [Finding.SUSPECTED, Finding.PERFORMANCE_DROP]
    dropped = next(v for v in desk.verdicts if v.finding is Finding.PERFORMANCE_DROP)
    assert "on the holdout" in dropped.reason
    assert "2 of 2 windows" in dropped.reason
    scores = {"log_loss", "auc", "brier", "base_rate", "mean_prediction", "calibration_error"}
    assert set(dropped.metrics) == scores | {"low", "high", "loss_increase", "standard_error"}
    assert dropped.metrics["low"] < dropped.metrics["log_loss"] < dropped.metrics["high"]
    assert dropped.effect > 0.05


async def test_answers_that_are_as_good_as_promised_are_healthy() -> None:
    desk = await told(World().hours(JUNE, 26))
    assert set(findings(desk, WindowKind.PERFORMANCE)) == {Finding.HEALTHY}


async def test_a_retrain_that_cured_the_drift_clears_the_old_models_incident() -> None:
    world = World(stretch=3.0).hours(JUNE, 11)
    world.version, world.stretch = "2", 1.0
    world.hours(JUNE + 11 * HOUR, 6)
    desk = Desk(Topics().add(world.said))
    desk.models.known[LOOP, "2"] = baseline("2")
    await (await desk.start()).read_all()
    last = [v for v in desk.verdicts if v.kind is WindowKind.INPUTS][-1]
    assert (last.version, last.index, last.finding) == ("2", 0, Finding.CLEARED)


async def test_labels_mature_before_there_is_any_model() -> None:
    said: list[tuple[str, Any, int]] = []
    for flight in range(10):
        said += [("millstream-predictions", unanswered(f"f{flight}", day(1) + HOUR), day(1) + HOUR)]
        said += [("flights-landed", landing(f"f{flight}", day(1) + 5 * HOUR), day(1) + 5 * HOUR)]
    said += [("millstream-predictions", unanswered("next", day(2)), day(2))]
    desk = await Desk(Topics().add(said)).start()
    await desk.read_all()
    (clock,) = desk.matured
    assert (clock.matured, clock.pending, from_datetime(clock.at)) == (10, 0, day(2))
    assert not desk.verdicts


async def test_the_day_is_published_when_its_first_later_event_is_read_and_counts_what_was_known_before() -> None:
    topics = Topics().add(
        [
            ("millstream-predictions", prediction("early", day(1) + 20 * HOUR), 0),
            ("flights-landed", landing("early", day(1) + 23 * HOUR), day(1) + 23 * HOUR),
            ("millstream-predictions", prediction("evening", day(1) + 22 * HOUR), 0),
        ]
    )
    desk = await Desk(topics).start()
    await desk.read_all()
    assert not desk.matured
    topics.add([("flights-landed", landing("evening", day(2)), day(2))])
    await desk.read_all()
    (clock,) = desk.matured
    assert (clock.matured, clock.pending) == (1, 1)


async def test_each_silent_day_is_published_but_a_dead_month_only_once() -> None:
    topics = Topics().add([("millstream-predictions", prediction("a", day(1)), 0)])
    topics.add([("millstream-predictions", prediction("b", day(5)), 0)])
    desk = await (await Desk(topics).start()).read_all()
    assert [from_datetime(clock.at) for clock in desk.matured] == [day(2), day(3), day(4), day(5)]
    topics.add([("millstream-predictions", prediction("c", day(60) + HOUR), 0)])
    await desk.read_all()
    assert [from_datetime(clock.at) for clock in desk.matured[4:]] == [day(60)]
    assert desk.matured[-1].expired == 2


def resting(desk: Desk, *hours: str, zone: str = "UTC") -> Desk:
    """Before it starts: the loop's quiet hours."""
    desk.loops[LOOP] = desk.loops[LOOP].model_copy(update={"retrain": Retrain(quiet=hours, time_zone=zone)})
    desk.judging.rules = {LOOP: rules_of(desk.loops[LOOP])}
    return desk


async def test_labels_are_counted_at_the_end_of_quiet_hours_too_by_the_clock_on_the_wall() -> None:
    """March 2013 in New York, where the clocks went forward on the 10th: 06:00 there is 11:00 and then 10:00 here."""
    at = from_rfc3339("2013-03-08T20:00:00Z")
    topics = Topics().add([("millstream-predictions", prediction("a", at), 0)])
    desk = await resting(Desk(topics), "22:00-06:00", zone="America/New_York").start()
    await desk.read_all()
    topics.add(
        [("flights-landed", landing("a", at + 14 * HOUR), at + 14 * HOUR)]
    )  # 10:00 on the 9th: an hour too early
    await desk.read_all()
    assert [to_rfc3339(from_datetime(clock.at)) for clock in desk.matured] == ["2013-03-09T00:00:00Z"]
    topics.add([("flights-landed", landing("b", at + 40 * HOUR), at + 40 * HOUR)])
    await desk.read_all()
    assert [(f"{clock.at:%d %H:%M}", clock.matured) for clock in desk.matured] == [
        ("09 00:00", 0),
        ("09 11:00", 1),
        ("10 00:00", 1),
        ("10 10:00", 1),
    ]


async def test_quiet_hours_change_nothing_but_the_number_of_counts() -> None:
    """And a restart in the middle of a night counts what the whole run counts; after a dead month only the last day."""
    world = World().hours(JUNE, 60)
    world.hours(JUNE + 40 * 24 * HOUR, 30)
    plain = await told(world)
    topics = Topics().add(world.said)
    resting_too = await (await resting(Desk(topics), "22:00-06:00", "05:00-08:00").start()).read_all()
    assert [one for one in resting_too.speaker.said if one not in plain.speaker.said] == [
        one for one in resting_too.matured if from_datetime(one.at) % DAY
    ]
    assert [one for one in plain.speaker.said if one not in resting_too.speaker.said] == []
    extra = [one.at.hour for one in resting_too.matured if from_datetime(one.at) % DAY]
    assert set(extra) == {8}, "one stretch ends inside the other"
    assert 3 <= len(extra) <= 5

    stopped = resting(Desk(Topics().add(world.said[: len(world.said) // 3])), "22:00-06:00", "05:00-08:00")
    await (await stopped.start()).read_all()
    await stopped.judging.save()
    second = resting(Desk(topics, stopped.snapshots), "22:00-06:00", "05:00-08:00")
    await (await second.start()).read_all()
    ids = {one.id for one in (*stopped.matured, *second.matured)}
    assert ids == {one.id for one in resting_too.matured}


async def test_late_orphaned_duplicated_cancelled_and_diverted_flights_are_each_counted() -> None:
    hours = HOUR
    said: list[tuple[str, Any, int]] = [
        ("millstream-predictions", prediction("twice", day(1)), 0),
        ("flights-landed", landing("twice", day(1) + hours), day(1) + hours),
        ("flights-landed", landing("twice", day(1) + 2 * hours, late=False), day(1) + 2 * hours),
        ("millstream-predictions", prediction("late", day(1)), 0),
        ("flights-landed", landing("late", day(2) + hours), day(2) + hours),
        ("millstream-predictions", prediction("just-in-time", day(1)), 0),
        ("flights-landed", landing("just-in-time", day(2)), day(2)),
        ("millstream-predictions", prediction("cancelled", day(1)), 0),
        ("millstream-predictions", prediction("diverted", day(1)), 0),
        ("flights-landed", landing("diverted", day(1) + hours, late=None), day(1) + hours),
        ("flights-landed", landing("never-asked", day(1) + hours), day(1) + hours),
        ("millstream-predictions", prediction("later", day(4)), 0),
    ]
    desk = await (await Desk(Topics().add(said)).start()).read_all()
    last = desk.matured[-1]
    assert (last.matured, last.expired, last.late, last.orphaned, last.duplicated, last.pending) == (2, 3, 1, 1, 1, 0)


async def test_a_late_label_counts_in_the_window_that_is_open_when_it_comes_and_once() -> None:
    """100 flights land in time, 100 after `label.within`, each told twice: one window of 200."""
    said: list[tuple[str, Any, int]] = []
    for flight in range(200):
        landed = day(1) + (2 if flight < 100 else 26) * HOUR
        said += [("millstream-predictions", prediction(f"f{flight}", day(1)), 0)]
        said += [("flights-landed", landing(f"f{flight}", landed), landed)]
        said += [("flights-landed", landing(f"f{flight}", landed + HOUR, late=False), landed + HOUR)]
    said += [("millstream-predictions", prediction("later", day(4)), 0)]
    desk = await (await Desk(Topics().add(said)).start()).read_all()
    (verdict,) = [one for one in desk.verdicts if one.kind is WindowKind.PERFORMANCE]
    assert (verdict.rows, verdict.metrics["base_rate"]) == (200, 1.0)
    assert from_datetime(verdict.end) == day(2) + 2 * HOUR
    counts = desk.judging._fold.loops[LOOP].join.counts
    assert (counts.matured, counts.late, counts.duplicated) == (100, 100, 200)


async def test_an_answer_that_is_delivered_twice_counts_once() -> None:
    world = World().hours(JUNE, 30)
    once = await told(world)
    world.said += world.said[:300]
    again = await told(world)
    assert again.verdicts == once.verdicts
