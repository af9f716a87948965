"""A table is scored with features of the past: the answers that serving gave live, from the same events."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client import CollectorRegistry

from millstream.contracts.events import ModelRef, PredictionServed
from millstream.contracts.package import MANIFEST_FILE, MODEL_FILE, InputColumn
from millstream.contracts.times import MINUTE, from_rfc3339
from millstream.project import load_project
from millstream.runtime.health import Health
from millstream.runtime.packages import PackageStore
from millstream_serving.adapters.feast_features import FeastStore
from millstream_serving.adapters.memory import MemoryFreshness
from millstream_serving.adapters.onnx_model import OnnxRuntime
from millstream_serving.adapters.score_job import Asked, job
from millstream_serving.domain.roster import Roster
from millstream_serving.errors import BadTable, ModelRefused
from millstream_serving.handlers import Loaded, ModelKeeper, Predictor, ask
from millstream_serving.metrics import ServingMetrics
from millstream_serving.settings import ScoreSettings
from millstream_tiles.events import EventBatch
from millstream_tiles.lake import Lake, LakeBatch
from millstream_tiles.lake_schema import events_table, table_schema
from millstream_tiles.online_store import tile_store_of
from millstream_tiles.writer import TileWriter

from .conftest import _manifest, state_of
from .trees import boosted

FLIGHTS = Path(__file__).parents[3] / "examples" / "flights"
SIX = from_rfc3339("2013-06-01T06:00:00Z")
TAILS = [f"N{number}" for number in range(8)]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def departures(count: int) -> list[dict[str, Any]]:
    """One every two minutes from six o'clock on."""
    chance = np.random.default_rng(3)
    return [
        {
            "flight_id": f"F{number}",
            "origin": str(chance.choice(["JFK", "EWR", "LGA"])),
            "dest": str(chance.choice(["LAX", "BOS"])),
            "carrier": str(chance.choice(["B6", "UA"])),
            "tailnum": str(chance.choice(TAILS)),
            "dep_delay": float(chance.integers(-10, 90)),
            "_at": SIX + number * 2 * MINUTE,
        }
        for number in range(count)
    ]


def questions(count: int) -> list[dict[str, Any]]:
    """Some of them of an aircraft and an airport that nobody has seen, and before there was anything to see."""
    chance = np.random.default_rng(5)
    return [
        {
            "flight_id": f"Q{number}",
            "tailnum": "N-new" if number % 9 == 0 else str(chance.choice(TAILS)),
            "origin": str(chance.choice(["JFK", "EWR", "LGA"])),
            "dest": "XXX" if number % 6 == 0 else "LAX",
            "carrier": str(chance.choice(["B6", "UA"])),
            "distance": int(chance.integers(100, 4000)),
            "scheduled_minute": int(chance.integers(0, 1440)),
            "weekday": number % 7 + 1,
            "_at": SIX + int(chance.integers(-30 * MINUTE, 500 * MINUTE)),
        }
        for number in range(count)
    ]


STREAM = load_project(FLIGHTS).streams["flights-departed"]


def in_tiles(events: list[dict[str, Any]], first: int) -> EventBatch:
    """Events from offset `first` on."""
    times = np.array([event["_at"] for event in events])
    return EventBatch(
        stream=STREAM.name,
        partition=0,
        start=first,
        end=first + len(events) - 1,
        offsets=np.arange(first, first + len(events)),
        event_time=times,
        known_at=times,
        ids=[event["flight_id"] for event in events],
        columns={name: [event[name] for event in events] for name in events[0] if name != "_at"},
    )


def in_lake(lake: Path, events: list[dict[str, Any]]) -> None:
    times = [event["_at"] for event in events]
    rows = events_table(
        table_schema(STREAM.event_schema),
        partition=0,
        offsets=range(len(events)),
        event_times=times,
        known_at=times,
        ids=[event["flight_id"] for event in events],
        events=events,
    )
    Lake(str(lake)).append(STREAM.name, [LakeBatch(partition=0, end=len(events) - 1, rows=rows)], group="features-lake")


def package(root: Path, names: list[str], views: dict[str, str]) -> ModelRef:
    loop = load_project(FLIGHTS).loops["flight-delay"]
    numbers = {"distance", "scheduled_minute", "weekday"}
    inputs = [
        *(InputColumn(name=name, source="feature", type="number") for name in names),
        *(
            InputColumn(name=name, source="input", type="number" if name in numbers else "category")
            for name in loop.predict.inputs
        ),
    ]
    graph = boosted(inputs, trees=50)
    manifest = _manifest("4", {MODEL_FILE: hashlib.sha256(graph).hexdigest()})
    manifest = msgspec.structs.replace(manifest, inputs=inputs, views=views)
    files = {MODEL_FILE: graph, MANIFEST_FILE: msgspec.json.encode(manifest)}
    uri, sha256 = PackageStore(str(root / "packages")).save("flight-delay/4-run-1", files)
    return ModelRef(version="4", run="run", uri=uri, sha256=sha256, at=manifest.lineage.at)


async def live(
    root: Path, store: FeastStore, ref: ModelRef, events: list[dict[str, Any]], asked: list[dict[str, Any]]
) -> list[PredictionServed]:
    """What the one predict path says, from Valkey: each question when it comes, between the events of its day."""
    project = load_project(FLIGHTS)
    roster: Roster[Loaded] = Roster(project.loops)
    metrics = ServingMetrics(CollectorRegistry())
    keeper = ModelKeeper(
        roster=roster,
        loops=project.loops,
        streams=project.streams,
        packages=PackageStore(str(root / "packages")),
        runtime=OnnxRuntime(1),
        store=store,
        health=Health(60.0),
        metrics=metrics,
        changed=lambda loop: None,
    )
    roster.obey(state_of(1, ref), await keeper.load("flight-delay", ref))
    predictor = Predictor(
        roster=roster, loops=project.loops, streams=project.streams, freshness=MemoryFreshness(), metrics=metrics
    )
    features = await store.open("delay_v1")
    views = [view for view in features._reader.views.values() if view.stream == STREAM.name]
    tiles = tile_store_of(store._store.config)
    writer, written, loop = TileWriter(tiles, views, "features-tiles"), 0, project.loops["flight-delay"]
    found: dict[str, PredictionServed] = {}
    for event in sorted(asked, key=lambda one: int(one["_at"])):
        news = [one for one in events[written:] if one["_at"] <= event["_at"]]
        if news:
            assert (await writer.write(in_tiles(news, written))).outcome == "applied"
            written += len(news)
        (answer,) = await predictor.predict([ask(loop, event, asked_at=event["_at"], transport="kafka")])
        assert isinstance(answer, PredictionServed)
        found[event["flight_id"]] = answer
    await tiles.close()
    return [found[event["flight_id"]] for event in asked]


def table_of(asked: list[dict[str, Any]]) -> pa.Table:
    columns: dict[str, Any] = {name: [one[name] for one in asked] for name in asked[0] if name != "_at"}
    return pa.table(columns | {"event_timestamp": [EPOCH + timedelta(microseconds=one["_at"]) for one in asked]})


async def test_what_is_scored_afterwards_is_what_was_answered_then(
    valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FeastStore(
        repo=FLIGHTS / "features", registry=tmp_path / "registry.db", url=valkey_url, namespace="millstream"
    )
    features = await store.open("delay_v1")
    events = departures(200)
    in_lake(tmp_path / "lake", events)
    ref = package(tmp_path, list(features.names), dict(features.views))
    asked = questions(120)
    answered = await live(tmp_path, store, ref, events, asked)
    await store.close()

    pq.write_table(table_of(asked), tmp_path / "in.parquet")
    monkeypatch.setattr("millstream_serving.adapters.score_job.ROWS_OF_A_READ", 50)
    settings = ScoreSettings(project=FLIGHTS, packages=str(tmp_path / "packages"), lake=str(tmp_path / "lake"))
    order = Asked(
        loop="flight-delay", input=tmp_path / "in.parquet", output=tmp_path / "out.parquet", look_up=True, version="4",
        threads=2,
    )  # fmt: skip
    said = await job(order, settings)

    out = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["flight_id"] for row in out] == [one["flight_id"] for one in asked]
    assert [row["probability"] for row in out] == [one.output["probability"] for one in answered]
    assert [row["null_features"] for row in out] == [
        sum(value is None for value in one.features.values()) for one in answered
    ]
    assert len({row["probability"] for row in out}) > 60
    assert said["with_nulls"] > 0
    # The keys come out too, though the model reads some of them.
    assert set(out[0]) == {
        *("flight_id", "tailnum", "origin", "dest", "carrier", "event_timestamp"),
        *("probability", "version", "null_features"),
    }


async def test_what_a_look_up_needs_is_said(tmp_path: Path) -> None:
    """Keys, times, and the views that the model was trained on: nothing that would be scored is guessed."""
    store = FeastStore(
        repo=FLIGHTS / "features", registry=tmp_path / "r.db", url="redis://127.0.0.1:1/0", namespace="millstream"
    )
    features = await store.open("delay_v1")
    names, views = list(features.names), dict(features.views)
    package(tmp_path, names, views)
    settings = ScoreSettings(project=FLIGHTS, packages=str(tmp_path / "packages"), lake=str(tmp_path / "lake"))
    order = Asked(
        loop="flight-delay", input=tmp_path / "in.parquet", output=tmp_path / "out.parquet", look_up=True, version="4",
        threads=1,
    )  # fmt: skip
    table = table_of(questions(3))
    for change, said in (
        (table.drop_columns(["tailnum", "event_timestamp"]), "no column 'tailnum', 'event_timestamp'"),
        (
            table.set_column(table.column_names.index("event_timestamp"), "event_timestamp", pa.array(["now"] * 3)),
            "column 'event_timestamp' is a text; write it as timestamp",
        ),
        (
            table.set_column(
                table.column_names.index("event_timestamp"),
                "event_timestamp",
                pa.array([EPOCH, None, EPOCH], pa.timestamp("us", "UTC")),
            ),
            r"row 1 has no event_timestamp",
        ),
    ):
        pq.write_table(change, tmp_path / "in.parquet")
        with pytest.raises(BadTable, match=said):
            await job(order, settings)
    package(tmp_path, names, views | {"origin_departures": "0" * 64})
    with pytest.raises(ModelRefused, match="view origin_departures was 0000"):
        await job(order, settings)
    assert not (tmp_path / "out.parquet").exists()
