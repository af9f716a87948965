"""However many views, entities and kinds of view: one question to the server, and what comes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from feast import FeatureStore

from millstream_tiles import FeatureReader, as_of

from .airports_story import NOON, airport, open_filled, write_repo

pytestmark = pytest.mark.connected

MICROS = int(NOON.timestamp()) * 1_000_000
ROWS = [{"origin": o, "carrier": c} for o, c in (("JFK", "DL"), ("LGA", "AA"), ("SFO", "UA"), ("JFK", "AA"))]
COLUMNS = {"origin": [r["origin"] for r in ROWS], "carrier": [r["carrier"] for r in ROWS]}
MIXED = {
    "delays__flights": [2, 1, 0, 2],
    "delays__mean": [100 / 3, None, None, 100 / 3],
    "airports__runways": [4, None, None, 4],
    "airports__height": [3.9, None, None, 3.9],
    "routes__worst": [10.0, None, None, 20.0],
    "names__city": [None, "New York", None, None],
    "country__holidays": [10, 10, 10, 10],
}


@pytest.fixture
async def store(tmp_path: Path, valkey_url: str) -> AsyncIterator[FeatureStore]:
    store = await open_filled(write_repo(tmp_path), valkey_url)
    store.write_to_online_store("airports", airport("JFK", 4, NOON, 3.9))
    names = {"origin": ["LGA"], "city": ["New York"], "at": [NOON], "made": [NOON]}
    store.write_to_online_store("names", inputs=names)
    store.write_to_online_store("country", inputs={"holidays": [10], "at": [NOON]})
    yield store
    await store.close()


@pytest.fixture
def reads(valkey_url: str) -> Callable[[Callable[[], Awaitable[Any]]], Awaitable[int]]:
    """How many times the server had to read from its clients while something was done: pipelined commands come as one."""

    async def counted(doing: Callable[[], Awaitable[Any]]) -> int:
        await doing()  # connections are made and scripts loaded
        with redis.Redis.from_url(valkey_url) as watch:
            watch.ping()
            before = watch.info("stats")["total_reads_processed"]
            await doing()
            return int(watch.info("stats")["total_reads_processed"]) - int(before) - 1

    return counted


Reads = Callable[[Callable[[], Awaitable[Any]]], Awaitable[int]]


def by_feast(store: FeatureStore) -> dict[str, Any]:
    return dict(store.get_online_features(store.get_feature_service("mixed"), ROWS, full_feature_names=True).to_dict())


async def test_get_online_features_is_one_round_trip(store: FeatureStore, reads: Reads) -> None:
    async def ask() -> dict[str, Any]:
        return by_feast(store)

    async def ask_async() -> dict[str, Any]:
        service = store.get_feature_service("mixed")
        return dict((await store.get_online_features_async(service, ROWS, full_feature_names=True)).to_dict())

    with as_of(NOON):
        for doing in (ask, ask_async):
            assert await reads(doing) == 1
            found = await doing()
            for name, values in MIXED.items():
                assert found[name] == pytest.approx(values), name


async def test_a_feature_reader_needs_one_round_trip_for_all_views(store: FeatureStore, reads: Reads) -> None:
    reader = FeatureReader(store, "mixed")
    assert (reader.names, reader.entity_columns) == (tuple(MIXED), ("origin", "carrier"))

    async def ask() -> dict[str, Any]:
        return reader.read(COLUMNS, MICROS)

    async def ask_async() -> dict[str, Any]:
        return await reader.read_async(COLUMNS, MICROS)

    for doing in (ask, ask_async):
        assert await reads(doing) == 1
        found = await doing()
        assert list(found) == list(MIXED)
        for name, values in MIXED.items():
            assert [None if v != v else v for v in found[name].tolist()] == pytest.approx(values)
    assert found["airports__runways"].dtype == object
    assert found["country__holidays"].dtype == np.int64
    await reader.aclose()


async def test_a_row_without_a_key_has_empty_windows_and_no_ordinary_features(store: FeatureStore) -> None:
    reader = FeatureReader(store, "mixed")
    found = reader.read({"origin": ["JFK", None], "carrier": [None, "DL"]}, MICROS)
    assert {name: values.tolist()[0] for name, values in found.items()} == pytest.approx(
        {name: values[0] for name, values in MIXED.items()} | {"routes__worst": float("nan")}, nan_ok=True
    )
    assert found["delays__flights"].tolist() == [2, 0]
    assert found["airports__runways"].tolist() == [4, None]
    await reader.aclose()
    rows = [{"origin": "JFK", "carrier": None}, {"origin": None, "carrier": "DL"}, {"origin": "JFK", "carrier": "DL"}]
    service = store.get_feature_service("mixed")
    with as_of(NOON):
        for asked in (rows, rows[1:2]):
            said = store.get_online_features(service, asked, full_feature_names=True)
            again = await store.get_online_features_async(service, asked, full_feature_names=True)
            assert said.proto == again.proto
            told = said.to_dict()
            null = [row["origin"] is None for row in asked]
            assert told["delays__flights"] == [0 if gone else 2 for gone in null]
            assert told["airports__runways"] == [None if gone else 4 for gone in null]
            assert told["routes__worst"] == [10.0 if None not in row.values() else None for row in asked]


async def test_two_airports_of_one_row(store: FeatureStore) -> None:
    store.write_to_online_store("airports", airport("LGA", 2, NOON))
    reader = FeatureReader(store, "twice")
    assert reader.entity_columns == ("from_airport", "to_airport")
    found = reader.read({"from_airport": ["JFK", "SFO"], "to_airport": ["LGA", "JFK"]}, MICROS)
    assert {name: values.tolist() for name, values in found.items()} == {
        "here__runways": [4, None],
        "there__runways": [2, 4],
        "there_delays__flights": [1, 2],
    }
    await reader.aclose()


async def test_an_on_demand_view_is_computed_as_of_the_question(store: FeatureStore) -> None:
    """Feast computes it from views that it reads itself: as of the row's own time, else a replay would see the future."""
    reader = FeatureReader(store, "computed")
    assert reader.entity_columns == ("origin", "hour")
    rows = {"origin": ["JFK", "SFO", "JFK"], "hour": [2, 3, 4]}
    later = int((NOON + timedelta(minutes=40)).timestamp()) * 1_000_000
    found = reader.read(rows, np.array([MICROS, MICROS, later]))
    assert found["delays__flights"].tolist() == [2, 0, 0]
    assert found["load__load"].tolist() == [1.0, None, 1.0]
    again = await reader.read_async(rows, MICROS)
    assert again["load__load"].tolist() == [1.0, None, 1.5]
    await reader.aclose()


async def test_a_thousand_entities_of_a_stream_are_one_question(store: FeatureStore, reads: Reads) -> None:
    """Its text is longer than what the server reads at a time (16 KiB), so there the number of commands is what counts."""
    reader = FeatureReader(store, "mixed")
    many = {"origin": [f"A{n}" for n in range(999)] + ["JFK"], "carrier": ["DL"] * 1_000}
    with redis.Redis.from_url(store.config.online_store.url) as watch:
        reader.read(many, MICROS)
        watch.config_resetstat()
        found = reader.read(many, MICROS)
        calls = {name: one["calls"] for name, one in watch.info("commandstats").items()}
    assert found["delays__flights"].tolist() == [0] * 999 + [2]
    assert calls["cmdstat_evalsha"] == 1, "all windows"
    assert calls["cmdstat_hmget"] == 2 * 1_000 + 1, "a row each of airports and names, and the country's"
    await reader.aclose()


async def test_no_row_and_one_row_by_a_numpy_time(store: FeatureStore) -> None:
    reader = FeatureReader(store, "mixed")
    none = reader.read({"origin": [], "carrier": []}, MICROS)
    assert {name: len(values) for name, values in none.items()} == dict.fromkeys(MIXED, 0)
    one = reader.read({"origin": ["JFK"], "carrier": ["DL"]}, np.array([MICROS])[0])
    assert one["delays__flights"].tolist() == [2]
    await reader.aclose()
