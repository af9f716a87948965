"""Every function, with and without a filter, as a Feast user writes it: one number online, offline and recounted."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import redis
from feast import FeatureStore

from millstream_tiles import (
    EventBatch,
    FeatureReader,
    TileWriter,
    ValkeyTileStore,
    as_of,
    describe,
    open_store,
    views_of,
)
from millstream_tiles.lake import Lake, LakeBatch
from millstream_tiles.lake_schema import events_table, table_schema
from millstream_tiles.recount import Event, recount
from millstream_tiles.tiling import FLAT, tilings_of

NOON = datetime(2013, 3, 1, 12, 0, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

DEFINITIONS = """
from datetime import timedelta
from feast import Entity, FeatureService
from feast.aggregation import Aggregation
from feast.stream_feature_view import StreamFeatureView
from millstream_tiles import stream_source

origin = Entity(name="airport", join_keys=["origin"])
departed = stream_source("../streams/flights-departed.yaml")
FUNCTIONS = "count sum mean min max var std first last last_3 count_distinct p50 p90 p99".split()


def delays(name, window, slide, functions=FUNCTIONS, **more):
    return StreamFeatureView(
        name=name, entities=[origin], source=departed, timestamp_field="departed_at", aggregations=[
            *(Aggregation(column="dep_delay", function=f, time_window=window, slide_interval=slide, name=f) for f in functions),
            Aggregation(column="tailnum", function="count_distinct", time_window=window, slide_interval=slide, name="planes"),
        ], **more)


HOUR = timedelta(hours=1)
all_flights = delays("all_flights", 3 * HOUR, timedelta(minutes=10))
kept_flights = delays("kept_flights", 3 * HOUR, timedelta(minutes=10), tags={"where": "not cancelled and distance > 500"})
quarter = StreamFeatureView(
    name="quarter", entities=[origin], source=departed, timestamp_field="departed_at", aggregations=[
        Aggregation(column="dep_delay", function="mean", time_window=timedelta(seconds=30), name="half_a_minute"),
        *(Aggregation(column="dep_delay", function=f, time_window=timedelta(days=90), slide_interval=timedelta(minutes=5),
                      name=f"{f}_90d") for f in ("count", "mean", "last_3")),
        Aggregation(column="dep_delay", function="sum", time_window=HOUR, slide_interval=timedelta(minutes=5), name="sum_1h"),
    ])
service = FeatureService(name="delays", features=[all_flights[["last_3", "p50"]], quarter[["last_3_90d", "count_90d"]]])
"""

STREAM = "stream: flights-departed\nkey: tailnum\nid: flight_id\ntime: departed_at\nlateness: 90m\n"
FEATURE_STORE = """
project: flights
provider: local
registry: data/registry.db
online_store: {type: millstream_tiles.online_store.MillstreamOnlineStore, url: "redis://localhost:1/0"}
offline_store: {type: millstream_tiles.offline_store.MillstreamOfflineStore, lake: ../lake}
entity_key_serialization_version: 3
"""


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    (tmp_path / "streams").mkdir()
    (tmp_path / "streams" / "flights-departed.yaml").write_text(STREAM)
    folder = tmp_path / "features"
    folder.mkdir()
    (folder / "definitions.py").write_text(DEFINITIONS)
    (folder / "feature_store.yaml").write_text(FEATURE_STORE)
    return folder


def flights() -> list[Event]:
    """Ninety-five days of departures from two airports, in the order in which they became known."""
    dice = random.Random(2013)
    told = []
    for i in range(1_500):
        ago = dice.choice([dice.uniform(0, 240), dice.uniform(0, 95 * 24 * 60)])  # minutes; half of them today
        at = NOON - timedelta(minutes=ago)
        told.append((at + timedelta(minutes=dice.choice([0, 1, 30, 80])), at, i))
    events = []
    for offset, (known, at, i) in enumerate(sorted(told)):
        columns = {
            "flight_id": f"F{i}",
            "origin": dice.choice(["JFK", "LGA"]),
            "dep_delay": dice.choice([None, dice.uniform(-10, 200)]),
            "tailnum": f"N{dice.randrange(150)}",
            "distance": dice.choice([200, 800]),
            "cancelled": dice.choice([True, False, None]),
        }
        events.append(
            Event(
                event_time=(at - EPOCH) // timedelta(microseconds=1),
                known_at=(known - EPOCH) // timedelta(microseconds=1),
                offset=offset,
                columns=columns,
            )
        )
    return events


EVENTS = flights()


def batch() -> EventBatch:
    return EventBatch(
        stream="flights-departed",
        partition=0,
        start=0,
        end=len(EVENTS) - 1,
        offsets=np.arange(len(EVENTS)),
        event_time=np.array([e.event_time for e in EVENTS]),
        known_at=np.array([e.known_at for e in EVENTS]),
        ids=[e.columns["flight_id"] for e in EVENTS],
        columns={name: [e.columns[name] for e in EVENTS] for name in EVENTS[0].columns},
    )


def fill_lake(lake: Path) -> None:
    types = {"dep_delay": "number", "distance": "integer", "cancelled": "boolean"}
    properties = {name: {"type": [types.get(name, "string"), "null"]} for name in EVENTS[0].columns}
    rows = events_table(
        table_schema({"properties": properties}),
        partition=0,
        offsets=[e.offset for e in EVENTS],
        event_times=[e.event_time for e in EVENTS],
        known_at=[e.known_at for e in EVENTS],
        ids=[e.columns["flight_id"] for e in EVENTS],
        events=[e.columns for e in EVENTS],
    )
    Lake(str(lake)).append("flights-departed", [LakeBatch(partition=0, end=len(EVENTS) - 1, rows=rows)], group="lake")


@pytest.fixture
async def filled(repo: Path, tmp_path: Path, valkey_url: str) -> AsyncIterator[FeatureStore]:
    """The store after every departure was told to both sides."""
    namespace = f"every-{tmp_path.name}"
    store = open_store(repo, online={"url": valkey_url, "namespace": namespace})
    tiles = ValkeyTileStore(valkey_url, namespace)
    await TileWriter(tiles, views_of(store).values(), "features").write(batch())
    await tiles.close()
    fill_lake(tmp_path / "lake")
    yield store
    await store.close()


ALL_KNOWN = NOON + timedelta(minutes=80)
"""The online side cannot be asked about an earlier time: it has no memory of when it learned what."""
QUESTIONS = [(origin, ALL_KNOWN + timedelta(hours=h)) for origin in ("JFK", "LGA", "SFO") for h in (0, 1.21, 30)]


@pytest.mark.connected
@pytest.mark.parametrize("name", ["all_flights", "kept_flights", "quarter"])
def test_every_function_is_one_number_online_offline_and_recounted(filled: FeatureStore, name: str) -> None:
    view = views_of(filled)[name]
    features = [f"{name}:{a.name}" for a in view.aggregates]
    asked = pd.DataFrame({"origin": [o for o, _ in QUESTIONS], "event_timestamp": [at for _, at in QUESTIONS]})
    offline = filled.get_historical_features(asked, features).to_df()
    for row, (origin, at) in enumerate(QUESTIONS):
        with as_of(at):
            online = filled.get_online_features(features, [{"origin": origin}]).to_dict()
        truth = recount(view, EVENTS, (origin,), (at - EPOCH) // timedelta(microseconds=1))
        for feature, expected in truth.items():
            alike(
                online[feature][0], expected or None if isinstance(expected, list) else expected, (feature, origin, at)
            )
            alike(offline[feature][row], online[feature][0], (feature, origin, at))
    if name != "quarter":
        assert offline["count"].max() > offline["p90"].notna().sum() > 0


def alike(found: object, expected: object, where: object) -> None:
    if isinstance(expected, list):
        assert list(found) == expected, where  # type: ignore[call-overload]
    elif expected is None:
        assert found is None or math.isnan(found), where  # type: ignore[arg-type]
    else:
        assert found == pytest.approx(expected, rel=1e-9), where


@pytest.mark.connected
async def test_a_model_sees_the_latest_values_as_columns(filled: FeatureStore, repo: Path) -> None:
    columns = [
        *(f"all_flights__last_3__{place}" for place in (1, 2, 3)),
        "all_flights__p50",
        "quarter__count_90d",
        *(f"quarter__last_3_90d__{place}" for place in (1, 2, 3)),
    ]
    reader = FeatureReader(filled, "delays")
    assert reader.names == describe(repo).services["delays"] == tuple(columns)
    found = await reader.read_async({"origin": ["JFK", "SFO"]}, (ALL_KNOWN - EPOCH) // timedelta(microseconds=1))
    latest = recount(
        views_of(filled)["all_flights"], EVENTS, ("JFK",), (ALL_KNOWN - EPOCH) // timedelta(microseconds=1)
    )["last_3"]
    assert [found[name][0] for name in columns[:3]] == latest
    assert all(math.isnan(found[name][1]) for name in columns[:3])
    await reader.aclose()


@pytest.mark.connected
def test_ninety_days_of_five_minutes_are_read_from_two_levels(filled: FeatureStore, valkey_url: str) -> None:
    """Some hundred rows where there are more, and no key is read whole."""
    view = views_of(filled)["quarter"]
    long = next(t for t in tilings_of(view) if t.tiles > FLAT)
    assert (long.tiles, long.coarse and long.coarse.layout.coarse) == (25_920, 161)
    with redis.Redis.from_url(valkey_url) as valkey:
        valkey.config_resetstat()
        with as_of(ALL_KNOWN):
            count = filled.get_online_features(["quarter:count_90d"], [{"origin": "JFK"}]).to_dict()["count_90d"][0]
        calls = valkey.info("commandstats")
    assert count > 300
    assert calls["cmdstat_evalsha"]["calls"] == 1
    assert calls["cmdstat_hmget"]["calls"] >= 1
