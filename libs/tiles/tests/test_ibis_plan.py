"""The plan for other engines gives what the local engine gives, on DuckDB and (`make spark`) on PySpark in local mode."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import polars as pl
import pytest
import sqlglot
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream_tiles.definition import Aggregate, Function, View
from millstream_tiles.errors import BadView, TilesError
from millstream_tiles.history import Asked, history
from millstream_tiles.ibis_plan import windowed_features
from millstream_tiles.join import windowed_values
from millstream_tiles.join_events import numbers
from millstream_tiles.lake import Lake, LakeBatch
from millstream_tiles.lake_schema import events_table, table_schema
from millstream_tiles.sketches import BOUNDS

from .ibis_engines import a_view, duck, engine, parquet, spark, told

__all__ = ["duck", "engine", "spark"]

MINUTE = 60_000_000
HOUR = 60 * MINUTE
MARCH = 1_362_096_000_000_000  # 2013-03-01
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


def aggregate(
    function: Function, column: str = "dep_delay", window: int = HOUR, slide: int = 10 * MINUTE, k: int = 3
) -> Aggregate:
    k = k if function is Function.LAST_K else 0
    name = f"{function}{k or ''}_{column.replace('*', 'all')}_{window // MINUTE}_{slide // MINUTE}"
    return Aggregate(name=name, function=function, column=column, window=window, slide=slide, k=k)


DISTINCT = Function.COUNT_DISTINCT
OF_NUMBERS = [f for f in Function if f is not DISTINCT]
VIEWS = [
    a_view(
        "by_origin", ("origin",), *(aggregate(f) for f in OF_NUMBERS), aggregate(Function.COUNT, "*", 24 * HOUR, HOUR)
    ),
    a_view(
        "kept",
        ("origin",),
        *(aggregate(f, "dep_delay", 24 * HOUR, HOUR) for f in (Function.SUM, Function.LAST_K, Function.P90)),
        aggregate(Function.LAST_K, "dep_delay", 24 * HOUR, HOUR, k=20),
        where="not diverted and (dep_delay / gate > -20.5 or flight_id is null)",
    ),
    a_view(
        "different",
        ("origin",),
        *(aggregate(DISTINCT, column, 7 * 24 * HOUR, HOUR) for column in ("flight_id", "diverted")),
    ),
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
        if "last_k" in name:
            assert found[name].to_list() == [row[~np.isnan(row)].tolist() or None for row in values], name
            continue
        numbers = found[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        if any(f"{exact}_" in name for exact in ("count", "count_distinct", "p50", "p90", "p99")):
            np.testing.assert_array_equal(numbers, values, err_msg=name)
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


@pytest.mark.timeout(300)  # Spark plans a join for each column and window: a minute on two busy cores
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
    assert answers[2]["count_distinct_flight_id_10080_60"].max() > 100
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
        function = draw(st.sampled_from(list(Function)))
        columns = {Function.COUNT: ["dep_delay", "*"], DISTINCT: ["origin", "gate", "_id"]}.get(function, ["dep_delay"])
        one = aggregate(function, draw(st.sampled_from(columns)), slide * draw(st.integers(1, 12)), slide)
        made[one.name] = one
    return a_view(
        "any",
        draw(st.sampled_from([("origin",), ("origin", "gate"), ()])),
        *made.values(),
        lateness=draw(st.sampled_from([0, HOUR, 6 * HOUR])),
        event_id=draw(st.sampled_from([None, "flight_id"])),
        where=draw(st.sampled_from([None, "dep_delay > 0", "gate == 1 or dep_delay is null"])),
    )


@given(view=views(), events=events_of_a_day(), data=st.data())
@settings(max_examples=25, deadline=None)
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


# Estimates and filters at their edges -----------------------------------------------------------------------------------------


def test_a_percentile_is_the_local_one_at_the_bounds_of_its_buckets(engine: Any) -> None:
    """Each number beside a bound is asked for alone, so that a bucket next to the right one is seen."""
    edges = np.concatenate([BOUNDS[:-1], [0.0, 5e-324, 2.0**53], np.geomspace(1e-9, 2.0**53, 200)[:-1]])
    edges = np.concatenate([edges, np.nextafter(edges, 0), np.nextafter(edges[:-204], np.inf)])
    numbers = np.concatenate([edges, -edges])
    events = pl.DataFrame({"_event_time": 0, "_known_at": 0, "gate": range(len(numbers)), "dep_delay": numbers})
    asked = pl.DataFrame({"gate": range(len(numbers)), "number": range(len(numbers)), "at": 0})
    view = a_view("by_gate", ("gate",), aggregate(Function.P50), event_id=None)
    plan = windowed_features(
        [view], {view.stream: told(engine, "edges", events)}, told(engine, "each", asked), time="at"
    )
    found = pl.DataFrame(plan.to_pyarrow()).sort("number")
    assert_same(found, windowed_values(view, events, asked.select("gate"), asked["at"].to_numpy()), added=1.0)


def test_thousands_of_distinct_values_are_estimated_as_the_local_engine_does(engine: Any) -> None:
    """From a handful, where most registers are empty, to so many that none is."""
    rng = random.Random(7)
    sizes = [1, 2, 50, 3_000, 20_000, 60_000]
    rows = [(size, "é漢-" * rng.randrange(12) + str(i)) for size in sizes for i in range(size)]
    events = pl.DataFrame(rows, schema={"gate": pl.Int64, "tail": pl.String}, orient="row")
    events = events.with_columns(_event_time=pl.lit(0, pl.Int64), _known_at=pl.lit(0, pl.Int64))
    asked = pl.DataFrame({"gate": sizes, "number": range(len(sizes)), "at": 0})
    view = a_view("by_gate", ("gate",), aggregate(DISTINCT, "tail"), event_id=None)
    plan = windowed_features(
        [view], {view.stream: told(engine, "tails", events)}, told(engine, "sizes", asked), time="at"
    )
    found = pl.DataFrame(plan.to_pyarrow()).sort("number")
    expected = windowed_values(view, events, asked.select("gate"), asked["at"].to_numpy())
    assert_same(found, expected, added=1.0)
    assert found["count_distinct_tail_60_10"].to_list() == pytest.approx(sizes, rel=0.05)


# What is refused --------------------------------------------------------------------------------------------------------------

COLUMNS = {"_event_time": "int64", "_known_at": "int64", "_partition": "int32", "_offset": "int64", "_id": "string"}
COLUMNS |= {"origin": "string", "dep_delay": "float64", "diverted": "boolean", "stops": "array<string>"}


@pytest.mark.parametrize("view", [v for v in VIEWS if v.name != "different"], ids=lambda view: view.name)
def test_the_plan_compiles_to_trino_s_sql(view: View) -> None:
    """What a server says to it: test_ibis_trino.py."""
    fields = COLUMNS | {"gate": "int64", "flight_id": "string"}
    events = {view.stream: ibis.table(fields, name="departed")}
    questions = ibis.table({key: fields[key] for key in view.keys} | {"event_timestamp": "int64"}, name="questions")
    sql = str(ibis.to_sql(windowed_features([view], events, questions), dialect="trino"))
    [statement] = sqlglot.parse(sql, read="trino")
    assert isinstance(statement, sqlglot.exp.Select)
    assert set(statement.named_selects) == {*questions.columns, *(a.name for a in view.aggregates)}
    assert {table.name for table in statement.find_all(sqlglot.exp.Table)} >= {"departed", "questions"}
    at = ibis.table(dict(questions.schema().items()) | {"event_timestamp": "timestamp(6)"}, name="questions")
    with pytest.raises(TilesError, match=r"'event_timestamp' is timestamp.*give int64 microseconds since the epoch"):
        windowed_features([view], events, at)


def test_what_the_plan_does_not_compute_is_refused_by_name() -> None:
    events = {"flights-departed": ibis.table(COLUMNS, name="events")}
    questions = ibis.table({"origin": "string", "event_timestamp": "int64"}, name="questions")
    one = a_view("by_origin", ("origin",), aggregate(Function.SUM))
    for what, refused in {
        aggregate(DISTINCT, "origin"): "count_distinct, whose hash DuckDB and PySpark have,",
        aggregate(DISTINCT, "dep_delay"): "count_distinct of 'dep_delay', which is float64,",
        aggregate(Function.P50, "*"): "p50 of no column",
    }.items():
        with pytest.raises(BadView, match=rf"by_origin: .*: {refused} is not in the plan .* local engine"):
            windowed_features([a_view("by_origin", ("origin",), what)], events, questions)
    elsewhere = a_view("by_origin", ("origin",), aggregate(Function.SUM), where="dep_time > 0")
    with pytest.raises(TilesError, match="events of stream flights-departed have no column 'dep_time'"):
        windowed_features([elsewhere], events, questions)
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
