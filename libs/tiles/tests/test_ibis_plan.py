"""The plan for other engines gives what the local engine gives, on DuckDB and (`make spark`) on PySpark in local mode."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.testing.errors import ToolMissing
from millstream.testing.java import find_java
from millstream_tiles.definition import Aggregate, Function, View
from millstream_tiles.errors import BadView, TilesError
from millstream_tiles.history import Asked, history
from millstream_tiles.ibis_plan import windowed_features
from millstream_tiles.join import windowed_values
from millstream_tiles.join_events import numbers
from millstream_tiles.lake import Lake, LakeBatch
from millstream_tiles.lake_schema import events_table, table_schema

MINUTE = 60_000_000
HOUR = 60 * MINUTE
MARCH = 1_362_096_000_000_000  # 2013-03-01
EXACT = [Function.COUNT, Function.SUM, Function.MEAN, Function.MIN, Function.MAX]
EXACT += [Function.VAR, Function.STD, Function.FIRST, Function.LAST]
"""What the plan computes; the rest is refused."""
SCHEMA = table_schema(
    {
        "properties": {
            "flight_id": {"type": "string"},
            "origin": {"type": "string"},
            "gate": {"type": "integer"},
            "dep_delay": {"type": "number"},
            "diverted": {"type": "boolean"},
        }
    }
)


def a_view(name: str, keys: tuple[str, ...], *aggregates: Aggregate, **more: Any) -> View:
    settings: dict[str, Any] = {"lateness": 2 * HOUR, "event_id": "flight_id", "time_field": "departed_at", **more}
    return View(name=name, stream="flights-departed", keys=keys, aggregates=aggregates, **settings)


def aggregate(function: Function, column: str = "dep_delay", window: int = HOUR, slide: int = 10 * MINUTE) -> Aggregate:
    name = f"{function}_{column.replace('*', 'all')}_{window // MINUTE}_{slide // MINUTE}"
    return Aggregate(name=name, function=function, column=column, window=window, slide=slide)


VIEWS = [
    a_view("by_origin", ("origin",), *(aggregate(f) for f in EXACT), aggregate(Function.COUNT, "*", 24 * HOUR, HOUR)),
    a_view(
        "by_gate",
        ("origin", "gate"),
        aggregate(Function.MEAN, "diverted", 6 * HOUR),
        aggregate(Function.COUNT, "origin"),
    ),
    a_view("at_gate", ("gate",), aggregate(Function.SUM, "gate", HOUR, HOUR), event_id=None, lateness=0),
]


def assert_same(found: pl.DataFrame, expected: dict[str, Any], *, added: float) -> None:
    """`found` has one row for each question, in the order of its column `number`, whose values are `expected`.

    `added` is the sum of all magnitudes: where values cancel, no sum of doubles has more digits than that leaves.
    """
    assert found["number"].to_list() == list(range(len(found)))
    for name, values in expected.items():
        assert len(values) == len(found)
        numbers = found[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        if "count" in name:
            assert numbers.tolist() == values.tolist()
        scale = added**2 if "var" in name else added
        np.testing.assert_allclose(numbers, values, rtol=1e-9, atol=1e-14 * scale, err_msg=name)


# On the lake's own files ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A week of departures: three partitions, two commits, out of order, one in ten a copy, some late, some without an id."""
    rng = random.Random(3)
    batches: dict[int, list[dict[str, Any]]] = {0: [], 1: [], 2: []}
    seen: list[dict[str, Any]] = []
    for i in range(1500):
        if seen and rng.random() < 0.1:
            event = dict(rng.choice(seen[-50:]))
            event["known"] += rng.choice([0, 5 * MINUTE])
        else:
            at = MARCH + rng.randrange(7 * 24 * 60) * MINUTE
            event = {
                "at": at,
                "known": at + rng.choice([0, 0, 3 * MINUTE, 90 * MINUTE, 130 * MINUTE]),
                "flight_id": rng.choice([f"f{i}", f"f{i}", None]),
                "origin": rng.choice(["EWR", "JFK", None]),
                "gate": rng.choice([1, 2, 2**53 + 1]),
                "dep_delay": rng.choice([None, rng.gauss(10, 40), 2.0**54]),
                "diverted": rng.choice([None, True, False]),
            }
        seen.append(event)
        batches[i % 3].append(event)
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    for half in (slice(0, 250), slice(250, None)):
        parts = []
        for partition, events in batches.items():
            mine, first = events[half], half.start
            table = events_table(
                SCHEMA,
                partition=partition,
                offsets=range(first, first + len(mine)),
                event_times=[e["at"] for e in mine],
                known_at=[e["known"] for e in mine],
                ids=[e["flight_id"] for e in mine],
                events=mine,
            )
            parts.append(LakeBatch(partition=partition, end=first + len(mine) - 1, rows=table))
        lake.append("flights-departed", parts, group="lake")
    return lake


@pytest.fixture(scope="module")
def duck() -> Any:
    return ibis.duckdb.connect()


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    """One Spark in this process for all of its tests: it takes ten seconds to start."""
    sql = pytest.importorskip(
        "pyspark.sql", reason="PySpark is a wheel of 450 MB; `make spark` installs it and runs this"
    )
    try:
        java = find_java()
    except ToolMissing as missing:
        pytest.skip(str(missing))
    if not 17 <= int(java.version.split(".")[0]) <= 21:
        pytest.skip(f"Spark 4.0 runs on Java 17 or 21, and {java.path} is {java.version}; set JAVA_HOME")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_HOME", str(java.path.resolve().parents[1]))
        session = (
            sql.SparkSession.builder.master("local[2]")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.driver.memory", "1g")
            .config("spark.sql.session.timeZone", "UTC")
            .config("spark.sql.shuffle.partitions", "2")
            .config("spark.ui.enabled", "false")
            .config("spark.ui.showConsoleProgress", "false")
            .getOrCreate()
        )
    gateway = session.sparkContext._gateway
    yield ibis.pyspark.connect(session)
    session.stop()
    gateway.shutdown()
    gateway.proc.stdin.close()  # its JVM ends with its input
    gateway.proc.wait(30)


@pytest.fixture(params=["duck", pytest.param("spark", marks=pytest.mark.filterwarnings("ignore"))])
def engine(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def parquet(engine: Any, *files: str) -> Any:
    """A table of these files; Ibis itself takes one path on Spark."""
    if engine.name == "duckdb":
        return engine.read_parquet(files)
    name = f"files_{len(files)}"
    engine._session.read.option("mergeSchema", "true").parquet(*files).createOrReplaceTempView(name)
    return engine.table(name)


def test_an_engine_on_the_lakes_files_says_what_the_local_one_says(engine: Any, lake: Lake, tmp_path: Path) -> None:
    rng = random.Random(5)
    table = lake.table("flights-departed")
    assert table is not None
    events = parquet(engine, *table.file_uris())
    t = pl.Series([MARCH + rng.randrange(8 * 24 * HOUR) for _ in range(100)])
    once = pl.DataFrame(
        {
            "number": range(100),
            "origin": [rng.choice(["EWR", "JFK", "LGA", None]) for _ in t],
            "gate": [rng.choice([1.0, 2.0, None]) for _ in t],
            "event_timestamp": t.cast(pl.Datetime("us", "UTC")),
        }
    )
    questions = pl.concat([once, once.head(20).with_columns(pl.col("number") + 100)])
    questions.write_parquet(tmp_path / "questions.parquet")
    asked = parquet(engine, str(tmp_path / "questions.parquet"))
    found = windowed_features(VIEWS, {"flights-departed": events}, asked, full_feature_names=True)
    rows = pl.DataFrame(found.to_pyarrow()).sort("number")
    times = questions["event_timestamp"].dt.epoch("us").to_numpy()
    answers = history(lake, [Asked(view=v, keys=questions.select(v.keys)) for v in VIEWS], times)
    assert len(rows) == 120
    assert answers[0]["count_all_1440_60"].sum() > 1000
    for view, values in zip(VIEWS, answers, strict=True):
        assert_same(rows, {f"{view.name}__{name}": found for name, found in values.items()}, added=1e3)


# Any events, on DuckDB --------------------------------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.none(), st.integers(-5, 5).map(float), st.floats(-1e6, 1e6), st.sampled_from([2.0**53, 2.0**54, np.nan])
)
TIMES = st.tuples(st.integers(-60, 12 * 60), st.integers(-1, 1)).map(lambda at: at[0] * MINUTE + at[1])


@st.composite
def events_of_a_day(draw: st.DrawFn) -> pl.DataFrame:
    rows = []
    for offset in range(draw(st.integers(0, 25))):
        at = draw(TIMES)
        known = at + draw(st.one_of(st.just(0), st.integers(-5, 300).map(lambda m: m * MINUTE)))
        text = (draw(st.sampled_from([None, "f1", "f2"])), draw(st.sampled_from(["EWR", "JFK", None])))
        rows.append((at, known, draw(st.integers(0, 2)), offset, *text, draw(st.sampled_from([1, 2])), draw(NUMBERS)))
    schema: dict[str, Any] = {
        "_event_time": pl.Int64,
        "_known_at": pl.Int64,
        "_partition": pl.Int32,
        "_offset": pl.Int64,
    }
    schema |= {"_id": pl.String, "origin": pl.String, "gate": pl.Int64, "dep_delay": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


@st.composite
def views(draw: st.DrawFn) -> View:
    made = {}
    for _ in range(draw(st.integers(1, 5))):
        slide = draw(st.sampled_from([MINUTE, 10 * MINUTE, HOUR]))
        function = draw(st.sampled_from(EXACT))
        column = draw(st.sampled_from(["dep_delay", "*"])) if function is Function.COUNT else "dep_delay"
        one = aggregate(function, column, slide * draw(st.integers(1, 12)), slide)
        made[one.name] = one
    return a_view(
        "any",
        draw(st.sampled_from([("origin",), ("origin", "gate"), ()])),
        *made.values(),
        lateness=draw(st.sampled_from([0, HOUR, 6 * HOUR])),
        event_id=draw(st.sampled_from([None, "flight_id"])),
    )


@given(view=views(), events=events_of_a_day(), data=st.data())
@settings(max_examples=15, deadline=None)
def test_any_events_give_what_the_local_join_gives(
    duck: Any, view: View, events: pl.DataFrame, data: st.DataObject
) -> None:
    moments = [0, *events["_event_time"], *events["_known_at"], *(events["_known_at"] - 1)]
    row = st.tuples(
        st.sampled_from(["EWR", "JFK", "XXX", None]),
        st.sampled_from(["1", "2", None]),
        st.sampled_from(moments) | TIMES,
    )
    asked = data.draw(st.lists(row, max_size=10))
    questions = pl.DataFrame(asked, schema={"origin": pl.String, "gate": pl.String, "at": pl.Int64}, orient="row")
    questions = questions.with_columns(number=pl.int_range(pl.len()))
    tables = {"events": events.to_arrow(), "questions": questions.to_arrow()}
    for name, rows in tables.items():
        duck.con.register(name, rows)
    plan = windowed_features([view], {view.stream: duck.table("events")}, duck.table("questions"), time="at")
    found = pl.DataFrame(plan.to_pyarrow()).sort("number")
    expected = windowed_values(view, events, questions.select(view.keys), questions["at"].to_numpy())
    assert len(found) == len(questions)
    assert_same(found, expected, added=float(np.nansum(np.abs(numbers(events, "dep_delay")))))


def test_what_the_plan_does_not_compute_is_refused_by_name() -> None:
    columns = {"_event_time": "int64", "_known_at": "int64", "_partition": "int32", "_offset": "int64", "_id": "string"}
    events = {"flights-departed": ibis.table({**columns, "origin": "string", "dep_delay": "float64"}, name="events")}
    questions = ibis.table({"origin": "string", "event_timestamp": "int64"}, name="questions")
    one = a_view("by_origin", ("origin",), aggregate(Function.SUM))
    assert "BIGINT" in ibis.to_sql(windowed_features([one], events, questions), dialect="trino")
    for function in set(Function) - set(EXACT):
        k = 3 if function is Function.LAST_K else 0
        other = Aggregate(name="other", function=function, column="dep_delay", window=HOUR, slide=HOUR, k=k)
        with pytest.raises(BadView, match=r"by_origin: other: .* is not in the plan .* local engine"):
            windowed_features([a_view("by_origin", ("origin",), other)], events, questions)
    filtered = a_view("by_origin", ("origin",), aggregate(Function.SUM), where="dep_delay > 0")
    with pytest.raises(BadView, match=r"by_origin: where is not in the plan"):
        windowed_features([filtered], events, questions)
    with pytest.raises(TilesError, match="no events of stream 'flights-departed'; there are"):
        windowed_features([one], {"orders": questions}, questions)
    with pytest.raises(TilesError, match="the questions have no column 'origin'"):
        windowed_features([one], events, questions.drop("origin"))
    with pytest.raises(TilesError, match="flights-departed have no column 'dep_delay'"):
        windowed_features([one], {"flights-departed": events["flights-departed"].drop("dep_delay")}, questions)
    with pytest.raises(TilesError, match="two columns 'sum_dep_delay_60_10'; ask with full_feature_names"):
        windowed_features([one, one], events, questions)
    with pytest.raises(TilesError, match="'event_timestamp' is timestamp; give int64 microseconds"):
        windowed_features([one], events, questions.mutate(event_timestamp=ibis.timestamp("2013-03-01")))
