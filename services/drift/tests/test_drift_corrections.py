"""Labels that come after their window was judged: the window is corrected, and nothing is decided twice."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.contracts.events import Finding, PredictionServed, WindowCorrected, WindowJudged, WindowKind
from millstream.contracts.times import HOUR, from_datetime
from millstream_drift.domain.corrections import LAST, Corrections, Tally
from millstream_drift.domain.hysteresis import Hysteresis
from millstream_drift.domain.windows import Window

from .drift_kit import JUNE, LANDED, LOOP, Desk, Topics, World, landing

LATE_BY = 36 * HOUR
"""After the question: twelve hours after `label.within`, two windows later."""


def story(late: int, wrong: bool = True, hours: int = 70) -> list[tuple[str, Any, int]]:
    """Forty flights an hour ask and land in three hours, but of the first ten hours every `late`-th lands after 36: too late
    (`wrong`), or as it would have."""
    said: list[tuple[str, Any, int]] = []
    flights: dict[str, PredictionServed] = {}
    for topic, event, known_at in World().hours(JUNE, hours).said:
        if isinstance(event, PredictionServed):
            flights[event.key] = event
            said.append((topic, event, known_at))
            continue
        flight = event["flight_id"]
        number = int(flight.removeprefix("flight-"))
        if number <= 400 and number % late == 0:
            asked_at = from_datetime(flights[flight].asked_at)
            truth = event["arr_delay"] > 0 if not wrong else True
            said.append((LANDED, landing(flight, asked_at + LATE_BY, late=truth), asked_at + LATE_BY))
        else:
            said.append((topic, event, known_at))
    return sorted(said, key=lambda one: one[2])


async def judged(said: list[tuple[str, Any, int]], **drift: Any) -> Desk:
    return await (await Desk(Topics().add(said), **drift).start()).read_all()


def corrections(desk: Desk) -> list[WindowCorrected]:
    return [event for event in desk.speaker.said if isinstance(event, WindowCorrected)]


def performance(desk: Desk) -> list[WindowJudged]:
    return [event for event in desk.verdicts if event.kind is WindowKind.PERFORMANCE]


async def test_late_labels_correct_the_window_in_which_they_were_due() -> None:
    desk = await judged(story(late=4))
    found = corrections(desk)
    assert found
    windows = {one.index: one for one in performance(desk)}
    without = await judged([one for one in story(late=4) if not is_late(one, 4)])
    assert [one.rows for one in performance(without)] == [one.rows for one in windows.values()], (
        "none is in two windows"
    )
    last: dict[int, WindowCorrected] = {}
    for one in found:
        first = windows[one.index]
        assert one.corrects == first.id
        # They were due 24 hours after they were asked for, when that window was open.
        assert from_datetime(first.end) >= JUNE + 24 * HOUR
        before = last[one.index].after if one.index in last else {name: first.metrics[name] for name in one.before}
        assert one.before == pytest.approx(before)
        assert one.after["log_loss"] > one.before["log_loss"], "they contradict what was answered"
        assert one.after["low"] < one.after["log_loss"] < one.after["high"]
        assert one.rows == first.rows + one.labels
        last[one.index] = one
    assert sum(one.labels for one in last.values()) == desk.judging._fold.loops[LOOP].join.counts.late == 100
    assert desk.registry.get_sample_value("millstream_windows_corrected_total", {"loop": LOOP}) == len(found)


async def test_corrections_are_the_same_whatever_the_batches_and_restarts() -> None:
    said = story(late=4)
    whole = await judged(said)
    topics = Topics().add(said)
    for seed in (1, 2):
        other = await (await Desk(topics).start()).read_all(170, seed)
        assert other.speaker.said == whole.speaker.said
    first = await Desk(topics).start()
    for place in sorted(topics.records):
        await first.read(place, 500)
    await first.judging.save()
    second = await (await Desk(topics, first.snapshots).start()).read_all(110)
    assert first.speaker.said + second.speaker.said == whole.speaker.said


async def test_a_window_that_turns_out_bad_counts_with_the_next_one_and_asks_for_no_run_itself() -> None:
    desk = await judged(story(late=1, hours=50))
    turned = [one for one in corrections(desk) if one.finding is not one.was]
    assert turned
    assert {(one.was, one.finding) for one in turned} <= {
        (Finding.HEALTHY, Finding.SUSPECTED),
        (Finding.SUSPECTED, Finding.HEALTHY),
    }
    assert all("it counts so with the next window" in one.reason for one in turned)
    asking = [one for one in desk.speaker.said if getattr(one, "finding", None) is Finding.PERFORMANCE_DROP]
    assert all(isinstance(one, WindowJudged) for one in asking), "only a window's own verdict asks for a run"
    ids = [one.id for one in asking]
    assert len(ids) == len(set(ids))


async def test_late_labels_that_change_nothing_are_told_and_leave_the_finding() -> None:
    desk = await judged(story(late=20, wrong=False))
    found = corrections(desk)
    assert found
    assert all(one.finding is one.was for one in found)
    without = await judged([one for one in story(late=20, wrong=False) if not is_late(one, 20)])
    assert [one.finding for one in performance(desk)] == [one.finding for one in performance(without)]


def is_late(said: tuple[str, Any, int], late: int) -> bool:
    topic, event, _ = said
    if topic != LANDED:
        return False
    number = int(event["flight_id"].removeprefix("flight-"))
    return number <= 400 and number % late == 0


def window(index: int, start: int, end: int) -> Window:
    return Window("1", WindowKind.PERFORMANCE, index, start=start, end=end)


def test_only_the_last_windows_are_corrected() -> None:
    found = Corrections()
    for index in range(LAST + 1):
        found.closed(window(index, index * 10 + 1, index * 10 + 10))
    assert not found.take("1", 5, 0.5, "of the oldest")
    assert found.take("1", 15, 0.5, "a")
    assert found.take("1", 20, 0.7, "b")
    assert not found.take("1", 51, 0.5, "of the one that is open")
    assert not found.take("2", 15, 0.5, "of a version without windows")
    assert found.due(98, "2") == []
    (one,) = Corrections(found.state()).due(99, "1")
    assert (one.index, one.late.rows, one.last, one.at) == (1, 2, "b", 99)
    assert found.due(99) == [], "each label is told once"


def test_a_tally_knows_mean_and_deviation() -> None:
    found = Tally()
    for loss in (1.0, 2.0, 3.0, 4.0):
        found.add(loss)
    assert (found.mean, found.deviation) == (2.5, pytest.approx(1.2909944))
    assert found.with_(found).rows == 8
    assert Tally(1, 2.0, 4.0).deviation == 0.0


def test_a_corrected_window_counts_with_the_next_one() -> None:
    def weigh(memory: Hysteresis, over: bool, start: int) -> Finding:
        return memory.weigh("1", f"window-{start}", over, 2, 3, start=start).finding

    fine = Hysteresis()
    assert [weigh(fine, over, at) for at, over in enumerate([False, False, True])][-1] is Finding.SUSPECTED
    turned = Hysteresis()
    weigh(turned, False, 10)
    weigh(turned, False, 20)
    turned.correct("1", 0, True, 20)
    detected = turned.weigh("1", "window-30", True, 2, 3, start=30)
    assert (detected.finding, detected.since) == (Finding.DETECTED, 20)
    taken_back = Hysteresis()
    weigh(taken_back, True, 10)
    taken_back.correct("1", 0, False, 10)
    assert weigh(taken_back, True, 20) is Finding.SUSPECTED
    taken_back.correct("1", 7, True, 0)
    taken_back.correct("other", 0, True, 0)
    assert sum(taken_back.past["1"].recent) == 1
