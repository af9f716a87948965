"""A Feast user's way to history: a plain repo, a filled lake, `get_historical_features`."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from feast import FeatureStore

from millstream_tiles import open_store
from millstream_tiles.errors import TilesError
from millstream_tiles.lake import Lake, LakeBatch
from millstream_tiles.lake_schema import events_table, table_schema

pytestmark = pytest.mark.filterwarnings("ignore:On demand feature view is an experimental feature:RuntimeWarning")

NOON = datetime(2013, 3, 1, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

DEFINITIONS = """
from datetime import timedelta
from feast import Entity, FeatureView, Field, FileSource, RequestSource
from feast.aggregation import Aggregation
from feast.on_demand_feature_view import on_demand_feature_view
from feast.stream_feature_view import StreamFeatureView
from feast.types import Float64, Int64, String
from millstream_tiles import schema_of, stream_source

airport = Entity(name="airport", join_keys=["origin"])
carrier = Entity(name="carrier", join_keys=["carrier"])
departed = stream_source("../streams/flights-departed.yaml")
HOUR, TEN = timedelta(hours=1), timedelta(minutes=10)

by_origin = [
    Aggregation(column="*", function="count", time_window=HOUR, slide_interval=TEN, name="flights"),
    Aggregation(column="dep_delay", function="mean", time_window=HOUR, slide_interval=TEN, name="mean_delay"),
]
# The schema is stated because the on-demand view below copies it while this file is read.
origin_delays = StreamFeatureView(
    name="origin_delays", entities=[airport], source=departed, timestamp_field="departed_at",
    aggregations=by_origin, schema=schema_of(by_origin),
)
route_delays = StreamFeatureView(
    name="route_delays", entities=[airport, carrier], source=departed, timestamp_field="departed_at",
    aggregations=[Aggregation(column="dep_delay", function="last", time_window=HOUR, slide_interval=TEN, name="last")],
)
airports = FeatureView(
    name="airports", entities=[airport], ttl=timedelta(0),
    schema=[Field(name="origin", dtype=String), Field(name="runways", dtype=Int64)],
    source=FileSource(name="airports", path="airports.parquet", timestamp_field="at"),
)


@on_demand_feature_view(sources=[origin_delays], schema=[Field(name="mean_delay_seconds", dtype=Float64)])
def in_seconds(inputs):
    out = inputs[["mean_delay"]] * 60
    return out.rename(columns={"mean_delay": "mean_delay_seconds"})
"""

STREAM = """
stream: flights-departed
key: tailnum
id: flight_id
time: departed_at
lateness: 90m
"""

FEATURE_STORE = """
project: flights
provider: local
registry: data/registry.db
offline_store: {type: millstream_tiles.offline_store.MillstreamOfflineStore, lake: ../lake}
entity_key_serialization_version: 3
"""

SCHEMA = table_schema(
    {
        "properties": {
            "flight_id": {"type": "string"},
            "origin": {"type": "string"},
            "carrier": {"type": "string"},
            "dep_delay": {"type": "number"},
        }
    }
)


def micros(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def departure(flight: str, at: datetime, delay: float, *, known: datetime | None = None, **more: str) -> dict[str, Any]:
    event = {"flight_id": flight, "origin": "JFK", "carrier": "AA", "dep_delay": delay, **more}
    return {"event": event, "at": micros(at), "known": micros(known or at)}


DEPARTURES = [
    departure("aa1", NOON - 50 * MINUTE, 10.0),
    departure("aa1", NOON - 50 * MINUTE, 10.0),  # a duplicate
    departure("ua1", NOON - 30 * MINUTE, 30.0, carrier="UA"),
    departure("aa2", NOON - 20 * MINUTE, 50.0, known=NOON + 5 * MINUTE),
    departure("aa3", NOON - 15 * MINUTE, 999.0, known=NOON + 80 * MINUTE),  # late
    departure("ewr", NOON - 10 * MINUTE, 5.0, origin="EWR"),
]


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    repo = tmp_path / "features"
    repo.mkdir()
    (tmp_path / "streams").mkdir()
    (tmp_path / "streams" / "flights-departed.yaml").write_text(STREAM)
    (repo / "definitions.py").write_text(DEFINITIONS)
    (repo / "feature_store.yaml").write_text(FEATURE_STORE)
    rows = {"origin": ["JFK", "EWR", "JFK"], "runways": [3, 3, 4]}
    at = pd.to_datetime(["2013-01-01 00:00", "2013-01-01 00:00", "2013-03-01 11:00"], utc=True).as_unit("us")
    pd.DataFrame({**rows, "at": at}).to_parquet(repo / "airports.parquet")
    lake = Lake(str(tmp_path / "lake"))
    table = events_table(
        SCHEMA,
        partition=0,
        offsets=range(len(DEPARTURES)),
        event_times=[d["at"] for d in DEPARTURES],
        known_at=[d["known"] for d in DEPARTURES],
        ids=[d["event"]["flight_id"] for d in DEPARTURES],
        events=[d["event"] for d in DEPARTURES],
    )
    lake.append("flights-departed", [LakeBatch(partition=0, end=len(DEPARTURES) - 1, rows=table)], group="lake")
    return open_store(repo)


def questions(*rows: tuple[str | None, str | None, datetime], **more: list[Any]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "origin": [origin for origin, _, _ in rows],
            "carrier": [carrier for _, carrier, _ in rows],
            "event_timestamp": pd.to_datetime([at for _, _, at in rows], utc=True).as_unit("us"),
            **more,
        }
    )


def test_a_question_gets_what_was_known_at_its_microsecond(store: FeatureStore) -> None:
    known = NOON + 5 * MINUTE
    asked = questions(("JFK", "AA", known), ("JFK", "AA", known - timedelta(microseconds=1)), ("EWR", "UA", NOON))
    found = store.get_historical_features(
        asked, ["origin_delays:flights", "origin_delays:mean_delay", "route_delays:last"]
    ).to_df()
    assert found["flights"].tolist() == [3, 2, 1]
    assert found["mean_delay"].tolist() == [30.0, 20.0, 5.0]
    assert found["last"].tolist()[:2] == [50.0, 10.0]
    assert math.isnan(found["last"][2])
    assert found["flights"].dtype == np.int64


def test_rows_and_other_columns_come_back_in_the_order_asked(store: FeatureStore) -> None:
    asked = questions(
        ("JFK", "AA", NOON + 9 * MINUTE),
        ("EWR", "AA", NOON),
        (None, "AA", NOON),
        ("JFK", "UA", NOON),
        ("JFK", "UA", NOON),
        label=[1, 0, 1, 0, 0],
    )
    features = ["origin_delays:flights", "airports:runways"]
    found = store.get_historical_features(asked, features, full_feature_names=True).to_df()
    assert found.columns.tolist() == [*asked.columns, "origin_delays__flights", "airports__runways"]
    assert found["label"].tolist() == [1, 0, 1, 0, 0]
    assert found["event_timestamp"].tolist() == asked["event_timestamp"].tolist()
    assert found["origin_delays__flights"].tolist() == [3, 1, 0, 2, 2]
    assert found["airports__runways"].fillna(-1).tolist() == [4, 3, -1, 4, 4]


def test_ordinary_views_alone_are_answered_by_feast(store: FeatureStore) -> None:
    found = store.get_historical_features(questions(("JFK", "AA", NOON)), ["airports:runways"]).to_df()
    assert found["runways"].tolist() == [4]


def test_on_demand_views_are_computed_from_windowed_ones(store: FeatureStore) -> None:
    job = store.get_historical_features(questions(("JFK", "AA", NOON)), ["in_seconds:mean_delay_seconds"])
    assert job.to_df()["mean_delay_seconds"].tolist() == [1200.0]


def test_a_question_may_come_with_naive_time_and_nanoseconds(store: FeatureStore) -> None:
    at = pd.to_datetime(["2013-03-01 12:05:00", "2013-03-01 12:04:59.999999999"], format="ISO8601")
    asked = pd.DataFrame({"origin": ["JFK", "JFK"], "event_timestamp": at})
    found = store.get_historical_features(asked, ["origin_delays:flights"]).to_arrow()
    assert found["flights"].to_pylist() == [3, 2]


def test_what_cannot_be_asked_is_said_plainly(store: FeatureStore) -> None:
    features = ["origin_delays:flights"]
    with pytest.raises(TilesError, match="origin_delays: each value is of a key and a time, not of a range"):
        store.get_historical_features(features=features, start_date=NOON, end_date=NOON)
    asked = questions(("JFK", "AA", NOON))
    with pytest.raises(TilesError, match="view origin_delays: the questions have no column 'origin'"):
        store.get_historical_features(asked.drop(columns="origin"), features)
    with pytest.raises(TilesError, match="no column 'event_timestamp', and 0 datetime columns"):
        store.get_historical_features(asked.drop(columns="event_timestamp"), features)
    with pytest.raises(TilesError, match="1 questions have no 'event_timestamp'"):
        store.get_historical_features(asked.assign(event_timestamp=pd.NaT), features)
    for seconds in (1362139200, 1362139200.0, np.int64(1362139200)):
        with pytest.raises(TilesError, match=r"event_timestamp of the questions is a number.*unit='s', utc=True"):
            store.get_historical_features(asked.assign(event_timestamp=seconds), features)
    with pytest.raises(TilesError, match=r"event_timestamp of the questions is no time .*; write datetimes"):
        store.get_historical_features(asked.assign(event_timestamp="noon"), features)
    for odd, kind in (([["JFK"]], "List"), ([{"a": 1}], "Struct"), ([NOON], "Datetime"), ([b"JFK"], "Binary")):
        with pytest.raises(TilesError, match=rf"column 'origin' of the questions is {kind}.*; a key is text, a number"):
            store.get_historical_features(asked.assign(origin=pd.Series(odd, dtype=object)), features)
    mixed = pd.concat([asked, asked.assign(origin=7)])
    with pytest.raises(TilesError, match="'origin' of the questions mixes types; make it text"):
        store.get_historical_features(mixed, features)
    with pytest.raises(TilesError, match="have a column 'flights' already"):
        store.get_historical_features(asked.assign(flights=1), features).to_df()


def test_the_lake_is_not_for_pulling(store: FeatureStore) -> None:
    view = store.get_stream_feature_view("origin_delays")
    offline = store._get_provider().offline_store
    with pytest.raises(TilesError, match="stream flights-departed: its lake is written"):
        offline.pull_latest_from_table_or_query(
            store.config, view.batch_source, ["origin"], ["dep_delay"], "departed_at", None, NOON, NOON
        )
    airports = store.get_feature_view("airports")
    pulled = offline.pull_latest_from_table_or_query(
        store.config, airports.batch_source, ["origin"], ["runways"], "at", None, NOON - 90 * 1440 * MINUTE, NOON
    ).to_df()
    assert sorted(pulled["runways"]) == [3, 4]


def test_an_empty_lake_has_empty_windows_and_says_so(
    store: FeatureStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.config.offline_store.lake = str(tmp_path / "nothing")
    found = store.get_historical_features(
        questions(("JFK", "AA", NOON)), ["origin_delays:flights", "origin_delays:mean_delay"]
    ).to_df()
    assert found["flights"].tolist() == [0]
    assert math.isnan(found["mean_delay"][0])
    assert re.search(r"lake .*/nothing has no events of \S+: its windows are empty; check `lake:`", caplog.text)
