"""A version answers no more before its window of inputs is full: what it was asked in a break is known as broken too."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from millstream.contracts.events import Finding, WindowJudged, WindowKind
from millstream.contracts.times import HOUR, to_datetime
from millstream_drift.domain.windows import Window, Windows

from .drift_kit import JUNE, LOOP, Desk, Topics, World, baseline

INPUTS = WindowKind.INPUTS
HEALTHY, BROKEN = Finding.HEALTHY, Finding.BROKEN_DATA


def stretches(*parts: tuple[str, float, int]) -> World:
    """(version, share of nulls, hours) one after the other; 40 flights an hour, so five hours are a window."""
    world, hour = World(), 0
    for world.version, world.nulls, hours in parts:
        world.hours(JUNE + hour * HOUR, hours)
        hour += hours
    return world


async def read(world: World, seed: int | None = None, most: int = 10_000, **rules: Any) -> Desk:
    desk = Desk(Topics().add(world.said), **rules)
    desk.models.known[LOOP, "2"] = baseline("2")
    return await (await desk.start()).read_all(most, seed)


def told(desk: Desk) -> list[tuple[str, int, Finding, float, float]]:
    """(version, index, finding, hour of the first row, hour of the last)."""
    return [
        (one.version, one.index, one.finding, hours(one, "start"), hours(one, "end"))
        for one in desk.verdicts
        if one.kind is INPUTS
    ]


def hours(one: WindowJudged, field: str) -> float:
    return (getattr(one, field) - to_datetime(JUNE)) / timedelta(hours=1)


PROMOTED_IN_A_BREAK = (("1", 0.1, 10), ("1", 0.9, 4), ("2", 0.9, 8), ("2", 0.1, 8))
ROLLED_BACK_IN_A_BREAK = (("1", 0.1, 12), ("2", 0.1, 10), ("2", 0.9, 9), ("1", 0.9, 11), ("1", 0.1, 6))


async def test_a_promotion_in_a_break_leaves_no_hole_in_what_is_known_as_broken() -> None:
    desk = await read(stretches(*PROMOTED_IN_A_BREAK))
    assert told(desk) == [
        ("1", 0, HEALTHY, 0, 4),
        ("1", 1, HEALTHY, 5, 9),
        ("1", 2, BROKEN, 10, 13),
        ("2", 0, BROKEN, 14, 18),
        ("2", 1, BROKEN, 19, 23),
        ("2", 2, HEALTHY, 24, 28),
    ]
    left, following = [one for one in desk.verdicts if one.kind is INPUTS][2:4]
    assert left.rows == 160
    assert left.reason.endswith("; 160 rows: version 1 answers no more")
    assert left.at < following.at, "who reads them in their order knows the whole spell with its second verdict"


@pytest.mark.parametrize("stretch", [1.0, 3.0], ids=["calm", "drifting"])
async def test_nothing_else_comes_of_a_window_that_its_version_left(stretch: float) -> None:
    """A drift is confirmed by whole windows, and calm is told by whole ones."""
    world = World(stretch=stretch).hours(JUNE, 4)
    world.version, world.stretch = "2", 1.0
    world.hours(JUNE + 4 * HOUR, 10)
    assert told(await read(world)) == [("2", 0, HEALTHY, 4, 8), ("2", 1, HEALTHY, 9, 13)]


async def test_a_rollback_in_a_break_does_not_mix_it_with_the_days_before() -> None:
    """Version 1 had two whole hours of a window when it was replaced. With the rows of the break they would seem whole enough,
    or the break would seem to have begun with them."""
    desk = await read(stretches(*ROLLED_BACK_IN_A_BREAK))
    assert told(desk) == [
        ("1", 0, HEALTHY, 0, 4),
        ("1", 1, HEALTHY, 5, 9),
        ("2", 0, HEALTHY, 12, 16),
        ("2", 1, HEALTHY, 17, 21),
        ("2", 2, BROKEN, 22, 26),
        ("2", 3, BROKEN, 27, 30),
        ("1", 2, BROKEN, 31, 35),
        ("1", 3, BROKEN, 36, 40),
        ("1", 4, HEALTHY, 41, 45),
    ]
    assert desk.registry.get_sample_value("millstream_drift_rows_dropped", {"loop": LOOP}) == 80


@pytest.mark.parametrize("story", [PROMOTED_IN_A_BREAK, ROLLED_BACK_IN_A_BREAK])
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_batches_interleavings_and_restarts_change_nothing(
    story: tuple[tuple[str, float, int], ...], seed: int
) -> None:
    world = stretches(*story)
    inputs = [one for one in (await read(world)).verdicts if one.kind is INPUTS]
    shuffled = await read(world, seed, most=60)
    assert [one for one in shuffled.verdicts if one.kind is INPUTS] == inputs

    found: dict[str, WindowJudged] = {}
    topics, snapshots = Topics(), shuffled.snapshots
    snapshots.kept.clear()
    for part in range(0, len(world.said), 150):
        topics.add(world.said[part : part + 150])
        desk = Desk(topics, snapshots)
        desk.models.known[LOOP, "2"] = baseline("2")
        await (await desk.start()).read_all(40, seed)
        await desk.judging.save()
        found |= {one.id: one for one in desk.verdicts if one.kind is INPUTS}
    assert list(found.values()) == inputs


async def test_by_time_too_a_version_that_comes_back_begins_its_window_anew() -> None:
    """Version 1 was asked for two hours of its stretch: too little to judge, and nothing of what it is asked days later."""
    desk = await read(stretches(("1", 0.1, 8), ("2", 0.1, 30), ("1", 0.9, 10)), window="6h")
    of_the_first = [one for one in told(desk) if one[0] == "1"]
    assert of_the_first == [("1", 0, HEALTHY, 0, 5), ("1", 1, BROKEN, 38, 41), ("1", 2, BROKEN, 42, 47)]
    assert desk.registry.get_sample_value("millstream_drift_rows_dropped", {"loop": LOOP}) == 80


async def test_by_time_who_is_back_within_a_stretch_was_not_away() -> None:
    desk = await read(stretches(("1", 0.1, 8), ("2", 0.1, 5), ("1", 0.1, 12)), window="6h")
    assert [one for one in told(desk) if one[0] == "1"][1] == ("1", 1, HEALTHY, 6, 17)


def test_by_time_who_answers_few_fills_a_window_in_many_stretches() -> None:
    """Forty questions an hour, three in a hundred for version 2: at times none for longer than a stretch."""
    windows, closed, rng = Windows(100_000, HOUR), list[Window](), np.random.default_rng(2013)
    turns = rng.random(20_000) < 0.03
    for n, turn in enumerate(turns):
        asked_at = JUNE + n * HOUR // 40
        closed += windows.close(asked_at)
        windows.add("2" if turn else "1", INPUTS, asked_at, f"{n:05}", (n,))
    of_it = [one for one in closed if one.version == "2"]
    assert max(later - one for one, later in pairwise(np.flatnonzero(turns))) > 100
    assert len(of_it) >= 4
    assert windows.dropped < 20


def test_a_version_that_answers_one_question_in_twenty_has_left_nothing() -> None:
    windows, closed = Windows(200), list[Window]()
    for n in range(6_000):
        version = "2" if n % 20 == 0 else "1"
        closed += windows.close(JUNE + n)
        windows.add(version, INPUTS, JUNE + n, f"{n:05}", (n,))
    assert [len(one.rows) for one in closed] == [200] * 29
    assert (not any(one.left for one in closed), windows.dropped) == (True, 0)


def test_a_window_is_looked_at_once_and_goes_on_where_its_version_soon_does() -> None:
    windows = Windows(200)
    closed, n = list[Window](), 0
    for version, rows in (("1", 150), ("2", 650)):
        for _ in range(rows):
            closed += windows.close(JUNE + n)
            windows.add(version, INPUTS, JUNE + n, f"{n:05}", (n,))
            n += 1
    assert [(one.version, bool(one.left)) for one in closed] == [("1", True), ("2", False), ("2", False), ("2", False)]
    assert closed[0].left == windows.closed_at(closed[1]) - 1 == windows.closed_at(closed[0])

    windows = Windows(200, state=[Window("1", INPUTS, 0, [(0,)] * 150, JUNE, JUNE, heard=150, left=JUNE + 1)])
    windows.add("1", INPUTS, JUNE + 2, "back", (0,))
    assert windows.rows("1", INPUTS) == 151
