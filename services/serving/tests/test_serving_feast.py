"""The Feast adapter on a real Valkey: the flights' own definitions, read as of a question's time."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millstream.contracts.events import PredictionServed, Scalar
from millstream.contracts.times import MINUTE, from_rfc3339, to_datetime
from millstream.errors import BadSetup
from millstream.testing.valkey import EmbeddedValkey
from millstream_serving.adapters.feast_features import FeastStore
from millstream_serving.domain.answer import empty_views
from millstream_serving.domain.columns import nullable, rows_of
from millstream_serving.errors import FeaturesUnavailable, ModelRefused
from millstream_tiles.events import EventBatch
from millstream_tiles.generations import Generations
from millstream_tiles.live_writer import LiveWriter
from millstream_tiles.online_store import tile_store_of
from millstream_tiles.tile_store import ValkeyTileStore
from millstream_tiles.writer import TileWriter

FLIGHTS = Path(__file__).parents[3] / "examples" / "flights" / "features"
NOON = from_rfc3339("2013-06-01T12:00:00Z")
ASKED: dict[str, list[Scalar]] = {
    "origin": ["JFK", "XXX"],
    "dest": ["LAX", None],
    "carrier": ["B6", "B6"],
    "tailnum": ["N708JB", None],
}


def two_departures() -> EventBatch:
    times = np.array([NOON - 30 * MINUTE, NOON - 20 * MINUTE])
    return EventBatch(
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


async def departures(store: FeastStore) -> None:
    """Two flights of B6 left JFK before noon, ten and twenty minutes late."""
    features = await store.open("delay_v1")
    views = [view for view in features._reader.views.values() if view.stream == "flights-departed"]
    tiles = tile_store_of(store._store.config)
    outcome = await TileWriter(tiles, views, "features-tiles").write(two_departures())
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

    rows = rows_of(nullable(found), 2)
    base: dict[str, Any] = dict.fromkeys(("id", "loop", "question", "key", "version", "variant", "transport"), "x")
    base |= {"asked_at": to_datetime(NOON), "entities": {}, "inputs": {}, "output": {}, "timings_ms": {}}
    silent = [set(empty_views(PredictionServed(**base, features=row))) for row in rows]
    assert silent[0] == {view for view in features.views if view.endswith("_landings")}, "nobody has landed yet"
    assert silent[1] == {view for view in features.views if not view.startswith("carrier_dep")}, "of B6 we know"

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
    valkey.pause()
    try:
        async with asyncio.timeout(40):  # a store that hangs is given up, not waited for
            with pytest.raises(FeaturesUnavailable):
                await features.read(ASKED, np.array([NOON, NOON]))
    finally:
        valkey.resume()
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


V2 = """
origin_departures_v2 = view("origin_departures_v2", departed, [origin], [mean_delay("dep_delay", 2, TEN_MINUTES)])
delay_v2 = FeatureService(name="delay_v2", features=[origin_departures_v2])
"""


async def test_v2_beside_v1_leaves_v1_what_models_were_trained_on(valkey_url: str, tmp_path: Path) -> None:
    """A model's manifest holds the digests of its views; serving compares them with what it opens here."""
    stores = {}
    for name, change in {
        "before": lambda text: text,
        "beside": lambda text: text + V2,
        "changed": lambda text: text.replace(
            'mean_delay("dep_delay", 1, TEN_MINUTES)', 'mean_delay("dep_delay", 2, HOUR)'
        ),
    }.items():
        shutil.copytree(FLIGHTS.parent, tmp_path / name, ignore=shutil.ignore_patterns("data", "__pycache__"))
        definitions = tmp_path / name / "features" / "definitions.py"
        definitions.write_text(change(definitions.read_text()))
        registry = tmp_path / name / "registry.db"
        stores[name] = FeastStore(repo=definitions.parent, registry=registry, url=valkey_url, namespace="millstream")
    trained = dict((await stores["before"].open("delay_v1")).views)
    beside = (await stores["beside"].open("delay_v1")).views
    assert {name: beside[name] for name in trained} == trained
    changed = (await stores["changed"].open("delay_v1")).views
    assert {name for name in trained if changed[name] != trained[name]} == {"origin_departures"}

    # Until v2 is filled nobody gets a number of it, and whoever reads v1 notices nothing.
    v1, v2 = await stores["beside"].open("delay_v1"), await stores["beside"].open("delay_v2")
    views = list(v1._reader.views.values())
    tiles = ValkeyTileStore(valkey_url, "millstream")
    worker = LiveWriter(Generations(tiles, "features-tiles"), [view for view in views if not view.name.endswith("_v2")])
    await worker.write(two_departures())
    await LiveWriter(Generations(tiles, "features-tiles"), views).claim()
    assert (await v1.read(ASKED, np.array([NOON, NOON])))["origin_departures__mean_delay_1h"][0] == 15.0
    with pytest.raises(FeaturesUnavailable, match="millstream features rebuild --view origin_departures_v2"):
        await v2.read({"origin": ["JFK"]}, np.array([NOON]))
    await tiles.close()
    for store in stores.values():
        await store.close()


def test_feast_is_imported_as_it_is_written() -> None:
    """typeguard would compile its classes anew, which is most of a start; whoever imports Feast elsewhere has them checked."""
    code = (
        "import asyncio, sys, typeguard; from pathlib import Path; found = typeguard.typechecked\n"
        "from millstream_serving.adapters.feast_features import FeastStore\n"
        "store = FeastStore(repo=Path(sys.argv[1]), registry=Path(sys.argv[2]), url='redis://127.0.0.1:1', namespace='n')\n"
        "asyncio.run(store.prepare())\n"
        "assert typeguard.typechecked is found\n"
        "import feast; print(set(feast.Entity.__init__.__code__.co_names) & {'check_argument_types', 'TypeCheckMemo'})\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(FLIGHTS.parent, Path(folder) / "flights")
        args = [sys.executable, "-c", code, str(Path(folder) / "flights/features"), f"{folder}/registry.db"]
        done = subprocess.run(args, capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout == "set()\n", done.stderr[-1000:]
