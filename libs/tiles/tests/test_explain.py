"""A feature taken apart: every event stands in its tile with its fate, and a tile that lies is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from deltalake import DeltaTable

from millstream_tiles.definition import Aggregate, Function, View
from millstream_tiles.events import EventBatch
from millstream_tiles.explain import Traces, explain_view, reading, traces_of
from millstream_tiles.key_events import Fate, has_events, keys_of
from millstream_tiles.lake_gaps import missing_offsets
from millstream_tiles.memory_reader import MemoryWindowReader
from millstream_tiles.memory_tiles import MemoryTileStore
from millstream_tiles.recount import Event
from millstream_tiles.writer import TileWriter

from .skew_story import HOUR, MARCH, MINUTE, VIEW, flight, lake_of

KEY = ("JFK", "7")
TWO = MARCH + 2 * HOUR


async def tiles_of(events: Sequence[Event], view: View = VIEW) -> MemoryTileStore:
    store = MemoryTileStore()
    batch = EventBatch(
        stream=VIEW.stream,
        partition=0,
        start=0,
        end=len(events) - 1,
        offsets=np.arange(len(events)),
        event_time=np.array([e.event_time for e in events]),
        known_at=np.array([e.known_at for e in events]),
        ids=[e.columns["flight_id"] for e in events],
        columns={name: [e.columns[name] for e in events] for name in ("flight_id", "origin", "gate", "delay")},
    )
    await TileWriter(store, [view], "test").write(batch)
    return store


FLIGHTS = [
    flight(0, 65, delay=4.0),
    flight(1, 66, delay=6.0),
    flight(2, 67, delay=99.0, id="F0"),  # a copy
    flight(3, 97, known=98, delay=8.0),
    flight(4, 98, known=118, delay=10.0),
    flight(5, 110, known=121, delay=12.0),  # not known at two
    flight(6, 61, known=125, delay=50.0),  # late
]


async def test_each_event_stands_in_its_tile_with_its_fate(tmp_path: Path) -> None:
    lake, views = lake_of(tmp_path, FLIGHTS), {VIEW.name: VIEW}
    reader = MemoryWindowReader(await tiles_of(FLIGHTS), views)
    mean, flights = explain_view(VIEW, KEY, TWO, lake=lake, online=reading(reader, views))
    assert (mean.start, mean.end) == (MARCH + 65 * MINUTE, MARCH + 125 * MINUTE)
    assert mean.offline == mean.recounted == pytest.approx((4 + 6 + 8 + 10) / 4)
    assert mean.online == pytest.approx((4 + 6 + 8 + 10 + 12) / 5), "online cannot forget what it learned since"
    assert mean.held
    said = [((t.start - MARCH) // MINUTE, t.online, t.recounted, t.by_now) for t in mean.tiles]
    assert said == [(65, 5.0, 5.0, 5.0), (95, 9.0, 9.0, 9.0), (110, 12.0, None, 12.0)]
    assert not any(t.differs for t in mean.tiles)
    fates = {m.event.offset: m.fate for t in mean.tiles for m in t.events}
    known = {0: Fate.COUNTED, 1: Fate.COUNTED, 2: Fate.DUPLICATE, 3: Fate.COUNTED, 4: Fate.COUNTED, 5: Fate.UNKNOWN}
    assert fates == known
    assert (flights.online, flights.offline, flights.recounted) == (5, 4, 4)
    assert [len(t.events) for t in flights.tiles] == [4, 2, 1], "the late one is in the first quarter of an hour"
    assert Fate.LATE in {m.fate for t in flights.tiles for m in t.events}


async def test_a_tile_that_lies_is_named(tmp_path: Path) -> None:
    lake, views = lake_of(tmp_path, FLIGHTS), {VIEW.name: VIEW}
    store = await tiles_of(FLIGHTS)
    [held] = [tiles for (_, slide, _, _), tiles in store.tiles.items() if slide == 5 * MINUTE]
    wrong = (MARCH + 95 * MINUTE) // (5 * MINUTE)
    held[wrong][1:] *= 3
    held[wrong + 1] = held[wrong].copy()  # and one that no event made
    held[wrong + 1][0] = wrong + 1
    reader = MemoryWindowReader(store, views)
    [mean] = explain_view(VIEW, KEY, TWO, lake=lake, online=reading(reader, views), features=["mean_1h"])
    thrice, invented = [t for t in mean.tiles if t.differs]
    assert (thrice.index, thrice.online, thrice.by_now, thrice.sums) == (wrong, 9.0, 9.0, (54.0, 18.0))
    assert (invented.index, invented.online, invented.by_now, invented.events) == (wrong + 1, 9.0, None, ())


async def test_a_long_window_is_taken_apart_tile_by_tile(tmp_path: Path) -> None:
    """More tiles than are asked for together."""
    week = Aggregate(name="flights_7d", function=Function.COUNT, column="*", window=7 * 24 * HOUR, slide=15 * MINUTE)
    view = replace(VIEW, aggregates=(*VIEW.aggregates, week))
    flights = [flight(n, 37 * n) for n in range(250)]
    lake, views = lake_of(tmp_path, flights), {view.name: view}
    t = flights[-1].event_time + MINUTE
    # The count of three hours has the same slide and so the same tiles.
    reader = MemoryWindowReader(await tiles_of(flights), views)
    [found] = explain_view(view, KEY, t, lake=lake, online=reading(reader, views), features=["flights_7d"])
    assert found.offline == found.recounted == sum(len(tile.events) for tile in found.tiles)
    assert [tile.recounted for tile in found.tiles] == [1] * len(found.tiles)


def test_the_lake_knows_what_it_lacks_and_which_keys_it_has(tmp_path: Path) -> None:
    flights = [flight(n, n) for n in range(100)]
    lake = lake_of(tmp_path, flights)
    assert missing_offsets(lake, VIEW.stream, since=MARCH, until=TWO) == {0: list(range(100, 300))}, "after the end"
    DeltaTable(f"{lake.uri}/{VIEW.stream}").delete("_offset IN (0, 40, 41)")
    assert missing_offsets(lake, VIEW.stream, since=MARCH, until=TWO)[0][:4] == [0, 40, 41, 100]
    assert missing_offsets(lake, VIEW.stream, since=MARCH + 50 * MINUTE, until=TWO)[0][:4] == [0, 40, 41, 100]
    assert missing_offsets(lake, "no-such-stream", since=MARCH, until=TWO) == {}
    assert keys_of(lake, VIEW) == ["JFK|7"]
    assert (has_events(lake, VIEW, KEY), has_events(lake, VIEW, ("JFK", 8))) == (True, False)


async def test_a_quiet_key_has_a_window_of_nothing_and_is_known(tmp_path: Path) -> None:
    lake, views = lake_of(tmp_path, FLIGHTS), {VIEW.name: VIEW}
    online = reading(MemoryWindowReader(await tiles_of(FLIGHTS), views), views)
    mean, flights = explain_view(VIEW, KEY, TWO + 48 * HOUR, lake=lake, online=online)
    assert (mean.tiles, mean.online, mean.offline, mean.recounted) == ((), None, None, None)
    assert (flights.tiles, flights.online, flights.offline, flights.recounted) == ((), 0, 0, 0)
    assert traces_of(VIEW, KEY, lake=lake, online=online) == Traces(lake=True, online=True)
    assert traces_of(VIEW, ("LGA", "7"), lake=lake, online=online) == Traces(lake=False, online=False)


async def test_tiles_of_which_the_lake_knows_nothing_are_shown(tmp_path: Path) -> None:
    """A mean of 0.0 too, which is no empty tile."""
    elsewhere = [flight(0, 65, delay=4.0), flight(1, 97, delay=0.0)]
    views = {VIEW.name: VIEW}
    online = reading(MemoryWindowReader(await tiles_of(elsewhere), views), views)
    lake = lake_of(tmp_path, [replace(e, columns={**e.columns, "gate": 8}) for e in elsewhere])
    mean, flights = explain_view(VIEW, KEY, TWO, lake=lake, online=online)
    assert [(t.online, t.by_now, t.differs, t.events) for t in mean.tiles] == [
        (4.0, None, True, ()),
        (0.0, None, True, ()),
    ]
    assert (flights.online, flights.offline, flights.recounted) == (2, 0, 0)
    assert traces_of(VIEW, KEY, lake=lake, online=online) == Traces(lake=False, online=True)


async def test_windows_of_two_levels_sketches_and_lists_are_taken_apart(tmp_path: Path) -> None:
    day = 24 * HOUR
    made = (
        Aggregate(name="last_2", function=Function.LAST_K, column="delay", window=HOUR, slide=HOUR, k=2),
        Aggregate(name="distinct", function=Function.COUNT_DISTINCT, column="flight_id", window=day, slide=HOUR),
        Aggregate(name="p50", function=Function.P50, column="delay", window=day, slide=HOUR),
        Aggregate(name="mean_90d", function=Function.MEAN, column="delay", window=90 * day, slide=HOUR),
    )
    view = replace(VIEW, aggregates=made, where="delay != 99")
    lake, views = lake_of(tmp_path, FLIGHTS), {view.name: view}
    reader = MemoryWindowReader(await tiles_of(FLIGHTS, view), views)
    found = explain_view(view, KEY, TWO + 5 * MINUTE, lake=lake, online=reading(reader, views))
    by_name = {one.aggregate.name: one for one in found}
    assert by_name["last_2"].online == by_name["last_2"].offline == by_name["last_2"].recounted is None
    for name in ("distinct", "p50", "mean_90d"):
        one = by_name[name]
        assert one.online == pytest.approx(one.recounted) == pytest.approx(one.offline), name
        assert len(one.tiles) == 1
        assert one.tiles[0].online == pytest.approx(one.online), name
        assert not one.tiles[0].differs
    earlier = explain_view(view, KEY, TWO - 1, lake=lake, online=reading(reader, views), features=["last_2"])
    assert (earlier[0].recounted, earlier[0].online) == ([10.0, 8.0], [12.0, 10.0])
    assert earlier[0].tiles[0].by_now == [12.0, 10.0]
