"""Windows, a Parquet file and a PostgreSQL table in one FeatureService: asked about the past and, materialized, about now."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest

from millstream.testing.ports import HOST, free_port
from millstream.testing.process import ManagedProcess
from millstream_tiles import EventBatch, TileWriter, ValkeyTileStore, as_of, open_store, views_of
from millstream_tiles.errors import BadRepo, TilesError
from millstream_tiles.lake import Lake, LakeBatch
from millstream_tiles.lake_schema import events_table, table_schema

NOON = datetime(2021, 4, 12, 12, 0, tzinfo=UTC)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)

DEFINITIONS = """
from datetime import timedelta
from feast import Entity, FeatureService, FeatureView, Field, FileSource
from feast.aggregation import Aggregation
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource
from feast.stream_feature_view import StreamFeatureView
from feast.types import Float64, Int64
from feast.value_type import ValueType
from millstream_tiles import stream_source

driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
driver_trips = StreamFeatureView(
    name="driver_trips", entities=[driver], timestamp_field="at",
    source=stream_source("trips", time="at", lateness="30m"),
    aggregations=[Aggregation(column="fare", function="sum", time_window=timedelta(hours=1),
                              slide_interval=timedelta(minutes=5), name="fares")],
)


def stored(name, field, source):
    return FeatureView(name=name, entities=[driver], ttl=timedelta(days=1), source=source, schema=[field])


driver_stats = stored("driver_stats", Field(name="conv_rate", dtype=Float64),
                      FileSource(name="stats", path="stats.parquet", timestamp_field="at"))
driver_profile = stored("driver_profile", Field(name="stars", dtype=Int64),
                        PostgreSQLSource(name="profile", table="profile", timestamp_field="at"))
everything = FeatureService(name="everything", features=[driver_trips, driver_stats, driver_profile])
"""

FEATURE_STORE = """
project: rides
provider: local
registry: data/registry.db
offline_store: {type: millstream_tiles.offline_store.MillstreamOfflineStore, lake: ../lake}
online_store: {type: millstream_tiles.online_store.MillstreamOnlineStore, url: "redis://localhost:1/0"}
batch_engine: {type: millstream_tiles.batch_engine.MillstreamComputeEngine}
entity_key_serialization_version: 3
"""
FARES = [(1001, NOON - 20 * MINUTE, 10.0), (1001, NOON - 10 * MINUTE, 5.0), (1002, NOON - 5 * MINUTE, 7.0)]


@pytest.fixture(scope="module")
def postgres() -> Iterator[dict[str, Any]]:
    """A database of the PostgreSQL that is installed here, as Feast's settings name it."""
    programs = [
        shutil.which("initdb"),
        *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), reverse=True),
    ]
    found = next(filter(None, programs), None)
    if found is None:
        pytest.skip("no PostgreSQL on this machine: install one, or put its initdb on the PATH")
    with TemporaryDirectory(prefix="millstream-postgres-") as name:
        root, port, someone = Path(name), free_port(), list[str]()
        home = root / "data"
        home.mkdir()
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            someone = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
            root.chmod(0o755)
            shutil.chown(home, "nobody", "nogroup")
        setup = [*someone, found, "-D", str(home), "-U", "feast", "-A", "trust", "--no-sync"]
        subprocess.run(setup, check=True, capture_output=True, timeout=60, cwd="/")
        at = {"host": HOST, "port": port, "user": "feast", "password": "", "sslmode": "disable"}

        def answers() -> bool:
            try:
                with psycopg.connect(dbname="postgres", connect_timeout=1, **at):
                    return True
            except psycopg.OperationalError:
                return False

        program = str(Path(found).with_name("postgres"))
        options = ["-D", str(home), "-p", str(port), "-h", HOST, "-k", "", "-c", "fsync=off"]
        server = ManagedProcess(
            "postgres", [*someone, program, *options], log=root / "log", ready=answers, ready_within=30
        )
        server.start()
        yield {"type": "postgres", "database": "postgres", **at}
        server.terminate()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    repo = tmp_path / "features"
    repo.mkdir()
    (repo / "definitions.py").write_text(DEFINITIONS)
    (repo / "feature_store.yaml").write_text(FEATURE_STORE)
    at = pd.to_datetime([NOON - 60 * MINUTE, NOON - 2 * DAY], utc=True).as_unit("us")
    pd.DataFrame({"driver_id": [1001, 1002], "conv_rate": [0.5, 0.9], "at": at}).to_parquet(repo / "stats.parquet")
    times = [int(at.timestamp() * 1e6) for _, at, _ in FARES]
    table = events_table(
        table_schema({"properties": {"driver_id": {"type": "integer"}, "fare": {"type": "number"}}}),
        partition=0,
        offsets=range(len(FARES)),
        event_times=times,
        known_at=times,
        ids=[None] * len(FARES),
        events=[{"driver_id": driver, "fare": fare} for driver, _, fare in FARES],
    )
    Lake(str(tmp_path / "lake")).append("trips", [LakeBatch(partition=0, end=len(FARES) - 1, rows=table)], group="lake")
    return repo


@pytest.mark.connected
def test_one_service_asks_stream_file_and_database(repo: Path, postgres: dict[str, Any], valkey_url: str) -> None:
    connection = {key: value for key, value in postgres.items() if key not in ("type", "database")}
    with psycopg.connect(dbname="postgres", **connection) as database:
        database.execute("create table profile (driver_id bigint, stars bigint, at timestamptz)")
        for row in ((1001, 4, NOON - 30 * MINUTE), (1001, 5, NOON + MINUTE), (1003, 2, NOON - MINUTE)):
            database.execute("insert into profile values (%s, %s, %s)", row)
    store = open_store(repo, online={"url": valkey_url, "namespace": "mixed"}, offline={"ordinary": postgres})
    service = store.get_feature_service("everything")
    drivers = [1001, 1002, 1003, 1001]
    asked = pd.DataFrame({"driver_id": drivers, "event_timestamp": [NOON] * 3 + [NOON + 2 * MINUTE]})
    past = store.get_historical_features(asked, service).to_df()
    expected = {"fares": [15.0, 7.0, 0.0, 15.0], "conv_rate": [0.5, None, None, 0.5], "stars": [4, None, 2, 5]}
    assert {name: [None if pd.isna(v) else v for v in past[name]] for name in expected} == expected

    times = np.array([int(at.timestamp() * 1e6) for _, at, _ in FARES])
    fares = EventBatch(
        stream="trips",
        partition=0,
        start=0,
        end=len(FARES) - 1,
        offsets=np.arange(len(FARES)),
        event_time=times,
        known_at=times,
        ids=None,
        columns={"driver_id": [driver for driver, _, _ in FARES], "fare": [fare for _, _, fare in FARES]},
    )

    async def fill() -> None:
        tiles = ValkeyTileStore(valkey_url, "mixed")
        await TileWriter(tiles, views_of(store).values(), "features").write(fares)
        await tiles.close()

    asyncio.run(fill())
    store.materialize(NOON - 3 * DAY, NOON)
    with as_of(NOON):
        now = store.get_online_features(service, [{"driver_id": driver} for driver in drivers[:3]]).to_dict()
    # Feast's online stores know no ttl: what was materialized stays (1002 has a rate of two days ago).
    assert {name: now[name] for name in expected} == {name: v[:3] for name, v in expected.items()} | {
        "conv_rate": [0.5, 0.9, None]
    }


def test_a_database_needs_to_be_named(repo: Path) -> None:
    store = open_store(repo)
    asked = pd.DataFrame({"driver_id": [1001], "event_timestamp": [NOON]})
    with pytest.raises(TilesError, match=r"source profile: a PostgreSQLSource is no file; write under offline_store"):
        store.get_historical_features(asked, store.get_feature_service("everything")).to_df()
    with pytest.raises(BadRepo, match=r"ordinary: no type; write one of Feast's offline stores"):
        open_store(repo, offline={"ordinary": {"host": "db"}})
