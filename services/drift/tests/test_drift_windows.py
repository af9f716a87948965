"""Windows by count and by stream time, for any stream and any way of reading it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.contracts.events import WindowKind
from millstream.contracts.times import HOUR, from_datetime
from millstream_drift.domain.windows import MINIMUM_ROWS, Window, Windows

from .drift_kit import JUNE, Desk, Topics, World, day

INPUTS = WindowKind.INPUTS
ROWS = st.lists(st.tuples(st.integers(0, 120), st.integers(1, 150)), min_size=1, max_size=40)
"""(minutes since the last, rows at that moment)."""


def fed(windows: Windows, rows: list[tuple[int, int]], restart: int = -1, span: int = 0) -> list[Window]:
    """What closes when so many rows come at each moment; begun again from its state before the moment `restart`."""
    closed, now = [], JUNE
    for moment, (minutes, count) in enumerate(rows):
        if moment == restart:
            windows = Windows(windows._size, span, windows.state())
        now += minutes * HOUR // 60
        closed += windows.close(now)
        for row in range(count):
            windows.add("1", INPUTS, now, f"{moment}-{row}", (row,))
    return closed + [one for one in windows.state() if one.rows]


@given(ROWS, st.integers(0, 40))
def test_by_time_each_row_is_in_one_window_which_ends_with_its_stretch(
    rows: list[tuple[int, int]], restart: int
) -> None:
    found = fed(Windows(10_000, HOUR), rows)
    assert sum(len(one.rows) for one in found) == sum(count for _, count in rows)
    for one, following in pairwise(found):
        assert len(one.rows) >= MINIMUM_ROWS
        assert one.end // HOUR < following.start // HOUR
        # It waited no longer than it had to: without its last stretch it had too few rows.
        assert one.start // HOUR == one.end // HOUR or _rows_before(rows, one) < MINIMUM_ROWS
    assert fed(Windows(10_000, HOUR), rows, restart, HOUR) == found


def _rows_before(rows: list[tuple[int, int]], window: Window) -> int:
    now, found = JUNE, 0
    for minutes, count in rows:
        now += minutes * HOUR // 60
        found += count * (window.start <= now and now // HOUR < window.end // HOUR)
    return found


def test_by_time_a_flood_is_judged_before_its_time_is_over() -> None:
    closed = fed(Windows(300, HOUR), [(1, 200)] * 4)
    assert [len(one.rows) for one in closed] == [400, 400]
    assert Windows(300, HOUR).closed_at(closed[0]) == closed[0].end
    assert Windows(10_000, HOUR).closed_at(closed[0]) == JUNE + HOUR


async def test_six_hours_are_a_window_however_many_ask() -> None:
    """40 an hour, so 240 in six hours; one is judged in the tick that opens the next, and says so."""
    topics, world, said_after = Topics(), World(), []
    desk = await Desk(topics, window="6h").start()
    for tick in range(14):
        known = len(world.said)
        world.hours(JUNE + tick * HOUR, 1, labels=False)
        topics.add(world.said[known:])
        await desk.read_all()
        said_after.append(len(desk.verdicts))
    assert said_after == [0] * 6 + [1] * 6 + [2] * 2
    assert [(one.rows, from_datetime(one.at)) for one in desk.verdicts] == [
        (240, JUNE + 6 * HOUR),
        (240, JUNE + 12 * HOUR),
    ]


async def test_a_window_with_too_few_rows_is_judged_with_the_next() -> None:
    world = World().hours(JUNE, 1, each=60, labels=False).hours(JUNE + 6 * HOUR, 1, each=60, labels=False)
    world.hours(JUNE + 18 * HOUR, 1, each=1, labels=False)
    desk = await (await Desk(Topics().add(world.said), window="6h").start()).read_all()
    (one,) = desk.verdicts
    assert (one.rows, from_datetime(one.start), from_datetime(one.at)) == (120, JUNE, JUNE + 12 * HOUR)


@pytest.mark.parametrize("seed", range(4))
async def test_by_time_too_batches_and_interleavings_change_nothing(seed: int) -> None:
    world = World().hours(JUNE, 20)
    world.stretch = 3.0
    topics = Topics().add(world.hours(JUNE + 20 * HOUR, 20).said)
    rules: dict[str, Any] = {"window": "5h", "estimate": True}
    whole = await (await Desk(topics, **rules).start()).read_all()
    bits = await (await Desk(topics, **rules).start()).read_all(most=300, seed=seed)
    assert whole.verdicts
    assert bits.speaker.said == whole.speaker.said


async def test_by_time_a_restart_goes_on_as_if_nothing_had_happened() -> None:
    topics = Topics().add(World().hours(JUNE, 40).said)
    whole = await (await Desk(topics, window="7h").start()).read_all(most=250)
    first = await Desk(topics, window="7h").start()
    rng = np.random.default_rng(1)
    for place in sorted(topics.records):
        await first.read(place, int(rng.integers(100, 500)))
    await first.judging.save()
    second = await (await Desk(topics, first.snapshots, window="7h").start()).read_all(most=250)
    assert first.speaker.said + second.speaker.said == whole.speaker.said
    assert from_datetime(whole.verdicts[0].at) < day(2)
