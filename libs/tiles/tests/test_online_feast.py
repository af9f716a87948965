"""A Feast user's way: a plain repo, applied, filled from a stream, read through Feast."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millstream_tiles import (
    EventBatch,
    FeatureReader,
    TileWriter,
    ValkeyTileStore,
    as_of,
    describe,
    open_store,
    stream_source,
    views_of,
)
from millstream_tiles.errors import BadRepo, BadSource, TilesError
from millstream_tiles.online_store import tile_store_of

NOON = datetime(2013, 3, 1, 12, 0, tzinfo=UTC)
MINUTE = 60_000_000

DEFINITIONS = """
from datetime import timedelta
from feast import Entity, FeatureService, FeatureView, Field, FileSource
from feast.aggregation import Aggregation
from feast.stream_feature_view import StreamFeatureView
from feast.types import Int64, String
from feast.value_type import ValueType
from millstream_tiles import stream_source

origin = Entity(name="airport", join_keys=["origin"])
carrier = Entity(name="carrier", value_type=ValueType.STRING)
departed = stream_source("../streams/flights-departed.yaml")
HOUR, TEN = timedelta(hours=1), timedelta(minutes=10)

origin_delays = StreamFeatureView(
    name="origin_delays", entities=[origin], source=departed, timestamp_field="departed_at",
    aggregations=[
        Aggregation(column="*", function="count", time_window=HOUR, slide_interval=TEN, name="flights"),
        Aggregation(column="dep_delay", function="mean", time_window=HOUR, slide_interval=TEN),
        Aggregation(column="dep_delay", function="max", time_window=24 * HOUR, slide_interval=HOUR, name="worst"),
    ],
)
route_delays = StreamFeatureView(
    name="route_delays", entities=[origin, carrier], source=departed, timestamp_field="departed_at",
    aggregations=[Aggregation(column="dep_delay", function="last", time_window=HOUR, slide_interval=TEN, name="last")],
)
airports = FeatureView(
    name="airports", entities=[origin], ttl=timedelta(0),
    schema=[Field(name="origin", dtype=String), Field(name="runways", dtype=Int64)],
    source=FileSource(name="airports", path="airports.parquet", timestamp_field="at"),
)
delay_v1 = FeatureService(name="delay_v1", features=[origin_delays, route_delays])
delay_v2 = FeatureService(name="delay_v2", features=[origin_delays[["worst"]], airports])
"""

STREAM = """
stream: flights-departed
key: tailnum
id: flight_id
time: departed_at
lateness: 90m
schema: {type: object}
"""

FEATURE_STORE = """
project: flights
provider: local
registry: data/registry.db
online_store: {type: millstream_tiles.online_store.MillstreamOnlineStore, url: "redis://localhost:1/0"}
entity_key_serialization_version: 3
"""


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """The flights project with its Feast repo, as a user writes it."""
    (tmp_path / "streams").mkdir()
    (tmp_path / "streams" / "flights-departed.yaml").write_text(STREAM)
    folder = tmp_path / "features"
    folder.mkdir()
    (folder / "definitions.py").write_text(DEFINITIONS)
    (folder / "feature_store.yaml").write_text(FEATURE_STORE)
    return folder


def micros(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000)


def departures(flights: list[tuple[str, str, datetime, float | None]]) -> EventBatch:
    """(origin, carrier, departed at, delay); each known a second later."""
    times = np.array([micros(at) for _, _, at, _ in flights], dtype=np.int64)
    return EventBatch(
        stream="flights-departed",
        partition=0,
        start=0,
        end=len(flights) - 1,
        offsets=np.arange(len(flights)),
        event_time=times,
        known_at=times + 1_000_000,
        ids=[f"flight-{i}" for i in range(len(flights))],
        columns={
            "origin": [f[0] for f in flights],
            "carrier": [f[1] for f in flights],
            "dep_delay": [f[3] for f in flights],
        },
    )


MORNING = [
    ("JFK", "DL", NOON - timedelta(minutes=100), 70.0),
    ("JFK", "DL", NOON - timedelta(minutes=30), 10.0),
    ("JFK", "AA", NOON - timedelta(minutes=20), 20.0),
    ("LGA", "AA", NOON - timedelta(minutes=5), None),
]


def test_a_plain_repo_is_read_as_views(repo: Path) -> None:
    catalogue = describe(repo)
    view = catalogue.views["origin_delays"]
    assert (view.stream, view.keys, view.time_field) == ("flights-departed", ("origin",), "departed_at")
    assert (view.lateness, view.event_id) == (90 * MINUTE, "flight_id")
    assert [(a.name, a.function, a.tiles) for a in view.aggregates] == [
        ("flights", "count", 6),
        ("mean_dep_delay_3600s", "mean", 6),
        ("worst", "max", 24),
    ]
    assert catalogue.views["route_delays"].keys == ("origin", "carrier")
    assert catalogue.services["delay_v1"] == (
        "origin_delays__flights",
        "origin_delays__mean_dep_delay_3600s",
        "origin_delays__worst",
        "route_delays__last",
    )
    assert catalogue.ordinary_views == ("airports",)
    assert catalogue.project == "flights"
    assert not list(repo.glob("**/__pycache__")), "a read-only project can be read"


def test_two_repos_with_the_same_file_names_do_not_mix(repo: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "feature_store.yaml").write_text(FEATURE_STORE.replace("project: flights", "project: boats"))
    (other / "definitions.py").write_text(
        "from shared import x\nfrom feast import Entity\n" + "boat = Entity(name=x)\n"
    )
    (other / "shared.py").write_text("x = 'boat'\n")
    assert set(describe(repo).views) == {"origin_delays", "route_delays"}
    assert describe(other).views == {}
    assert set(describe(repo).views) == {"origin_delays", "route_delays"}


@pytest.mark.parametrize(
    ("line", "instead", "complaint"),
    [
        ('function="mean"', 'function="median"', "no function 'median'; there are count, sum, mean"),
        ("slide_interval=TEN)", "slide_interval=timedelta(minutes=7))", "does not divide window 1:00:00; write for"),
        ('name="flights"', 'name="worst"', "two aggregations are called 'worst'; give one of them a name"),
        ("entities=[origin], source=departed", "source=departed", "it has no entity; write entities="),
        (
            "entities=[origin], source",
            'entities=[Entity(name="tail")], source',
            "entity 'tail' is in no variable; write tail =",
        ),
        ('column="dep_delay", function="mean"', 'function="mean"', "no column; only count may go without"),
        ('function="mean"', 'function="last_k"', "no function 'last_k'; there are"),
        ('function="mean"', 'function="last_101"', "'last_101' keeps 101 values; write last_1 to last_100"),
        (
            "time_window=24 * HOUR",
            "time_window=90 * 24 * HOUR * 61",
            "its window is 131760 slides, max may have 131072",
        ),
        (
            'function="max", time_window=24 * HOUR',
            'function="p90", time_window=30 * 24 * HOUR',
            "its window is 720 slides, p90 may have 512; write for example slide_interval=timedelta.minutes=90",
        ),
        (
            'entities=[origin], source=departed, timestamp_field="departed_at",',
            'entities=[origin], source=departed, timestamp_field="departed_at", tags={"where": "in delay"},',
            "tags=.'where': ....: column 1: cannot be read from",
        ),
        (
            'entities=[origin], source=departed, timestamp_field="departed_at",',
            'entities=[origin], source=departed, timestamp_field="departed_at", tags={"where": "dep_delay + 1"},',
            "is a number; write a comparison",
        ),
        (
            'entities=[origin], source=departed, timestamp_field="departed_at",',
            'entities=[origin], source=departed, timestamp_field="departed_at", tags={"wher": "dep_delay > 1"},',
            "tag 'wher' means nothing; did you mean 'where'",
        ),
    ],
)
def test_a_view_that_cannot_be_computed_says_why(repo: Path, line: str, instead: str, complaint: str) -> None:
    definitions = repo / "definitions.py"
    assert line in DEFINITIONS
    definitions.write_text(DEFINITIONS.replace(line, instead))
    with pytest.raises(BadRepo, match=r"features/definitions\.py:\d+: origin_delays: .*" + complaint):
        describe(repo)


def test_a_broken_repo_says_which_file(repo: Path) -> None:
    (repo / "definitions.py").write_text("import nothing_like_this\n")
    with pytest.raises(BadRepo, match=r"definitions\.py:1: ModuleNotFoundError: No module named 'nothing_like_this'"):
        describe(repo)
    (repo / "feature_store.yaml").write_text("provider: local\n")
    with pytest.raises(BadRepo, match=r"feature_store\.yaml: no project"):
        describe(repo)


def test_a_source_needs_a_time_and_a_readable_lateness(tmp_path: Path) -> None:
    source = stream_source("orders", time="placed_at", lateness="2h", id="order")
    assert source.name == source.kafka_options.topic == "orders"
    assert source.kafka_options.watermark_delay_threshold == timedelta(hours=2)
    with pytest.raises(BadSource, match=r"no event time; name its column"):
        stream_source("orders")
    with pytest.raises(BadSource, match="'soon' is no duration; write it like"):
        stream_source("orders", time="placed_at", lateness="soon")
    with pytest.raises(BadSource, match="cannot be read"):
        stream_source(tmp_path / "missing.yaml")


@pytest.mark.connected
async def test_get_online_features_just_works(repo: Path, valkey_url: str) -> None:
    store = open_store(repo, online={"url": valkey_url, "namespace": "just-works"})
    tiles = ValkeyTileStore(valkey_url, "just-works")
    await TileWriter(tiles, views_of(store).values(), "features").write(departures(MORNING))
    rows = [{"origin": o, "carrier": c} for o, c in (("JFK", "DL"), ("LGA", "AA"), ("SFO", "UA"), ("JFK", "AA"))]

    def ask() -> dict[str, Any]:
        answer = store.get_online_features(store.get_feature_service("delay_v1"), rows, full_feature_names=True)
        return dict(answer.to_dict())

    with as_of(NOON):
        noon = await asyncio.to_thread(ask)
    assert noon["origin_delays__flights"] == [2, 1, 0, 2]
    assert noon["origin_delays__mean_dep_delay_3600s"] == [15.0, None, None, 15.0]
    assert noon["origin_delays__worst"] == [70.0, None, None, 70.0]
    assert noon["route_delays__last"] == [10.0, None, None, 20.0]

    with as_of(NOON + timedelta(minutes=40)):  # nothing came, and yet it decays
        later = store.get_online_features(["origin_delays:flights"], rows).to_dict()
    assert later["flights"] == [0, 1, 0, 0]
    now = await store.get_online_features_async(["origin_delays:flights"], rows)
    assert now.to_dict()["flights"] == [0, 0, 0, 0]
    await store.close()
    await tiles.close()


@pytest.mark.connected
@pytest.mark.parametrize("server", ["valkey_url", "valkey_cluster_url"])
async def test_ordinary_views_live_in_the_same_store(repo: Path, server: str, request: pytest.FixtureRequest) -> None:
    import pandas as pd

    url = request.getfixturevalue(server)
    store = open_store(repo, online={"url": url, "namespace": "ordinary"})
    tiles = tile_store_of(store.config)
    await TileWriter(tiles, views_of(store).values(), "features").write(departures(MORNING))
    store.write_to_online_store("airports", pd.DataFrame({"origin": ["JFK"], "runways": [4], "at": [NOON]}))
    with pytest.raises(TilesError, match="push and materialize cannot write it"):
        store.write_to_online_store(
            "origin_delays",
            pd.DataFrame(
                {
                    "origin": ["JFK"],
                    "flights": [1],
                    "mean_dep_delay_3600s": [1.0],
                    "worst": [1.0],
                    "departed_at": [NOON],
                }
            ),
        )
    reader = FeatureReader(store, "delay_v2")
    assert reader.names == ("origin_delays__worst", "airports__runways")
    assert reader.entity_columns == ("origin",)
    found = reader.read({"origin": ["JFK", "SFO"]}, micros(NOON))
    assert found["origin_delays__worst"][0] == 70.0
    assert math.isnan(found["origin_delays__worst"][1])
    assert found["airports__runways"].tolist() == [4, None]
    again = await reader.read_async({"origin": ["JFK", "SFO"]}, micros(NOON))
    assert again["airports__runways"].tolist() == [4, None]
    assert reader.stream_times() == {"origin_delays": micros(NOON - timedelta(minutes=5)) + 1_000_000}
    assert await tiles.fence("features", "flights-departed", 0) is not None
    store.teardown()
    assert await tiles.fence("features", "flights-departed", 0) is None
    await reader.aclose()
    await store.close()
    await tiles.close()


@pytest.mark.connected
async def test_every_row_may_ask_for_its_own_time(repo: Path, valkey_url: str) -> None:
    store = open_store(repo, online={"url": valkey_url, "namespace": "own-time"})
    tiles = ValkeyTileStore(valkey_url, "own-time")
    await TileWriter(tiles, views_of(store).values(), "features").write(departures(MORNING))
    reader = FeatureReader(store, "delay_v1")
    times = np.array([micros(NOON + timedelta(minutes=m)) for m in (0, 30, 60, 0)])
    found = reader.read({"origin": ["JFK", "JFK", "JFK", None], "carrier": ["DL"] * 4}, times)
    assert found["origin_delays__flights"].tolist() == [2, 1, 0, 0]
    assert found["origin_delays__flights"].dtype == np.int64
    await reader.aclose()
    await store.close()
    await tiles.close()


def test_an_unknown_service_names_those_there_are(repo: Path) -> None:
    with pytest.raises(BadRepo, match=r"no FeatureService 'delay_v9'; found: delay_v1, delay_v2"):
        FeatureReader(open_store(repo), "delay_v9")
