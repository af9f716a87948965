"""Feast's universal offline store cases, asked of windowed views, alone and beside ordinary ones.

Feast's files are in sdk/python/tests/integration/offline_store of its repository; ours do not share code with them.

| Feast's case | here |
| --- | --- |
| historical_features_main, full names or not, field mapping, views without entity, on-demand, request data | first test |
| ... through a feature service | first test |
| ... entity mapping ("shadow entities": one view twice, under two names and keys) | test_one_view_answers_for_both_ends |
| ... extra columns, odd names, `e_ts` inferred as event timestamp, time zones | test_questions_come_as_they_are |
| shared_batch_source: a feature that the view does not have (Feast: KeyError) | test_what_does_not_fit_is_refused |
| missing_request_data, feature name collision | test_what_does_not_fit_is_refused |
| entities_from_query (SQL) | refused: the lake is files (same test); ordinary views in a database take it still |
| persisting, persist_does_not_overwrite | test_a_training_set_is_saved_and_found_again |
| ... read back with keys of windowed and of ordinary views | Feast (0.67) selects the latter alone; the file has all |
| no_ttl, ttl, containing_backfills (created timestamps) | test_ttl_and_backfills; windows have known-at instead |
| null keys, repeated rows | test_offline_feast.py, test_rows_and_other_columns_come_back_in_the_order_asked |
| non_entity_mode (start and end date without entities) | ordinary views; of windowed ones refused, test_offline_feast.py |
| offline_write, push to the offline store, materialize | test_materialize_fills_what_needs_it; the lake has its own writer |
| universal_types | a window is Int64 or Float64 (test_join.py); ordinary views keep Feast's own reader |
| feature_logging | Feast's own writer, unchanged |
| dqm_validation, validation (Great Expectations) | no: nothing of it is in an offline store |
| s3_custom_endpoint | the lake's own tests |
| BigQuery, Redshift, Snowflake, Iceberg, Chronon, remote store | no: other stores; as `ordinary:` they are Feast's own |
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from feast import FeatureStore
from feast.errors import (
    FeatureNameCollisionError,
    RequestDataNotFoundInEntityDfException,
    SavedDatasetLocationAlreadyExists,
)
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.saved_dataset import SavedDatasetStorage

from millstream_tiles import open_store
from millstream_tiles.errors import TilesError
from millstream_tiles.lake import Lake, LakeBatch
from millstream_tiles.lake_schema import events_table, table_schema

pytestmark = [
    pytest.mark.filterwarnings("ignore:On demand feature view is an experimental feature:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:(Saving|Retrieving) dataset:RuntimeWarning"),
]

NOON = datetime(2021, 4, 12, 12, 0, tzinfo=UTC)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)

DEFINITIONS = """
from datetime import timedelta
from feast import Entity, FeatureService, FeatureView, Field, FileSource, RequestSource
from feast.aggregation import Aggregation
from feast.on_demand_feature_view import on_demand_feature_view
from feast.stream_feature_view import StreamFeatureView
from feast.types import Float64, Int64, String
from feast.value_type import ValueType
from millstream_tiles import schema_of, stream_source

driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
location = Entity(name="location", join_keys=["location_id"], value_type=ValueType.INT64)
trips = stream_source("trips", time="at", lateness="30m", id="trip_id")
HOUR = timedelta(hours=1)


def windowed(name, entity):
    aggregations = [
        Aggregation(column="*", function="count", time_window=HOUR, slide_interval=HOUR / 12, name="trips"),
        Aggregation(column="fare", function="mean", time_window=HOUR, slide_interval=HOUR / 12, name="mean_fare"),
    ]
    return StreamFeatureView(name=name, entities=[entity], source=trips, timestamp_field="at",
                             aggregations=aggregations, schema=schema_of(aggregations))


def stored(name, column, dtype, entities=(driver,), **more):
    source = FileSource(name=name, path=f"{name}.parquet", timestamp_field="event_timestamp",
                        created_timestamp_column="created", **more)
    return FeatureView(name=name, entities=list(entities), ttl=timedelta(days=1), source=source,
                       schema=[Field(name=column, dtype=dtype)])


driver_trips = windowed("driver_trips", driver)
place_trips = windowed("place_trips", location)
driver_stats = stored("driver_stats", "conv_rate", Float64)
driver_profile = stored("driver_profile", "trips", Int64)
global_stats = stored("global_stats", "num_rides", Int64, entities=())
field_mapping = stored("field_mapping", "feature_name", Int64, entities=(), field_mapping={"column_name": "feature_name"})


@on_demand_feature_view(
    sources=[driver_trips, RequestSource(name="tip", schema=[Field(name="tip", dtype=Float64)])],
    schema=[Field(name="fare_and_tip", dtype=Float64)],
)
def tipped(inputs):
    inputs["fare_and_tip"] = inputs["mean_fare"] + inputs["tip"]
    return inputs[["fare_and_tip"]]


main = FeatureService(name="main", features=[
    driver_trips, driver_stats[["conv_rate"]], global_stats, field_mapping, tipped,
])
ends = FeatureService(name="ends", features=[
    place_trips[["trips"]].with_name("origin").with_join_key_map({"location_id": "origin_id"}),
    place_trips[["trips"]].with_name("destination").with_join_key_map({"location_id": "destination_id"}),
])
"""

FEATURE_STORE = """
project: rides
provider: local
registry: data/registry.db
offline_store: {type: millstream_tiles.offline_store.MillstreamOfflineStore, lake: ../lake}
online_store: {type: sqlite, path: online.db}
batch_engine: {type: millstream_tiles.batch_engine.MillstreamComputeEngine}
entity_key_serialization_version: 3
"""

TRIPS = [  # driver, location, at, known, fare
    (1001, 7, NOON - 50 * MINUTE, NOON - 50 * MINUTE, 10.0),
    (1001, 8, NOON - 10 * MINUTE, NOON - 10 * MINUTE, 20.0),
    (1002, 7, NOON - 30 * MINUTE, NOON - 30 * MINUTE, 5.0),
    (1001, 8, NOON - 5 * MINUTE, NOON + 10 * MINUTE, 60.0),  # on time, and not known at noon
    (1001, 8, NOON - 5 * MINUTE, NOON + 40 * MINUTE, 999.0),  # late
]
STORED = {
    # Of two rows of one time, the one created last; of two times, the later one whenever it was created.
    "driver_stats": [
        {"driver_id": 1001, "conv_rate": 0.1, "event_timestamp": NOON - 90 * MINUTE, "created": NOON - DAY},
        {"driver_id": 1001, "conv_rate": 0.2, "event_timestamp": NOON - 90 * MINUTE, "created": NOON - 10 * MINUTE},
        {"driver_id": 1002, "conv_rate": 0.3, "event_timestamp": NOON - 3 * DAY, "created": NOON},
    ],
    "driver_profile": [{"driver_id": 1001, "trips": 77, "event_timestamp": NOON - DAY, "created": NOON}],
    "global_stats": [{"num_rides": 9, "event_timestamp": NOON - 60 * MINUTE, "created": NOON}],
    "field_mapping": [{"column_name": 4, "event_timestamp": NOON - 60 * MINUTE, "created": NOON}],
}


def micros(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rides")
    repo = root / "features"
    repo.mkdir()
    (repo / "definitions.py").write_text(DEFINITIONS)
    (repo / "feature_store.yaml").write_text(FEATURE_STORE)
    for name, rows in STORED.items():
        frame = pd.DataFrame(rows)
        for column in ("event_timestamp", "created"):
            frame[column] = frame[column].dt.as_unit("us")
        frame.to_parquet(repo / f"{name}.parquet")
    types = {"trip_id": "string", "driver_id": "integer", "location_id": "integer", "fare": "number"}
    table = events_table(
        table_schema({"properties": {name: {"type": kind} for name, kind in types.items()}}),
        partition=0,
        offsets=range(len(TRIPS)),
        event_times=[micros(at) for _, _, at, _, _ in TRIPS],
        known_at=[micros(known) for _, _, _, known, _ in TRIPS],
        ids=[f"trip-{i}" for i in range(len(TRIPS))],
        events=[{"driver_id": d, "location_id": place, "fare": fare} for d, place, _, _, fare in TRIPS],
    )
    Lake(str(root / "lake")).append("trips", [LakeBatch(partition=0, end=len(TRIPS) - 1, rows=table)], group="lake")
    return repo


@pytest.fixture(scope="module")
def store(repo: Path) -> FeatureStore:
    return open_store(repo)


def orders(**more: Any) -> pd.DataFrame:
    """Three orders, of which the last has a driver nobody knows."""
    times = pd.to_datetime([NOON, NOON, NOON + 10 * MINUTE], utc=True).as_unit("us")
    return pd.DataFrame({"order_id": [3, 1, 2], "driver_id": [1001, 1002, 1003], "event_timestamp": times, **more})


def values(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """Columns as lists, with None where there is nothing."""
    return {str(name): [None if pd.isna(v) else v for v in column] for name, column in frame.items()}


@pytest.mark.parametrize("full", [True, False], ids=["full", "short"])
def test_views_of_every_kind_answer_one_question(store: FeatureStore, full: bool) -> None:
    asked = orders(tip=[1.0, 2.0, 3.0])
    names = ["driver_trips:trips", "driver_trips:mean_fare", "driver_stats:conv_rate", "global_stats:num_rides"]
    names += ["field_mapping:feature_name", "tipped:fare_and_tip"]
    expected = {
        "driver_trips__trips": [2, 1, 0],
        "driver_trips__mean_fare": [15.0, 5.0, None],
        "driver_stats__conv_rate": [0.2, None, None],
        "global_stats__num_rides": [9, 9, 9],
        "field_mapping__feature_name": [4, 4, 4],
        "tipped__fare_and_tip": [16.0, 7.0, None],
    }
    job = store.get_historical_features(asked, names, full_feature_names=full)
    found = job.to_df()
    named = {name if full else name.split("__")[1]: column for name, column in expected.items()}
    assert {name: column for name, column in values(found).items() if name in named} == named
    assert found.columns.tolist() == [*asked.columns, *named]
    pd.testing.assert_frame_equal(found[[*asked.columns]], asked)
    pd.testing.assert_frame_equal(job.to_arrow().to_pandas(), found)
    service = store.get_historical_features(asked, store.get_feature_service("main"), full_feature_names=full).to_df()
    assert {name: column for name, column in values(service).items() if name in named} == named


def test_one_view_answers_for_both_ends(store: FeatureStore) -> None:
    asked = orders(origin_id=[7, 8, 7], destination_id=[8, 8, 9]).drop(columns="driver_id")
    found = store.get_historical_features(asked, store.get_feature_service("ends"), full_feature_names=True).to_df()
    assert found["origin__trips"].tolist() == [2, 1, 1]
    assert found["destination__trips"].tolist() == [1, 1, 0]


def test_questions_come_as_they_are(store: FeatureStore) -> None:
    """Times naive, in New York or in nanoseconds and under another name, keys as doubles, any index and odd columns."""
    odd = {"order id": [1, 2, 3], "größe": ["S", None, "L"], "level_0": [[1], [2], []], "index": [0, 0, 0]}
    asked = orders(**odd).rename(columns={"event_timestamp": "e_ts"}).set_index(pd.Index([5, 5, 1]))
    asked["driver_id"] = asked["driver_id"].astype(float)
    times = asked["e_ts"]
    for told in (times.dt.tz_convert("America/New_York"), times.dt.tz_localize(None), times.dt.as_unit("ns")):
        found = store.get_historical_features(asked.assign(e_ts=told), ["driver_trips:trips", "global_stats:num_rides"])
        frame = found.to_df()
        assert frame["trips"].tolist() == [2, 1, 0]
        assert frame["num_rides"].tolist() == [9, 9, 9]
        assert frame["größe"].tolist() == ["S", None, "L"]
        assert frame["order id"].tolist() == [1, 2, 3]


def test_a_value_past_its_ttl_takes_no_other_views_value_along(store: FeatureStore) -> None:
    """Also where no view is windowed: Feast's file store alone would lose the row of driver 1002 here."""
    found = store.get_historical_features(orders(), ["driver_stats:conv_rate", "global_stats:num_rides"]).to_df()
    assert values(found)["conv_rate"] == [0.2, None, None]
    assert values(found)["num_rides"] == [9, 9, 9]


def test_ttl_and_backfills(store: FeatureStore) -> None:
    found = store.get_historical_features(
        orders(event_timestamp=[NOON - 2 * DAY, NOON - 2 * DAY, NOON]), ["driver_trips:trips", "driver_stats:conv_rate"]
    ).to_df()
    assert values(found)["conv_rate"] == [None, 0.3, None]
    assert found["trips"].tolist() == [0, 0, 0]


def test_what_does_not_fit_is_refused(store: FeatureStore) -> None:
    with pytest.raises(
        TilesError, match=r"driver_trips: the lake is files, nothing here runs SQL; .* pandas\.read_sql"
    ):
        store.get_historical_features("SELECT driver_id, event_timestamp FROM orders", ["driver_trips:trips"])
    with pytest.raises(KeyError, match="Feature conv_rate not found in projection driver_trips"):
        store.get_historical_features(orders(), ["driver_trips:conv_rate"])
    with pytest.raises(TilesError, match="view driver_trips has no feature 'driver_id'; it has trips, mean_fare"):
        store.get_historical_features(orders(), ["driver_trips:driver_id"])
    with pytest.raises(RequestDataNotFoundInEntityDfException):
        store.get_historical_features(orders(), ["tipped:fare_and_tip"])
    with pytest.raises(FeatureNameCollisionError, match="full_feature_names=True"):
        store.get_historical_features(orders(), ["driver_trips:trips", "driver_profile:trips"])
    both = store.get_historical_features(
        orders(), ["driver_trips:trips", "driver_profile:trips"], full_feature_names=True
    )
    assert values(both.to_df()[["driver_trips__trips", "driver_profile__trips"]]) == {
        "driver_trips__trips": [2, 1, 0],
        "driver_profile__trips": [77, None, None],
    }


@pytest.mark.parametrize("features", [["driver_trips:trips"], ["driver_trips:mean_fare", "driver_stats:conv_rate"]])
def test_a_training_set_is_saved_and_found_again(store: FeatureStore, tmp_path: Path, features: list[str]) -> None:
    job = store.get_historical_features(orders(), features, full_feature_names=True)
    storage = SavedDatasetFileStorage(path=str(tmp_path / "training.parquet"))
    saved = store.create_saved_dataset(from_=job, name="training", storage=storage, tags={"env": "test"})
    again = store.get_saved_dataset("training")
    assert again.tags == {"env": "test"}
    names = ["driver_id", "event_timestamp", *(f.replace(":", "__") for f in features)]
    expected = job.to_df()[names].sort_values("driver_id", ignore_index=True)
    for dataset in (saved, again):
        found = dataset.to_df()[names].sort_values("driver_id", ignore_index=True)
        pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        store.create_saved_dataset(from_=job, name="training", storage=storage)
    store.create_saved_dataset(from_=job, name="training", storage=storage, allow_overwrite=True)


def test_a_dataset_is_saved_as_a_file(store: FeatureStore, repo: Path) -> None:
    class Table(SavedDatasetStorage):  # type: ignore[misc]
        def to_proto(self) -> None: ...
        def to_data_source(self) -> None: ...

    job = store.get_historical_features(orders(), ["driver_trips:trips"])
    with pytest.raises(TilesError, match=r"Table: a dataset is saved as Parquet; give storage=SavedDatasetFileStorage"):
        job.persist(Table())
    other = store.get_historical_features(orders().rename(columns={"event_timestamp": "e_ts"}), ["driver_trips:trips"])
    with pytest.raises(
        TilesError, match="Feast reads a saved dataset back by its column 'event_timestamp'; rename 'e_ts'"
    ):
        other.persist(SavedDatasetFileStorage(path="data/other.parquet"))
    for _ in range(2):  # a relative path is counted from the repo, also when it is looked for
        job.persist(SavedDatasetFileStorage(path="data/here.parquet"), allow_overwrite=True)
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        job.persist(SavedDatasetFileStorage(path="data/here.parquet"))
    assert pd.read_parquet(repo / "data/here.parquet")["trips"].tolist() == [2, 1, 0]


def test_materialize_fills_what_needs_it(store: FeatureStore, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        store.materialize(NOON - 2 * DAY, NOON)
    assert "driver_trips: nothing to materialize, its windows are kept up to date from the stream" in caplog.text
    rows = [{"driver_id": 1001}, {"driver_id": 1003}]
    assert store.get_online_features(["driver_stats:conv_rate"], rows).to_dict()["conv_rate"] == [0.2, None]
