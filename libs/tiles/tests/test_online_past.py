"""A question about a past whose tiles the store has dropped is answered with null, never with too small a number."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feast import FeatureStore
from hypothesis import given
from hypothesis import strategies as st

from millstream_tiles import (
    Aggregate,
    EventBatch,
    FeatureReader,
    Function,
    TileWriter,
    ValkeyTileStore,
    View,
    as_of,
    tile_store,
)
from millstream_tiles.feast_views import views_of
from millstream_tiles.held import Course, all_held, gone_of
from millstream_tiles.memory_reader import MemoryWindowReader
from millstream_tiles.memory_tiles import MemoryTileStore
from millstream_tiles.partials import oldest_of, slack_of
from millstream_tiles.reader import WindowReader
from millstream_tiles.scripts import Script
from millstream_tiles.tile_store import APPLY
from millstream_tiles.tiling import cover, tilings_of

from .airports_story import NOON, open_filled, write_repo

MINUTE, HOUR = 60_000_000, 3_600_000_000
MICROS = int(NOON.timestamp()) * 1_000_000

GATES = View(
    name="gates",
    stream="departures",
    keys=("origin",),
    time_field="at",
    lateness=HOUR,
    event_id=None,
    aggregates=(
        Aggregate(name="flights_1h", function=Function.COUNT, column="*", window=HOUR, slide=10 * MINUTE),
        Aggregate(name="mean_1h", function=Function.MEAN, column="delay", window=HOUR, slide=10 * MINUTE),
        Aggregate(name="flights_3h", function=Function.COUNT, column="*", window=3 * HOUR, slide=10 * MINUTE),
        Aggregate(name="last_2", function=Function.LAST_K, column="delay", window=3 * HOUR, slide=10 * MINUTE, k=2),
        Aggregate(name="kinds", function=Function.COUNT_DISTINCT, column="delay", window=3 * HOUR, slide=10 * MINUTE),
    ),
)


def every_ten_minutes(hours: int, start: int = 0, noon: int = MICROS) -> EventBatch:
    """One departure from JFK at the start of each ten minutes after noon, known at once."""
    times = noon + np.arange(start, 6 * hours, dtype=np.int64) * 10 * MINUTE
    return EventBatch(
        stream="departures",
        partition=0,
        start=start,
        end=start + len(times) - 1,
        offsets=np.arange(start, start + len(times)),
        event_time=times,
        known_at=times,
        ids=None,
        columns={"origin": ["JFK"] * len(times), "carrier": ["DL"] * len(times), "delay": [5.0] * len(times)},
    )


@pytest.fixture(
    params=[
        "memory",
        pytest.param("valkey", marks=pytest.mark.connected),
        pytest.param("valkey-3-shards", marks=pytest.mark.connected),
    ]
)
async def reader(request: pytest.FixtureRequest) -> AsyncIterator[WindowReader | MemoryWindowReader]:
    """Of a store to which a day was told an hour at a time, as a worker does."""
    store: MemoryTileStore | ValkeyTileStore
    if request.param == "memory":
        store = MemoryTileStore()
        found: WindowReader | MemoryWindowReader = MemoryWindowReader(store, {"gates": GATES})
    else:
        url, shards = request.getfixturevalue("valkey_url"), 3 if "shards" in request.param else 1
        store = ValkeyTileStore(url, request.node.name, shards)
        found = WindowReader(url, request.node.name, {"gates": GATES}, shards=shards)
    writer = TileWriter(store, [GATES], "features")
    for hour in range(24):
        await writer.write(every_ten_minutes(hour + 1, start=6 * hour))
    yield found
    await store.close()
    if isinstance(found, WindowReader):
        await found.aclose()


NEWEST = MICROS + 24 * HOUR - 10 * MINUTE


def asked(reader: WindowReader | MemoryWindowReader, at: Any) -> dict[str, list[Any]]:
    [values] = reader.read([("gates", {"origin": ["JFK"]})], at)
    return {name: column.tolist() for name, column in values.items()}


def test_within_the_slack_every_window_is_whole(reader: WindowReader | MemoryWindowReader) -> None:
    for at in (NEWEST, NEWEST - HOUR):
        found = asked(reader, at)
        assert (found["flights_1h"], found["flights_3h"], found["mean_1h"]) == ([6], [18], [5.0])
        assert found["last_2"] == [[5.0, 5.0]]
        assert found["kinds"] == [1]


def test_a_window_whose_tiles_were_dropped_is_null(reader: WindowReader | MemoryWindowReader) -> None:
    """Twelve hours back there is not one tile left: nothing would have been counted."""
    found = asked(reader, NEWEST - 12 * HOUR)
    for name in ("flights_1h", "mean_1h", "flights_3h", "kinds"):
        assert np.isnan(found[name]).all(), name
    assert np.isnan(found["last_2"]).all()


def test_a_short_window_beside_a_long_one_reaches_further_back(reader: WindowReader | MemoryWindowReader) -> None:
    found = asked(reader, NEWEST - HOUR - 10 * MINUTE)
    assert np.isnan(found["flights_3h"]).all()
    assert found["flights_1h"] == [6]
    assert asked(reader, NEWEST - 3 * HOUR)["flights_1h"] == [6]
    assert np.isnan(asked(reader, NEWEST - 3 * HOUR - 10 * MINUTE)["flights_1h"]).all()


def test_each_row_by_its_own_time_and_a_row_without_a_key_never(reader: WindowReader | MemoryWindowReader) -> None:
    rows = {"origin": ["JFK", "JFK", None, "LGA"]}
    [values] = reader.read([("gates", rows)], np.array([NEWEST, *[NEWEST - 12 * HOUR] * 3]))
    assert values["flights_1h"].dtype == np.float64
    assert np.array_equal(values["flights_1h"], [6, np.nan, 0, np.nan], equal_nan=True)


DAY = 24 * HOUR


@pytest.fixture
async def paused(valkey_url: str) -> AsyncIterator[Paused]:
    """The same day in a Valkey, whose clock can be taken for another one."""
    async with aclosing(Paused(valkey_url)) as mill:
        for hour in range(24):
            await mill.write(hour)
        yield mill


class Paused:
    """A mill that is left alone for a while."""

    def __init__(self, url: str, noon: int = MICROS) -> None:
        self.noon = noon
        self.store = ValkeyTileStore(url, "paused", 2)
        self.reader = WindowReader(url, "paused", {"gates": GATES}, shards=2)
        self._writer = TileWriter(self.store, [GATES], "features")

    async def aclose(self) -> None:
        await self.store.close()
        await self.reader.aclose()

    async def write(self, hour: int) -> None:
        await self._writer.write(every_ten_minutes(hour + 1, start=6 * hour, noon=self.noon))

    def passes(self, time: int) -> None:
        """Everything in the store happened `time` microseconds earlier by its clock, and what expired meanwhile is gone."""
        client = self.reader.client.sync()
        for key in client.scan_iter("{paused:*"):
            if b"}:course:" in key:
                behind, stood_at, before = map(int, client.get(key).split())
                client.set(key, f"{behind - time} {stood_at} {before - time}")
            elif (left := client.pttl(key)) > 0:
                client.pexpire(key, left - time // 1000)


@pytest.mark.connected
async def test_a_stream_that_stood_still_over_night_is_read_as_it_was_left(paused: Paused) -> None:
    before = asked(paused.reader, NEWEST)
    paused.passes(DAY)
    assert asked(paused.reader, NEWEST) == before
    assert before["flights_3h"] == [18]


@pytest.mark.connected
async def test_what_expired_while_the_stream_stood_still_is_null_and_not_too_little(paused: Paused) -> None:
    paused.passes(DAY + 5 * HOUR)
    assert not [k for k in paused.reader.client.sync().scan_iter("{paused:*") if b":tile:" in k], "it is all gone"
    found = asked(paused.reader, NEWEST)
    for name in ("flights_1h", "flights_3h", "mean_1h", "kinds"):
        assert np.isnan(found[name]).all(), name
    assert asked(paused.reader, NEWEST + 12 * HOUR)["flights_3h"] == [0], "nobody left since then"


@pytest.mark.connected
async def test_when_the_stream_goes_on_windows_are_null_until_they_have_passed_the_pause(paused: Paused) -> None:
    paused.passes(3 * DAY)
    await paused.write(24)
    found = asked(paused.reader, NEWEST + HOUR)
    assert np.isnan(found["flights_3h"]).all(), "two of its three hours expired"
    assert found["flights_1h"] == [6]
    await paused.write(25)
    assert np.isnan(asked(paused.reader, NEWEST + 2 * HOUR)["flights_3h"]).all()
    await paused.write(26)
    assert asked(paused.reader, NEWEST + 3 * HOUR)["flights_3h"] == [18]


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """While it is not undone, workers are of the version that knew nothing of a course; it is the last part of the script."""
    before, _ = APPLY.text.split("\n-- 5. ")
    monkeypatch.setattr(tile_store, "APPLY", Script(before + "\nreturn {'applied', last}\n"))
    return monkeypatch


@pytest.mark.connected
async def test_what_an_older_version_wrote_before_a_pause_is_null_until_windows_have_passed_it(
    older: pytest.MonkeyPatch, paused: Paused
) -> None:
    """Its first writer of today knows nothing of the pause: three days, and the day's tiles have expired."""
    assert not [k for k in paused.reader.client.sync().scan_iter("{paused:*") if b"}:course:" in k]
    paused.passes(3 * DAY)
    assert np.isnan(asked(paused.reader, NEWEST)["flights_3h"]).all(), "nobody has written since"
    older.undo()
    await paused.write(24)
    found = asked(paused.reader, NEWEST + HOUR)
    assert np.isnan(found["flights_3h"]).all(), "two of its three hours expired"
    assert found["flights_1h"] == [6]
    await paused.write(25)
    await paused.write(26)
    assert asked(paused.reader, NEWEST + 3 * HOUR)["flights_3h"] == [18]


@pytest.mark.connected
async def test_what_an_older_version_wrote_until_now_is_whole(older: pytest.MonkeyPatch, valkey_url: str) -> None:
    noon = time.time_ns() // 1000 // HOUR * HOUR - 25 * HOUR
    async with aclosing(Paused(valkey_url, noon)) as mill:
        for hour in range(24):
            await mill.write(hour)
        newest = noon + DAY - 10 * MINUTE
        assert [asked(mill.reader, newest - lag)["flights_3h"] for lag in (0, HOUR)] == [[18], [18]]
        older.undo()
        await mill.write(24)
        assert [asked(mill.reader, newest + HOUR - lag)["flights_3h"] for lag in (0, HOUR)] == [[18], [18]]


def test_a_quiet_stream_is_held_now_and_a_replay_at_its_own_time() -> None:
    now, year = MICROS, 365 * DAY
    [*_, tiling] = [t for t in tilings_of(GATES) if not t.layout.sketch]
    keyed = np.array([True])

    def gone(at: int, course: Course) -> set[str]:
        found = set(gone_of(tiling, np.array([at]), keyed, course))
        assert not (found and all_held(GATES, at, course)), "the one look promises no more than the whole"
        return found

    quiet = Course(now=now, newest=now - 3 * DAY, behind=0, behind_before=0)
    assert not gone(now, quiet)
    assert gone(now - 3 * DAY, quiet) == {"flights_1h", "mean_1h", "flights_3h", "last_2"}
    replay = Course(now=now, newest=now - year, behind=year, behind_before=year)
    assert not gone(now - year, replay)
    catching_up = Course(now=now, newest=now - DAY, behind=DAY, stood_at=now - 3 * DAY, behind_before=0)
    assert not gone(now - DAY, catching_up), "what was applied after the pause is there"
    assert gone(now - 3 * DAY + HOUR, catching_up)
    assert not gone(now, Course(newest=now - HOUR)), "a store without a clock"


@given(
    window=st.integers(513, 3_000),
    shorter=st.integers(1, 3_000),
    newest=st.integers(0, 10**6),
    lag=st.integers(0, 4_000),
)
def test_what_is_held_is_held_on_both_levels(window: int, shorter: int, newest: int, lag: int) -> None:
    """A long window reads coarse tiles in its middle: none that it may need is given up before the fine ones are."""
    aggregates = (
        Aggregate(name="long", function=Function.COUNT, column="*", window=window * MINUTE, slide=MINUTE),
        Aggregate(
            name="short", function=Function.COUNT, column="*", window=min(shorter, window) * MINUTE, slide=MINUTE
        ),
    )
    view = View(
        name="v",
        stream="s",
        keys=("k",),
        time_field="at",
        lateness=2 * HOUR,
        event_id=None,
        aggregates=aggregates,
    )
    [tiling] = tilings_of(view)
    assert tiling.coarse is not None
    now = MICROS + newest * MINUTE
    for aggregate in aggregates:
        last = np.array([(now - lag * MINUTE) // MINUTE])
        first = last - aggregate.tiles + 1
        if (first * MINUTE >= oldest_of(tiling, now)).all():
            parts = cover(first, last, tiling.coarse.layout.coarse)
            assert (parts.first > parts.last).all() or (
                parts.first * tiling.coarse.slide >= oldest_of(tiling.coarse, now)
            ).all()
        else:
            assert lag * MINUTE > slack_of(view) - MINUTE, "within the slack everything is held"


@pytest.fixture
async def store(tmp_path: Path, valkey_url: str) -> AsyncIterator[FeatureStore]:
    """The airports' morning, and a departure of the next day."""
    store = await open_filled(write_repo(tmp_path), valkey_url, namespace="online-past")
    tiles = ValkeyTileStore(valkey_url, "online-past")
    await TileWriter(tiles, views_of(store).values(), "features").write(
        every_ten_minutes(24, start=6 * 24 - 1), accept_gap=True
    )
    await tiles.close()
    yield store
    store.teardown()
    await store.close()


def answered(store: FeatureStore, at: datetime) -> dict[str, list[tuple[Any, str]]]:
    """Feature -> (value, status) of JFK twice, and of no key."""
    from feast.feature_server_utils import convert_response_to_dict

    rows = [{"origin": "JFK", "carrier": "DL"}] * 2
    with as_of(at):
        response = store.get_online_features(
            ["delays:flights", "delays:mean", "routes:worst", "airports:runways"], rows
        )
    said = convert_response_to_dict(response.proto)
    return {
        name: list(zip(one["values"], one["statuses"], strict=True))
        for name, one in zip(said["metadata"]["feature_names"], said["results"], strict=True)
    }


@pytest.mark.connected
async def test_feast_calls_it_outside_max_age(store: FeatureStore) -> None:
    now = answered(store, NOON + timedelta(hours=24))
    assert now["flights"] == [(1, "PRESENT")] * 2
    assert now["runways"] == [(None, "NOT_FOUND")] * 2
    lag = answered(store, NOON + timedelta(hours=23))
    assert lag["flights"] == [(0, "PRESENT")] * 2, "within the slack as ever"
    then = answered(store, NOON)
    for name in ("flights", "mean", "worst"):
        assert then[name] == [(None, "OUTSIDE_MAX_AGE")] * 2, name
    assert then["runways"] == [(None, "NOT_FOUND")] * 2


@pytest.mark.connected
async def test_a_scorer_reads_null(store: FeatureStore) -> None:
    reader = FeatureReader(store, "computed")
    rows = {"origin": ["JFK", "JFK"], "hour": [1, 1]}
    later = MICROS + 24 * HOUR
    for found in (
        reader.read(rows, np.array([MICROS, later])),
        await reader.read_async(rows, np.array([MICROS, later])),
    ):
        assert np.array_equal(found["delays__flights"], [np.nan, 1], equal_nan=True)
    await reader.aclose()
