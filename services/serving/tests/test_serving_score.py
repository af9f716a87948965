"""A table is scored: the same answers as live, whole or not at all, and words for what is wrong with it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiokafka import AIOKafkaProducer
from hypothesis import given

from millstream.contracts.envelope import Envelope
from millstream.contracts.events import ModelRef
from millstream.contracts.package import MANIFEST_FILE, MODEL_FILE, BadPackage
from millstream.contracts.tasks import Task, is_answer
from millstream.contracts.topics import MODELS
from millstream.errors import BadSetup
from millstream.runtime.packages import PackageStore
from millstream.runtime.topic_admin import ensure_topics, our_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.ports import free_port
from millstream_serving.adapters import score_job
from millstream_serving.adapters.onnx_model import OnnxRuntime
from millstream_serving.adapters.parquet_table import ParquetAnswers, ParquetTable
from millstream_serving.adapters.score_job import Asked, job
from millstream_serving.domain.batch import answer_columns, honest
from millstream_serving.domain.columns import columns_of
from millstream_serving.errors import BadTable, ModelRefused, NoModel, UnknownLoop
from millstream_serving.handlers.scoring import score as scored
from millstream_serving.settings import ScoreSettings

from .conftest import INPUTS, Stage, _manifest, state_of, write_project
from .trees import boosted, softmax

MEAN = "origin_delays__mean"
CARRIERS = ["B6", "UA", None, "ZZ", "DL"]


def save(root: Path, version: str, graph: bytes, **said: Any) -> ModelRef:
    """`said`: of its manifest."""
    manifest = msgspec.structs.replace(_manifest(version, {MODEL_FILE: hashlib.sha256(graph).hexdigest()}), **said)
    files = {MODEL_FILE: graph, MANIFEST_FILE: msgspec.json.encode(manifest)}
    uri, sha256 = PackageStore(str(root / "packages")).save(f"flight-delay/{version}-run-1", files)
    return ModelRef(version=version, run=f"run-{version}", uri=uri, sha256=sha256, at=manifest.lineage.at)


@pytest.fixture
def mill(tmp_path: Path) -> Path:
    """A project and a model of it, version 7."""
    write_project(tmp_path / "project")
    save(tmp_path, "7", boosted(INPUTS, trees=20))
    return tmp_path


def flights(rows: int) -> dict[str, list[Any]]:
    """Columns of questions with their feature, nulls among them."""
    chance = np.random.default_rng(7)
    return {
        "flight_id": [f"B6-{row}" for row in range(rows)],
        "distance": [None if row % 11 == 0 else int(chance.integers(50, 4000)) for row in range(rows)],
        "carrier": [CARRIERS[row % 5] for row in range(rows)],
        MEAN: [None if row % 7 == 0 else float(chance.uniform(-5, 40)) for row in range(rows)],
        "label": [row % 3 == 0 for row in range(rows)],
    }


def score(mill: Path, table: dict[str, Any] | pa.Table, **asked: Any) -> tuple[dict[str, Any], pa.Table]:
    """What came of it, and the output."""
    source, out = mill / "in.parquet", mill / "out.parquet"
    pq.write_table(pa.table(table), source, row_group_size=1000)
    said: dict[str, Any] = {
        "loop": "flight-delay", "input": source, "output": out, "look_up": False, "version": "7", "threads": 2,
    }  # fmt: skip
    kafka = {"kafka": asked.pop("kafka")} if "kafka" in asked else {}
    settings = ScoreSettings(
        project=mill / "project", packages=str(mill / "packages"), lake=str(mill / "lake"), **kafka
    )
    found = asyncio.run(job(Asked(**said | asked), settings))
    return found, pq.read_table(out)


def live(table: dict[str, list[Any]], graph: bytes) -> list[float]:
    """One row at a time, as a question would be answered."""
    model = OnnxRuntime(1).load(graph, INPUTS, "probability")
    found = []
    for row in range(len(table["flight_id"])):
        event = {"distance": table["distance"][row], "carrier": table["carrier"][row]}
        mean = np.array([np.nan if table[MEAN][row] is None else table[MEAN][row]])
        columns, misfits = columns_of(INPUTS, [event], {MEAN: mean})
        assert not misfits
        found.append(float(model.run(columns)[0]))
    return found


def test_every_row_is_answered_as_it_would_be_live_bit_by_bit(mill: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_job, "ROWS_OF_A_RUN", 300)
    table = flights(2_500)
    said, out = score(mill, table)
    assert out.column_names == ["flight_id", "label", "probability", "version", "null_features"]
    assert out["probability"].to_pylist() == live(table, boosted(INPUTS, trees=20))
    assert len(set(out["probability"].to_pylist())) > 100
    assert out["flight_id"].to_pylist() == table["flight_id"]
    assert set(out["version"].to_pylist()) == {"7"}
    assert out["null_features"].to_pylist() == [int(value is None) for value in table[MEAN]]
    assert (said["rows"], said["unanswered"], said["with_nulls"]) == (2_500, 0, 358)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("distance", lambda values: pa.array(values, pa.int16())),
        ("distance", lambda values: pa.array(values, pa.decimal128(10, 2))),
        ("distance", lambda values: pa.array(values, pa.float64()).dictionary_encode()),
        ("carrier", lambda values: pa.array(values).dictionary_encode()),
        ("carrier", lambda values: pa.array(values, pa.large_string())),
    ],
    ids=["int16", "decimal", "dictionary of numbers", "dictionary", "large string"],
)
def test_a_column_may_come_in_any_type_that_holds_its_values(
    mill: Path, name: str, write: Callable[[list[Any]], Any]
) -> None:
    table = flights(500)
    _, plain = score(mill, table)
    _, out = score(mill, table | {name: write(table[name])})
    assert out["probability"].equals(plain["probability"])


@pytest.mark.parametrize("values", [[5, 17, None], [5.0, 17.5, None], [True, False, None]])
def test_a_category_that_is_no_text_is_the_text_that_it_is_live(mill: Path, values: list[Any]) -> None:
    table = {name: column[:3] for name, column in flights(3).items()} | {"carrier": values}
    _, out = score(mill, table)
    assert out["probability"].to_pylist() == live(table, boosted(INPUTS, trees=20))


def by_class(mean: float) -> list[float]:
    """Three classes; none of them for a mean of 13, for which it raises."""
    if mean == 13.0:
        raise ValueError("unlucky")
    return [0.2, 0.3, 0.5] if mean < 20.0 else [0.2, 0.3, np.nan] if mean == 20.0 else [0.6, 0.3, 0.1]


async def test_a_class_has_its_column_and_what_the_model_cannot_answer_is_null(stage: Stage) -> None:
    """As live: a row that makes a whole run fail costs no other row its answer."""
    ref = stage.package(
        "8",
        lambda row: by_class(0.0 if np.isnan(row[MEAN]) else row[MEAN]),
        task="multiclass",
        output="probabilities",
        classes=["early", "on time", "late"],
    )
    loaded = await stage.keeper.load("flight-delay", ref)
    means = [1.0, 13.0, 20.0, 30.0]
    table = pa.table({"distance": [1.0] * 4, "carrier": ["B6"] * 4, MEAN: means})
    pq.write_table(table, stage.root / "in.parquet")
    source, names = ParquetTable(stage.root / "in.parquet"), answer_columns(loaded.manifest)
    assert names == ["probability_early", "probability_on time", "probability_late"]
    with ParquetAnswers(stage.root / "out.parquet", source.schema, [], names, "8") as out:
        found = await scored(loaded, source.pieces(100), out, look_up=False, threads=1, told=lambda rows: None)
    assert (found.rows, found.unanswered) == (4, 2)
    answers = pq.read_table(stage.root / "out.parquet")
    assert [round(one, 6) if one else one for one in answers["probability_late"].to_pylist()] == [0.5, None, None, 0.1]
    assert [one is None for one in answers["probability_early"].to_pylist()] == [False, True, True, False]


def test_a_model_that_fails_its_warm_up_scores_nothing(mill: Path) -> None:
    """A linear layer knows no nulls: it says NaN to them."""
    save(mill, "8", softmax(INPUTS, classes=2), task="multiclass", output="probabilities", classes=["no", "yes"])
    with pytest.raises(ModelRefused, match="two rows of nulls"):
        score(mill, flights(10), version="8")
    assert not (mill / "out.parquet").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"distance": None}, "no column 'distance'; it has flight_id, carrier"),
        ({"distance": ["far", None]}, "column 'distance' is a text; write it as int, float, decimal or bool"),
        ({"carrier": [[1], [2]]}, "column 'carrier' is of a kind that no model reads; write it as string"),
        ({MEAN: None}, f"no column '{MEAN}'.*--features lookup reads them"),
        ({"probability": [1.0, 2.0]}, "column 'probability' is called like one of the answers; rename it"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_before_anything_is_written(
    mill: Path, change: dict[str, Any], said: str
) -> None:
    table = {name: column for name, column in (flights(2) | change).items() if column is not None}
    with pytest.raises(BadTable, match=said):
        score(mill, table)
    assert not (mill / "out.parquet").exists()


def test_everything_that_is_wrong_is_said_at_once(mill: Path) -> None:
    with pytest.raises(BadTable, match=r"in\.parquet: column 'distance' is a text.*; no column 'carrier'"):
        score(mill, {"distance": ["far"], MEAN: [1.0]})


def test_a_column_without_any_value_is_all_nulls(mill: Path) -> None:
    """pandas writes one of no type at all."""
    table = flights(5) | {"distance": [None] * 5, "carrier": [None] * 5}
    _, out = score(mill, table)
    assert out["probability"].to_pylist() == live(table, boosted(INPUTS, trees=20))


def test_what_cannot_be_asked(mill: Path) -> None:
    table = flights(5)
    with pytest.raises(BadPackage, match=r"no version '9' of flight-delay in .*; there are 7$"):
        score(mill, table, version="9")
    with pytest.raises(UnknownLoop, match=r"no loop 'flights'.*known: flight-delay"):
        score(mill, table, loop="flights")
    with pytest.raises(BadTable, match="is the input too"):
        score(mill, table, output=mill / "in.parquet")
    with pytest.raises(BadTable, match="no such file"):
        score(mill, table, input=mill / "nothing.parquet")
    (mill / "text.parquet").write_text("flight_id,distance\n")
    with pytest.raises(BadTable, match=r"text\.parquet: is no Parquet file"):
        score(mill, table, input=mill / "text.parquet")
    with pytest.raises(BadTable, match="no folder"):
        score(mill, table, output=mill / "there" / "out.parquet")


def test_a_package_that_was_tampered_with_scores_nothing(mill: Path) -> None:
    (mill / "packages/flight-delay/7-run-1/model.onnx").write_bytes(b"another")
    with pytest.raises(ModelRefused, match="has sha256"):
        score(mill, flights(5))


def test_an_empty_table_has_an_empty_answer(mill: Path) -> None:
    empty = pa.table(flights(5)).slice(0, 0)
    said, out = score(mill, empty)
    assert said["rows"] == 0
    assert out.column_names == ["flight_id", "label", "probability", "version", "null_features"]


def environment(mill: Path) -> dict[str, str]:
    places = {"PROJECT": "project", "PACKAGES": "packages", "LAKE": "lake"}
    return {**os.environ, **{f"MILLSTREAM_{name}": str(mill / folder) for name, folder in places.items()}}


def command(*more: str) -> list[str]:
    asked = ["--input", "in.parquet", "--output", "out.parquet", "--features", "given", "--version", "7"]
    return [sys.executable, "-m", "millstream_serving", "score", "flight-delay", *asked, *more]


def test_the_command_says_what_came_of_it(mill: Path) -> None:
    pq.write_table(pa.table(flights(100)), mill / "in.parquet")
    done = subprocess.run(
        command("--json"), cwd=mill, env=environment(mill), capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout)["rows"] == 100
    assert "100/100" in done.stderr, "progress"
    pq.write_table(pa.table({"distance": [1.0]}), mill / "in.parquet")
    done = subprocess.run(
        command(), cwd=mill, env=environment(mill), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("millstream: in.parquet: no column")
    assert pq.read_table(mill / "out.parquet").num_rows == 100, "what an earlier run wrote stays"


@pytest.mark.timeout(300)  # 49 s where the cores were busy
def test_a_job_that_is_stopped_leaves_nothing_behind(mill: Path) -> None:
    save(mill, "7", boosted(INPUTS, trees=800))
    pq.write_table(pa.concat_tables([pa.table(flights(20_000))] * 100), mill / "in.parquet")
    running = subprocess.Popen(
        command(), cwd=mill, env=environment(mill), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        while not list(mill.glob(".out.parquet.*.part")):
            assert running.poll() is None, "it ended before it was stopped"
            time.sleep(0.01)  # it needs the core
        running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=200)
    finally:
        running.kill()
        running.wait()
    assert running.returncode == 130
    assert "out.parquet was not written" in said
    assert not list(mill.glob("*out.parquet*"))


@given(st.lists(st.floats(width=32), min_size=1, max_size=20))
def test_a_row_is_an_answer_exactly_where_it_is_live(values: list[float]) -> None:
    for task, name in ((Task.BINARY, "probability"), (Task.REGRESSION, "value")):
        found = honest(task, np.array(values, np.float32)).tolist()
        assert found == [is_answer(task, {name: value}) for value in values]
    rows = np.array([values, values[::-1]], np.float32)
    assert honest(Task.MULTICLASS, rows).tolist() == [
        is_answer(Task.MULTICLASS, dict(enumerate(row))) for row in rows.tolist()
    ]


@pytest.mark.connected
async def test_without_a_version_the_champion_that_kafka_names_answers(
    kafka: EmbeddedKafka, tmp_path: Path, unique_name: Callable[[str], str]
) -> None:
    loop, other, fresh = (unique_name(name) for name in ("delay", "another", "young"))
    for name in (loop, other, fresh):
        write_project(tmp_path / name / "project", loop=name)
    old, new = (save(tmp_path / loop, version, boosted(INPUTS, trees=20), loop=loop) for version in ("7", "8"))
    states = [
        state_of(1, old, loop=loop),
        state_of(3, new, loop=loop, previous=old, watched=True),
        state_of(2, old, loop=loop, challenger=new, share=0.5),  # of a trainer that was shut out
        state_of(9, old, loop=other),
        state_of(1, None, loop=fresh),
    ]
    await ensure_topics(kafka.bootstrap, our_topics([MODELS], partitions=1))
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        await producer.send_and_wait(MODELS.name, b"no state", key=loop.encode())
        for state in states:
            headers = Envelope(id=state.id, type=state.type_name, source="trainer").headers()
            await producer.send_and_wait(MODELS.name, state.encode(), key=state.loop.encode(), headers=headers)

    def asked(name: str) -> tuple[dict[str, Any], pa.Table]:
        return score(tmp_path / name, flights(10), loop=name, version=None, kafka=kafka.bootstrap)

    found, out = await asyncio.to_thread(asked, loop)
    assert found["version"] == "8"
    assert set(out["version"].to_pylist()) == {"8"}
    with pytest.raises(NoModel, match=f"{fresh} has no champion yet; name a version with --version"):
        await asyncio.to_thread(asked, fresh)
    assert not (tmp_path / fresh / "out.parquet").exists()


@pytest.mark.connected
def test_a_kafka_that_does_not_say_who_the_champion_is_is_named(mill: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_job, "PATIENCE", 0.5)
    kafka = f"127.0.0.1:{free_port()}"
    with pytest.raises(BadSetup, match=f"Kafka at {kafka} did not say .*; check MILLSTREAM_KAFKA, or name a version"):
        score(mill, flights(10), version=None, kafka=kafka)


def test_reading_holds_a_row_group_and_not_the_file(tmp_path: Path) -> None:
    """32 groups of half a MiB: Arrow's own default keeps all that was read until the end."""
    groups, rows = 32, 65_536
    chance = np.random.default_rng(7)
    schema = pa.schema([("distance", pa.float64())])
    with pq.ParquetWriter(tmp_path / "in.parquet", schema, compression="none", use_dictionary=False) as file:
        for _ in range(groups):
            file.write_table(pa.table({"distance": chance.random(rows)}, schema=schema))
    pool = pa.default_memory_pool()
    table = ParquetTable(tmp_path / "in.parquet")
    before, most = pool.bytes_allocated(), 0
    for _ in table.pieces(4_096):
        most = max(most, pool.bytes_allocated() - before)
    assert most < 4 * rows * 8, f"{most:,} bytes of a file of {groups * rows * 8:,}"
