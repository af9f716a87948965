"""The Feast adapter on a real Valkey: the flights' own definitions, read as of a question's time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from millstream.contracts.events import Scalar
from millstream.contracts.times import MINUTE, from_rfc3339
from millstream.errors import BadSetup
from millstream.testing.valkey import EmbeddedValkey
from millstream_serving.adapters.feast_features import FeastStore
from millstream_serving.errors import FeaturesUnavailable, ModelRefused
from millstream_tiles.events import EventBatch
from millstream_tiles.online_store import tile_store_of
from millstream_tiles.writer import TileWriter

FLIGHTS = Path(__file__).parents[3] / "examples" / "flights" / "features"
NOON = from_rfc3339("2013-06-01T12:00:00Z")
ASKED: dict[str, list[Scalar]] = {
    "origin": ["JFK", "XXX"],
    "dest": ["LAX", None],
    "carrier": ["B6", "B6"],
    "tailnum": ["N708JB", None],
}


async def departures(store: FeastStore) -> None:
    """Two flights of B6 left JFK before noon, ten and twenty minutes late."""
    features = await store.open("delay_v1")
    views = [view for view in features._reader.views.values() if view.stream == "flights-departed"]
    tiles = tile_store_of(store._store.config)
    times = np.array([NOON - 30 * MINUTE, NOON - 20 * MINUTE])
    outcome = await TileWriter(tiles, views, "features-tiles").write(
        EventBatch(
            stream="flights-departed",
            partition=0,
            start=0,
            end=1,
            offsets=np.array([0, 1]),
            event_time=times,
            known_at=times,
            ids=["one", "two"],
            columns={
                "origin": ["JFK", "JFK"],
                "dest": ["LAX", "BOS"],
                "carrier": ["B6", "B6"],
                "tailnum": ["N708JB", "N1"],
                "dep_delay": [10.0, 20.0],
            },
        )
    )
    assert outcome.outcome == "applied"
    await tiles.close()


async def test_features_are_read_by_view_and_name_as_of_each_question(
    valkey: EmbeddedValkey, valkey_url: str, tmp_path: Path
) -> None:
    store = FeastStore(repo=FLIGHTS, registry=tmp_path / "registry.db", url=valkey_url, namespace="millstream")
    features = await store.open("delay_v1")
    assert await store.open("delay_v1") is features
    assert set(features.join_keys) == set(ASKED)
    assert set(features.views) >= {"origin_departures", "aircraft_landings"}
    assert all(len(digest) == 64 for digest in features.views.values())

    await departures(store)
    found = await features.read(ASKED, np.array([NOON, NOON]))
    assert list(found) == list(features.names)
    assert found["origin_departures__mean_delay_1h"][0] == 15.0
    assert found["aircraft_departures__mean_delay_12h"][0] == 10.0
    assert found["origin_departures__flights_1h"].tolist() == [2, 0]
    assert np.isnan(found["origin_departures__mean_delay_1h"][1])
    assert np.isnan(found["dest_departures__mean_delay_6h"][1]), "no destination, no flights"

    with pytest.raises(ModelRefused, match="delay_v9"):
        await store.open("delay_v9")

    valkey.stop()
    try:
        with pytest.raises(FeaturesUnavailable, match="check MILLSTREAM_VALKEY"):
            await store.check()
        with pytest.raises(FeaturesUnavailable):
            await features.read(ASKED, np.array([NOON, NOON]))
    finally:
        valkey.start()
    await store.check()
    again = await features.read(ASKED, np.array([NOON, NOON]))
    assert again["origin_departures__mean_delay_1h"][0] == 15.0
    await store.close()
    await store.close()


async def test_a_cluster_in_as_many_shards_as_features_wrote(valkey_cluster_url: str, tmp_path: Path) -> None:
    store = FeastStore(
        repo=FLIGHTS, registry=tmp_path / "registry.db", url=valkey_cluster_url, namespace="millstream", shards=6
    )
    await store.check()
    features = await store.open("delay_v1")
    await departures(store)
    found = await features.read(ASKED, np.array([NOON, NOON]))
    assert found["origin_departures__mean_delay_1h"][0] == 15.0
    assert found["origin_departures__flights_1h"].tolist() == [2, 0]
    await store.close()
    other = FeastStore(
        repo=FLIGHTS, registry=tmp_path / "other.db", url=valkey_cluster_url, namespace="millstream", shards=4
    )
    with pytest.raises(BadSetup, match=r"MILLSTREAM_SHARDS: .* in 6 shards, but shards is 4 here; set shards to 6"):
        await other.check()
    await other.close()
