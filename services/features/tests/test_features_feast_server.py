"""Feast's own feature server (0.67) and ours on one store: the same questions, the same answers, field by field.

What differs is said here too: where Feast's server answers 500 with a Python message, ours refuses with a code and a sentence
(`test_where_feasts_server_breaks_ours_says_why`), and what would write a windowed view past its stream is refused.
Of Feast's feature-server tests, `test_get_online_features`, `test_push` and `test_push_source_does_not_exist` are here, of
its remote-store tests reading an entity that is there, one that is not and a view that is not, and writing; what they say of
materialization, documents (vector search), predictions, permissions and TLS is not ours.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
import uvicorn
from feast import FeatureStore, RepoConfig
from feast.feature_server import get_app

from millstream.runtime.http import http_app
from millstream_features.adapters.feast_reader import FeastReader
from millstream_features.api import add_routes
from millstream_tiles import EventBatch, TileWriter, ValkeyTileStore

pytestmark = pytest.mark.connected

NOON = datetime(2013, 6, 1, 12, 0, tzinfo=UTC)
DEFINITIONS = """
from datetime import timedelta
from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, RequestSource
from feast.aggregation import Aggregation
from feast.on_demand_feature_view import on_demand_feature_view
from feast.stream_feature_view import StreamFeatureView
from feast.types import Array, Bool, Float64, Int64, String, UnixTimestamp
from millstream_tiles import stream_source

origin = Entity(name="origin")
carrier = Entity(name="carrier")
departed = stream_source("departures", time="departed_at", lateness="90m", id="flight")
HOUR, TEN = timedelta(hours=1), timedelta(minutes=10)

delays = StreamFeatureView(
    name="delays", entities=[origin], source=departed, timestamp_field="departed_at",
    aggregations=[
        Aggregation(column="*", function="count", time_window=HOUR, slide_interval=TEN, name="flights"),
        Aggregation(column="delay", function="mean", time_window=HOUR, slide_interval=TEN, name="mean"),
    ])
route_delays = StreamFeatureView(
    name="route_delays", entities=[origin, carrier], source=departed, timestamp_field="departed_at",
    aggregations=[Aggregation(column="delay", function="max", time_window=HOUR, slide_interval=TEN, name="worst")])
airports_push = PushSource(
    name="airports_push",
    batch_source=FileSource(name="airports_file", path="airports.parquet", timestamp_field="event_timestamp",
                            created_timestamp_column="created"))
airports = FeatureView(
    name="airports", entities=[origin], ttl=timedelta(days=9999), source=airports_push,
    schema=[Field(name="origin", dtype=String), Field(name="runways", dtype=Int64), Field(name="open", dtype=Bool),
            Field(name="height", dtype=Float64), Field(name="gates", dtype=Array(String)),
            Field(name="built", dtype=UnixTimestamp)])
asked = RequestSource(name="asked", schema=[Field(name="hour", dtype=Int64)])

@on_demand_feature_view(sources=[delays, asked], schema=[Field(name="flights_and_hour", dtype=Int64)], mode="python")
def both(inputs):
    return {"flights_and_hour": [f + h for f, h in zip(inputs["flights"], inputs["hour"])]}

everything = FeatureService(name="everything", features=[delays, route_delays, airports])
computed = FeatureService(name="computed", features=[delays[["flights"]], both])
"""
FEATURE_STORE = """
project: flights
provider: local
online_store: {type: millstream_tiles.online_store.MillstreamOnlineStore}
offline_store: {type: millstream_tiles.offline_store.MillstreamOfflineStore}
entity_key_serialization_version: 3
"""
JFK = {
    "origin": ["JFK"], "runways": [4], "open": [True], "height": [3.9], "gates": [["A1", "B22"]],
    "built": [-678326400], "event_timestamp": ["2013-01-01T00:00:00"], "created": ["2013-01-01T00:00:00"],
}  # fmt: skip


class Servers:
    """Both, on one store that has a morning's departures and one airport."""

    def __init__(self, ours: httpx.AsyncClient, theirs: httpx.AsyncClient, features: FeastReader) -> None:
        self.ours, self.theirs, self.features = ours, theirs, features

    async def both(self, path: str, body: dict[str, Any]) -> tuple[httpx.Response, httpx.Response]:
        return await self.ours.post(path, json=body), await self.theirs.post(path, json=body)


@pytest.fixture
async def servers(tmp_path: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Servers]:
    # Both answer as of "now", which would be two moments.
    monkeypatch.setattr("millstream_tiles.online_question.asked_time", lambda: int(NOON.timestamp() * 1e6))
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "definitions.py").write_text(DEFINITIONS)
    (tmp_path / "features" / "feature_store.yaml").write_text(FEATURE_STORE)
    features = FeastReader(
        repo=tmp_path / "features", registry=tmp_path / "registry.db", valkey=valkey_url, namespace="both", lake="lake"
    )
    tiles = ValkeyTileStore(valkey_url, "both")
    await TileWriter(tiles, features.views, "features").write(_morning())
    await tiles.close()
    app = http_app(title="features")
    add_routes(app, lambda: features, lambda: features.rows)
    there = httpx.ASGITransport(get_app(features._store, 0), raise_app_exceptions=False)
    async with (
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://ours"
        ) as ours,
        httpx.AsyncClient(transport=there, base_url="http://theirs") as theirs,
    ):
        pushed = await ours.post("/push", json={"push_source_name": "airports_push", "df": JFK})
        assert pushed.status_code == 200, pushed.text
        yield Servers(ours, theirs, features)
    await features._store.close()


def _morning() -> EventBatch:
    times = np.array([int((NOON - timedelta(minutes=m)).timestamp()) * 1_000_000 for m in (50, 30, 5)])
    columns = {"origin": ["JFK", "JFK", "LGA"], "carrier": ["DL", "AA", "DL"], "delay": [5.0, 2.5, None]}
    return EventBatch(
        stream="departures", partition=0, start=0, end=2, offsets=np.arange(3), event_time=times, known_at=times,
        ids=["f1", "f2", "f3"], columns=columns,
    )  # fmt: skip


AIRPORTS = {"origin": ["JFK", "SFO", "JFK", "LGA"]}
QUESTIONS = {
    "features": {"features": ["delays:flights", "delays:mean"], "entities": AIRPORTS},
    "full names": {"features": ["delays:flights", "airports:runways"], "entities": AIRPORTS, "full_feature_names": True},
    "all types": {
        "features": [f"airports:{f}" for f in ("runways", "open", "height", "gates", "built")],
        "entities": AIRPORTS,
    },
    "a service": {"feature_service": "everything", "entities": AIRPORTS | {"carrier": ["DL", "DL", "AA", "DL"]}},
    "versions": {
        "feature_service": "everything", "entities": {"origin": ["JFK"], "carrier": ["DL"]},
        "include_feature_view_version_metadata": True,
    },
    "on demand": {"feature_service": "computed", "entities": {"origin": ["JFK", "SFO"], "hour": [7, 8]}},
    "unknown column": {"features": ["delays:flights"], "entities": AIRPORTS | {"colour": [1, 2, 3, 4]}},
}  # fmt: skip


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
async def test_the_answer_is_that_of_feasts_own_server(servers: Servers, question: dict[str, Any]) -> None:
    ours, theirs = await servers.both("/get-online-features", question)

    assert (ours.status_code, theirs.status_code) == (200, 200), theirs.text
    assert ours.json() == theirs.json()
    assert ours.headers["content-type"] == theirs.headers["content-type"]


async def test_what_the_answer_says(servers: Servers) -> None:
    """Against a mistake that both servers would share."""
    answer = (await servers.ours.post("/get-online-features", json=QUESTIONS["a service"])).json()

    by_name = dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))
    assert by_name["flights"]["values"] == [2, 0, 2, 1]
    assert by_name["mean"]["values"] == [3.75, None, 3.75, None]
    assert by_name["worst"]["values"] == [5.0, None, 2.5, None]
    assert by_name["runways"]["values"] == [4, None, 4, None]
    assert by_name["runways"]["statuses"] == ["PRESENT", "NOT_FOUND", "PRESENT", "NOT_FOUND"]
    assert by_name["runways"]["event_timestamps"][:2] == ["2013-01-01T00:00:00Z", "1970-01-01T00:00:00Z"]
    assert set(by_name["flights"]["statuses"]) == {"PRESENT"}
    assert set(by_name["flights"]["event_timestamps"]) == {"2013-06-01T12:00:00Z"}


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/get-online-features", {"features": ["nothing:x"], "entities": AIRPORTS}, 404, "unknown_feature"),
        ("/get-online-features", {"feature_service": "nothing", "entities": AIRPORTS}, 404, "unknown_feature"),
        ("/get-online-features", {"features": ["delays:flights"]}, 422, "bad_body"),
        ("/push", {"push_source_name": "nothing", "df": JFK}, 422, "unknown_push_source"),
        ("/push", {"push_source_name": "airports_push", "df": "rows"}, 422, "bad_body"),
        ("/write-to-online-store", {"df": JFK}, 422, "bad_body"),
    ],
)
@pytest.mark.filterwarnings("ignore:'HTTP_422_UNPROCESSABLE_ENTITY' is deprecated")  # Feast's own use of it
async def test_a_refusal_has_feasts_status(
    servers: Servers, path: str, body: dict[str, Any], status: int, code: str
) -> None:
    ours, theirs = await servers.both(path, body)

    assert (ours.status_code, theirs.status_code) == (status, status)
    assert ours.json()["error"] == code


@pytest.mark.parametrize(
    ("path", "body", "code", "said"),
    [
        ("/get-online-features", {"features": ["delays:none"], "entities": AIRPORTS}, "bad_question", "none not found"),
        ("/get-online-features", {"features": ["delays:mean"], "entities": {}}, "bad_body", "0 rows"),
        ("/push", {"push_source_name": "airports_push", "df": {"origin": ["JFK"]}}, "bad_rows", "runways"),
        (
            "/push",
            {"push_source_name": "airports_push", "df": JFK | {"event_timestamp": ["soon"]}},
            "bad_rows",
            "/df/event_timestamp/0 is 'soon'; write a time",
        ),
        ("/push", {"push_source_name": "airports_push", "df": JFK | {"runways": ["x"]}}, "bad_rows", "cannot write"),
        ("/push", {"push_source_name": "airports_push", "df": JFK | {"runways": [1, 2]}}, "bad_rows", "one length"),
        (
            "/write-to-online-store",
            {"feature_view_name": "delays", "df": {"origin": ["JFK"], "flights": [9], "mean": [1.0]}},
            "filled_from_stream",
            "the events of the stream 'departures'; produce them there",
        ),
    ],
    ids=lambda value: str(value)[:50],
)
async def test_where_feasts_server_breaks_ours_says_why(
    servers: Servers, path: str, body: dict[str, Any], code: str, said: str
) -> None:
    ours, theirs = await servers.both(path, body)

    assert theirs.status_code == 500
    assert (ours.status_code, ours.json()["error"]) == (422, code)
    assert said in ours.json()["message"]


async def test_a_push_is_read_back(servers: Servers) -> None:
    sfo = JFK | {"origin": ["SFO"], "runways": [2]}
    asked = {"features": ["airports:runways", "delays:flights"], "entities": {"origin": ["SFO", "JFK"]}}

    assert (await servers.ours.post("/push", json={"push_source_name": "airports_push", "df": sfo})).content == b""
    answer = (await servers.ours.post("/get-online-features", json=asked)).json()
    assert [r["values"] for r in answer["results"]] == [["SFO", "JFK"], [2, 4], [0, 2]]
    newer = sfo | {"runways": [3], "event_timestamp": ["2013-02-01T00:00:00Z"]}
    written = await servers.ours.post("/write-to-online-store", json={"feature_view_name": "airports", "df": newer})
    assert (written.status_code, written.json()) == (200, None)
    ours, theirs = await servers.both("/get-online-features", asked)
    assert ours.json() == theirs.json()
    assert ours.json()["results"][1]["values"] == [3, 4]


async def test_the_stream_of_a_windowed_view_takes_no_push(servers: Servers) -> None:
    answer = await servers.ours.post("/push", json={"push_source_name": "departures", "df": {"origin": ["JFK"]}})

    assert (answer.status_code, answer.json()["error"]) == (422, "filled_from_stream")
    assert "produce them there (to its topic, or to ingest)" in answer.json()["message"]


@pytest.mark.parametrize("to", ["offline", "online_and_offline"])
async def test_history_is_not_pushed(servers: Servers, to: str) -> None:
    answer = await servers.ours.post("/push", json={"push_source_name": "airports_push", "df": JFK, "to": to})

    assert (answer.status_code, answer.json()["error"]) == (422, "not_pushed_offline")


@pytest.mark.parametrize("path", ["/materialize", "/materialize-incremental"])
async def test_nothing_is_materialized_over_http(servers: Servers, path: str) -> None:
    answer = await servers.ours.post(path, json={"end_ts": "2013-06-01T12:00:00"})

    assert (answer.status_code, answer.json()["error"]) == (501, "not_materialized_here")
    assert "feast materialize-incremental" in answer.json()["message"]


async def test_ten_thousand_rows_are_the_most(servers: Servers) -> None:
    many = {"origin": ["JFK"] * 10_001}
    answer = await servers.ours.post("/push", json={"push_source_name": "airports_push", "df": many})

    assert (answer.status_code, answer.json()["error"]) == (422, "bad_body")
    assert "10001 rows; send 1 to 10000" in answer.json()["message"]


async def test_feasts_own_remote_client_reads_and_writes_through_ours(servers: Servers, tmp_path: Path) -> None:
    local = servers.features._store
    rows = [{"origin": o, "carrier": "DL"} for o in ("JFK", "SFO", "LGA")]

    def by(store: FeatureStore, asked: Any, **how: Any) -> dict[str, Any]:
        return dict(store.get_online_features(asked, rows, **how).to_dict())

    async with _serving(servers) as url:
        remote = FeatureStore(
            config=RepoConfig(
                project="flights",
                provider="local",
                registry={"registry_type": "file", "path": str(tmp_path / "registry.db")},
                online_store={"type": "remote", "path": url, "connection_retries": 0},
                offline_store={"type": "dask"},
                entity_key_serialization_version=3,
            )
        )
        try:
            for asked in (["delays:flights", "airports:height"], local.get_feature_service("everything")):
                for full in (True, False):
                    found = await asyncio.to_thread(by, remote, asked, full_feature_names=full)
                    assert _plain(found) == _plain(by(local, asked, full_feature_names=full))
            with pytest.raises(Exception, match="nothing"):
                await asyncio.to_thread(by, remote, ["nothing:x"])
            airport = {name: values for name, values in JFK.items() if name not in ("gates", "built")}
            frame = pd.DataFrame(
                airport
                | {"origin": ["LGA"], "gates": [["C"]], "built": [pd.Timestamp("1939-10-15", tz="UTC")]}
                | {time: [pd.Timestamp("2013-03-01", tz="UTC")] for time in ("event_timestamp", "created")}
            )
            await asyncio.to_thread(remote.write_to_online_store, "airports", frame)
            assert by(local, ["airports:runways", "airports:gates"])["runways"] == [4, None, 4]
            with pytest.raises(RuntimeError, match="filled_from_stream"):
                await asyncio.to_thread(_write_windows, remote)
        finally:
            await remote.close()


def _write_windows(store: FeatureStore) -> None:
    frame = pd.DataFrame({"origin": ["JFK"], "flights": [9], "mean": [1.0], "departed_at": [NOON]})
    store.write_to_online_store("delays", frame)


def _plain(columns: dict[str, Any]) -> dict[str, Any]:
    """Times cross the wire as numbers, which Feast's client leaves as they are."""
    return {n: [v.timestamp() if isinstance(v, datetime) else v for v in vs] for n, vs in columns.items()}


@asynccontextmanager
async def _serving(servers: Servers) -> AsyncIterator[str]:
    """Our routes behind a real port."""
    app = http_app(title="features")
    add_routes(app, lambda: servers.features, lambda: servers.features.rows)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    until = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < until, "uvicorn does not start"
        await asyncio.wait([serving], timeout=0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
