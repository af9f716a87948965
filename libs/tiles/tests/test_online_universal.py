"""What Feast asks of every online store, asked of ours.

Feast 0.67 keeps these as `tests/integration/online_store/`; ours are written anew on a real Valkey. Windows are read beside
the ordinary views wherever that could matter.

| Feast's test | here |
| --- | --- |
| test_write_to_online_store | test_what_is_written_is_read |
| test_write_to_online_store_event_check | test_an_older_row_does_not_win |
| test_entity_ttl_online_store | test_a_row_may_be_forgotten_by_time (looks at the key's time to live, does not wait for it) |
| test_online_retrieval: values, names, missing entities | test_windows_and_rows_in_one_answer |
| … request data, on-demand views | test_missing_request_data_is_said |
| … entity mapping, name collisions | test_one_view_under_two_names |
| test_online_retrieval_success | the same |
| test_online_retrieval_with_event_timestamps, test_async_… | test_every_value_has_its_event_time |
| test_online_retrieval_with_shared_batch_source | test_a_feature_of_another_view_is_refused |
| test_online_list_retrieval | not the store's: it lists the registry (`test_online_feast.py`) |
| test_online_store_cleanup | test_a_deleted_view_leaves_the_others |
| test_push_features_and_read, …_async | test_a_push_is_read_back |
| test_feature_get_online_features_types_match | test_every_type_comes_back |
| test_stream_feature_view_online_retrieval | `test_online_feast.py`: our stream views are windows |
| those of the feature server and of the remote store | `services/features/tests/test_features_feast_server.py` |
| materialization of `test_e2e_local` | test_materialized_rows_are_read, test_windows_need_no_materialization |
| test_redis_versioning | does not apply: Feast has it off, and a changed view is a new one here (`v2` beside `v1`) |
| test_write_vectors_to_online_store, test_retrieve_online_documents* | do not apply: no vector search |
| test_*_dynamodb, milvus, pgvector, glide, … | do not apply: another server's |
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import redis
from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.errors import (
    FeatureNameCollisionError,
    RequestDataNotFoundInEntityRowsException,
)
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, Map, Set, String, UnixTimestamp
from feast.value_type import ValueType

from millstream_tiles import as_of
from millstream_tiles.errors import StoreUnavailable, TilesError

from .airports_story import NOON, airport, open_filled, write_repo

pytestmark = pytest.mark.connected

JFK, LGA, SFO = {"origin": "JFK"}, {"origin": "LGA"}, {"origin": "SFO"}
HOUR = timedelta(hours=1)


@pytest.fixture
async def store(tmp_path: Path, valkey_url: str) -> AsyncIterator[FeatureStore]:
    store = await open_filled(write_repo(tmp_path), valkey_url)
    with as_of(NOON):
        yield store
    await store.close()


def read(store: FeatureStore, features: Any, *rows: dict[str, Any], **how: Any) -> dict[str, list[Any]]:
    return dict(store.get_online_features(features, list(rows), **how).to_dict())


def statuses(store: FeatureStore, feature: str, *rows: dict[str, Any]) -> list[str]:
    from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

    proto = store.get_online_features([feature], list(rows)).proto
    column = list(proto.metadata.feature_names.val).index(feature.partition(":")[2])
    return [FieldStatus.Name(s) for s in proto.results[column].statuses]


async def test_what_is_written_is_read(store: FeatureStore) -> None:
    store.write_to_online_store("airports", airport("JFK", 4, NOON, 3.9))
    assert read(store, ["airports:runways", "airports:height"], JFK) == {
        "origin": ["JFK"],
        "runways": [4],
        "height": [3.9],
    }
    await store.write_to_online_store_async("airports", airport("LGA", 2, NOON, 6.4))
    found = await store.get_online_features_async(["airports:height"], [LGA, JFK, LGA])
    assert found.to_dict() == {"origin": ["LGA", "JFK", "LGA"], "height": [6.4, 3.9, 6.4]}


async def test_an_older_row_does_not_win(store: FeatureStore) -> None:
    store.write_to_online_store("airports", airport("JFK", 4, NOON))
    store.write_to_online_store("airports", airport("JFK", 3, NOON - HOUR))
    await store.write_to_online_store_async("airports", airport("JFK", 2, NOON - HOUR))
    assert read(store, ["airports:runways"], JFK)["runways"] == [4]
    store.write_to_online_store("airports", airport("JFK", 5, NOON + HOUR))
    assert read(store, ["airports:runways"], JFK)["runways"] == [5]
    both = pd.concat([airport("SFO", 7, NOON), airport("SFO", 6, NOON - HOUR)])
    store.write_to_online_store("airports", both)
    assert read(store, ["airports:runways"], SFO)["runways"] == [7], "nor within one batch"


async def test_a_row_may_be_forgotten_by_time(store: FeatureStore, valkey_url: str) -> None:
    """`key_ttl_seconds` forgets rows. A view's own `ttl` (a second here) bounds joins of history, no read: as in Feast."""
    store.write_to_online_store("airports", airport("JFK", 4, NOON))
    with redis.Redis.from_url(valkey_url) as client:
        [row] = [k for k in client.scan_iter() if b"{" not in k]
        assert client.ttl(row) == -1
        store.config.online_store.key_ttl_seconds = 60
        store.write_to_online_store("airports", airport("JFK", 3, NOON + HOUR))
        assert 0 < client.ttl(row) <= 60
        assert read(store, ["airports:runways"], JFK)["runways"] == [3]
        client.expire(row, -1)
    assert read(store, ["airports:runways", "delays:flights"], JFK) == {
        "origin": ["JFK"],
        "runways": [None],
        "flights": [2],
    }
    assert statuses(store, "airports:runways", JFK) == ["NOT_FOUND"]


@pytest.mark.parametrize("full", [True, False])
async def test_windows_and_rows_in_one_answer(store: FeatureStore, full: bool) -> None:
    store.write_to_online_store("airports", airport("JFK", 4, NOON, 3.9))
    rows = [one | {"carrier": c} for one, c in ((JFK, "DL"), (SFO, "UA"), (JFK, "AA"))]
    refs = ["airports:runways", "delays:flights", "routes:worst", "airports:height", "names:city"]
    names = [r.replace(":", "__") if full else r.partition(":")[2] for r in refs]

    found = read(store, refs, *rows, full_feature_names=full)
    # View by view; within one as Feast's sets of features happen to lie.
    assert sorted(found) == sorted(["origin", "carrier", *names])
    assert [found[n] for n in names] == [
        [4, None, 4], [2, 0, 2], [10.0, None, 20.0], [3.9, None, 3.9], [None, None, None],
    ]  # fmt: skip
    assert read(store, refs[::-1], *rows, full_feature_names=full) == found


async def test_missing_request_data_is_said(store: FeatureStore) -> None:
    store.write_to_online_store("airports", airport("JFK", 4, NOON))
    with pytest.raises(RequestDataNotFoundInEntityRowsException, match="hour"):
        read(store, ["load:load"], JFK)
    assert read(store, ["load:load", "delays:flights"], JFK | {"hour": 2}) == {
        "origin": ["JFK"],
        "flights": [2],
        "load": [1.0],
    }
    assert read(store, store.get_feature_service("computed"), JFK | {"hour": 6})["load"] == [2.0]


async def test_one_view_under_two_names(store: FeatureStore) -> None:
    store.write_to_online_store("airports", pd.concat([airport("JFK", 4, NOON), airport("LGA", 2, NOON)]))
    twice = store.get_feature_service("twice")
    rows = [{"from_airport": "JFK", "to_airport": "LGA"}, {"from_airport": "LGA", "to_airport": "JFK"}]
    assert read(store, twice, *rows, full_feature_names=True) == {
        "from_airport": ["JFK", "LGA"],
        "to_airport": ["LGA", "JFK"],
        "here__runways": [4, 2],
        "there__runways": [2, 4],
        "there_delays__flights": [1, 2],
    }
    with pytest.raises(FeatureNameCollisionError):
        read(store, twice, *rows)


async def test_every_value_has_its_event_time(store: FeatureStore) -> None:
    store.write_to_online_store("airports", airport("JFK", 4, NOON - HOUR))
    refs = ["airports:runways", "delays:flights"]
    sync = store.get_online_features(refs, [JFK, SFO])
    for found in (sync, await store.get_online_features_async(refs, [JFK, SFO])):
        times = found.to_dict(include_event_timestamps=True)
        assert times["runways__ts"] == [int((NOON - HOUR).timestamp()), 0]
        assert times["flights__ts"] == [int(NOON.timestamp())] * 2, "a window is of the time that was asked for"
        assert found.to_df(True)["flights"].tolist() == [2, 0]


async def test_a_feature_of_another_view_is_refused(store: FeatureStore) -> None:
    with pytest.raises(KeyError):
        read(store, ["names:runways"], JFK)  # from the same file as airports
    with pytest.raises(KeyError):
        read(store, ["delays:worst"], JFK)  # from the same stream as routes


async def test_a_deleted_view_leaves_the_others(store: FeatureStore) -> None:
    """Redis keeps all views of an entity in one hash (Feast's issue 2150)."""
    airports, names = store.get_feature_view("airports"), store.get_feature_view("names")
    store.write_to_online_store("airports", airport("JFK", 4, NOON))
    store.write_to_online_store("names", inputs={"origin": ["JFK"], "city": ["Queens"], "at": [NOON], "made": [NOON]})

    for service in store.list_feature_services():
        store.delete_feature_service(service.name)
    store.apply(objects=[airports], objects_to_delete=[names], partial=False)
    assert read(store, ["airports:runways", "delays:flights"], JFK) == {
        "origin": ["JFK"],
        "runways": [4],
        "flights": [2],
    }
    store.apply(objects=[], objects_to_delete=[store.get_on_demand_feature_view("load"), airports], partial=False)
    store.apply([airports, names])
    assert read(store, ["airports:runways", "names:city"], JFK) == {
        "origin": ["JFK"],
        "runways": [None],
        "city": [None],
    }
    assert read(store, ["delays:flights"], JFK)["flights"] == [2]


async def test_a_push_is_read_back(store: FeatureStore) -> None:
    store.push("airports_push", airport("JFK", 4, NOON))
    assert read(store, ["airports:runways"], JFK)["runways"] == [4]
    await store.push_async("airports_push", airport("JFK", 5, NOON + HOUR))
    found = await store.get_online_features_async(["airports:runways", "delays:flights"], [JFK])
    assert found.to_dict() == {"origin": ["JFK"], "runways": [5], "flights": [2]}


async def test_materialized_rows_are_read(store: FeatureStore) -> None:
    views = ["airports", "names", "country"]
    store.materialize(NOON - timedelta(days=30), NOON + HOUR, views)
    mixed = ["airports:runways", "names:city", "country:holidays", "delays:flights"]
    assert read(store, mixed, JFK, LGA, SFO) == {
        "origin": ["JFK", "LGA", "SFO"],
        "runways": [4, 2, None],
        "city": ["Queens", "New York", None],
        "holidays": [10, 10, 10],
        "flights": [2, 1, 0],
    }
    store.materialize_incremental(NOON + 2 * HOUR, views)
    assert read(store, ["airports:runways"], LGA)["runways"] == [2]


async def test_windows_need_no_materialization(store: FeatureStore) -> None:
    frame = pd.DataFrame({"origin": ["JFK"], "flights": [9], "mean": [1.0], "departed_at": [NOON]})
    with pytest.raises(
        TilesError, match="a windowed view is filled from its stream; push and materialize cannot write it"
    ):
        store.write_to_online_store("delays", frame)
    with pytest.raises(TilesError, match="push and materialize cannot write it"):
        await store.write_to_online_store_async("delays", frame)
    assert read(store, ["delays:flights"], JFK)["flights"] == [2]


async def test_teardown_leaves_nothing_of_the_project_and_everything_of_others(
    store: FeatureStore, valkey_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = await open_filled(write_repo(tmp_path_factory.mktemp("other")), valkey_url, namespace="boats")
    for one in (store, other):
        one.write_to_online_store("airports", airport("JFK", 4, NOON))
    store.teardown()
    assert read(other, ["airports:runways", "delays:flights"], JFK) == {
        "origin": ["JFK"],
        "runways": [4],
        "flights": [2],
    }
    with redis.Redis.from_url(valkey_url) as client:
        left = list(client.scan_iter())
        assert left
        assert all(b"boats" in key for key in left)
    await other.close()


TYPES: dict[str, tuple[Any, Any]] = {
    "int32": (Int32, -3),
    "int64": (Int64, 2**53 + 1),
    "float32": (Float32, 0.5),
    "float64": (Float64, 0.1),
    "string": (String, "Köln | {1}"),
    "bytes": (Bytes, b"\x00\xff"),
    "bool": (Bool, True),
    "time": (UnixTimestamp, datetime(2013, 3, 1, tzinfo=UTC)),
    "texts": (Array(String), ["a", "b"]),
    "numbers": (Array(Float64), [1.5, 2.5]),
    "set": (Set(Int64), {1, 2}),
    "map": (Map, {"gate": "A1"}),
}


async def test_every_type_comes_back(store: FeatureStore) -> None:
    row = Entity(name="row", value_type=ValueType.INT64)
    everything = FeatureView(
        name="everything", entities=[row], ttl=timedelta(0),
        schema=[Field(name="row", dtype=Int64), *(Field(name=n, dtype=kind) for n, (kind, _) in TYPES.items())],
        source=FileSource(name="nothing", path="nothing.parquet", timestamp_field="at"),
    )  # fmt: skip
    store.apply([row, everything])
    values = {name: [value] for name, (_, value) in TYPES.items()}
    store.write_to_online_store("everything", inputs={"row": [2**40], "at": [NOON]} | values)
    found = read(store, [f"everything:{name}" for name in TYPES], {"row": 2**40}, {"row": 1})
    for name, (_, value) in TYPES.items():
        assert found[name] == [value, None], name
        assert type(found[name][0]) is type(value), name


async def test_a_server_away_is_our_own_error(store: FeatureStore) -> None:
    await store.close()
    store.config.online_store.url = "redis://127.0.0.1:1/0"
    with pytest.raises(StoreUnavailable):
        read(store, ["airports:runways"], JFK)
    with pytest.raises(StoreUnavailable):
        store.write_to_online_store("airports", airport("JFK", 4, NOON))
