"""Characters of the online tests: departures in windows, and airports, airlines and a country as ordinary views."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from feast import FeatureStore

from millstream_tiles import EventBatch, TileWriter, ValkeyTileStore, open_store, views_of

NOON = datetime(2013, 3, 1, 12, 0, tzinfo=UTC)
DEFINITIONS = """
from datetime import timedelta
from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, RequestSource
from feast.aggregation import Aggregation
from feast.on_demand_feature_view import on_demand_feature_view
from feast.stream_feature_view import StreamFeatureView
from feast.types import Float64, Int64, String
from millstream_tiles import stream_source

origin, carrier = Entity(name="origin"), Entity(name="carrier")
departed = stream_source("departures", time="departed_at", lateness="90m")
HOUR, TEN = timedelta(hours=1), timedelta(minutes=10)
delays = StreamFeatureView(
    name="delays", entities=[origin], source=departed, timestamp_field="departed_at",
    aggregations=[
        Aggregation(column="*", function="count", time_window=HOUR, slide_interval=TEN, name="flights"),
        Aggregation(column="delay", function="mean", time_window=24 * HOUR, slide_interval=HOUR, name="mean"),
    ])
routes = StreamFeatureView(
    name="routes", entities=[origin, carrier], source=departed, timestamp_field="departed_at",
    aggregations=[Aggregation(column="delay", function="max", time_window=HOUR, slide_interval=TEN, name="worst")])

airports_file = FileSource(name="airports_file", path="airports.parquet", timestamp_field="at", created_timestamp_column="made")
pushed = PushSource(name="airports_push", batch_source=airports_file)
airports = FeatureView(
    name="airports", entities=[origin], ttl=timedelta(seconds=1), source=pushed,
    schema=[Field(name="origin", dtype=String), Field(name="runways", dtype=Int64), Field(name="height", dtype=Float64)])
names = FeatureView(
    name="names", entities=[origin], ttl=timedelta(0), source=airports_file,
    schema=[Field(name="origin", dtype=String), Field(name="city", dtype=String)])
country = FeatureView(
    name="country", entities=[], ttl=timedelta(0), schema=[Field(name="holidays", dtype=Int64)],
    source=FileSource(name="country_file", path="country.parquet", timestamp_field="at"))
asked = RequestSource(name="asked", schema=[Field(name="hour", dtype=Int64)])

@on_demand_feature_view(sources=[delays, airports, asked], schema=[Field(name="load", dtype=Float64)], mode="python")
def load(inputs):
    return {"load": [
        None if r is None else (f + h) / r for f, r, h in zip(inputs["flights"], inputs["runways"], inputs["hour"])]}

mixed = FeatureService(name="mixed", features=[delays, airports, routes, names, country])
twice = FeatureService(name="twice", features=[
    airports[["runways"]].with_name("here").with_join_key_map({"origin": "from_airport"}),
    airports[["runways"]].with_name("there").with_join_key_map({"origin": "to_airport"}),
    delays[["flights"]].with_name("there_delays").with_join_key_map({"origin": "to_airport"}),
])
computed = FeatureService(name="computed", features=[delays[["flights"]], load])
"""
FEATURE_STORE = """
project: flights
provider: local
online_store: {type: millstream_tiles.online_store.MillstreamOnlineStore}
offline_store: {type: millstream_tiles.offline_store.MillstreamOfflineStore}
entity_key_serialization_version: 3
"""
AIRPORTS = pd.DataFrame(
    {
        "origin": ["JFK", "LGA"],
        "runways": [4, 2],
        "height": [3.9, 6.4],
        "city": ["Queens", "New York"],
        "at": [NOON - timedelta(days=2)] * 2,
        "made": [NOON - timedelta(days=2)] * 2,
    }
)


def write_repo(folder: Path) -> Path:
    """The project's Feast repo, with the files of its ordinary views."""
    (folder / "definitions.py").write_text(DEFINITIONS)
    (folder / "feature_store.yaml").write_text(FEATURE_STORE)
    AIRPORTS.to_parquet(folder / "airports.parquet")
    pd.DataFrame({"holidays": [10], "at": [NOON]}).to_parquet(folder / "country.parquet")
    return folder


async def open_filled(folder: Path, url: str, **online: Any) -> FeatureStore:
    """The store of the repo, its windows filled with a morning of four departures."""
    store = open_store(folder, online={"url": url} | online)
    flights = [("JFK", "DL", 100, 70.0), ("JFK", "DL", 30, 10.0), ("JFK", "AA", 20, 20.0), ("LGA", "AA", 5, None)]
    times = np.array([int((NOON - timedelta(minutes=m)).timestamp()) * 1_000_000 for _, _, m, _ in flights])
    tiles = ValkeyTileStore(url, store.config.online_store.namespace or store.project)
    await TileWriter(tiles, views_of(store).values(), "features").write(
        EventBatch(
            stream="departures",
            partition=0,
            start=0,
            end=3,
            offsets=np.arange(4),
            event_time=times,
            known_at=times,
            ids=None,
            columns={
                "origin": [f[0] for f in flights],
                "carrier": [f[1] for f in flights],
                "delay": [f[3] for f in flights],
            },
        )
    )
    await tiles.close()
    return store


def airport(origin: str, runways: int, at: datetime, height: float = 0.0) -> pd.DataFrame:
    return pd.DataFrame({"origin": [origin], "runways": [runways], "height": [height], "at": [at], "made": [at]})
