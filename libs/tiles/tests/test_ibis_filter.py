"""A filter in another engine lets through what the local engine lets through."""

from __future__ import annotations

import math
import random
from typing import Any

import ibis
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream_tiles.errors import BadView
from millstream_tiles.filters import filter_of, filtered
from millstream_tiles.ibis_filter import let_through

from .ibis_engines import a_view, duck, engine, spark, told

__all__ = ["duck", "engine", "spark"]

COLUMNS = {"_event_time": "int64", "_known_at": "int64", "_partition": "int32", "_offset": "int64", "_id": "string"}
COLUMNS |= {"origin": "string", "dep_delay": "float64", "diverted": "boolean", "stops": "array<string>"}


def measured() -> pl.DataFrame:
    """Rows of every kind of value, each with every other sooner or later."""
    rng = random.Random(11)
    numbers = [None, math.nan, math.inf, -math.inf, 0.0, -0.0, 0.1, 0.2, 0.1 + 0.2, 1.0, 2.0, -3.5, 1e308, 1e-308]
    texts = [None, "", "a", "Z", "é", "漢", "it's", "back\\slash", "a\nb", "😀", "\uffff"]
    columns = {
        **{name: pl.Series([rng.choice(numbers) for _ in range(300)], dtype=pl.Float64) for name in ("x", "y")},
        **{
            name: pl.Series([rng.choice([None, *range(-4, 5)]) for _ in range(300)], dtype=pl.Int64)
            for name in ("i", "j")
        },
        **{name: pl.Series([rng.choice(texts) for _ in range(300)], dtype=pl.String) for name in ("s", "t")},
        **{
            name: pl.Series([rng.choice([None, True, False]) for _ in range(300)], dtype=pl.Boolean)
            for name in ("b", "c")
        },
        "big": pl.Series(
            [rng.choice([2**53, 2**53 + 1, 2**63 - 1, -(2**63), None]) for _ in range(300)], dtype=pl.Int64
        ),
    }
    return pl.DataFrame(columns).with_row_index("number").cast({"number": pl.Int64})


MEASURED = measured()
FILTERS = [
    "b",
    "not (b and c)",
    "b or x > 1",
    "b != c",
    "x == y",
    "not x == y",
    "not (x < y)",
    "x != y and not (x is null)",
    "x is null",
    "x * 10 > y",
    "x - y == 0 or not (x - y > 0)",
    "x / y > 0",
    "not (i / j >= 1)",
    "0.1 + 0.2 == x",
    "-x < i <= y",
    "s < t",
    "s == 'it\\'s' or s == 'back\\\\slash' or s == 'a\\nb'",
    "s >= 'é'",
    "big == 9007199254740993",
    "big < 9223372036854775807",
    "big > 99999999999999999999 or big is null",
]
"""Whatever null, NaN, zero, -0.0, infinity, text beyond ASCII and large integers could make another number."""


@st.composite
def filters(draw: st.DrawFn, depth: int = 3) -> str:
    """Any filter of `MEASURED` that compiles; integers stay small, for Python computes with them beyond 2**53."""

    def number(depth: int) -> str:
        match draw(st.integers(0, 3 if depth else 1)):
            case 0:
                return draw(st.sampled_from(["x", "y", "i", "j"]))
            case 1:
                return draw(st.sampled_from(["0", "1", "2", "-3", "0.1", "0.5", "-0.0", "1e308"]))
            case 2:
                return f"-{number(depth - 1)}"
        return f"({number(depth - 1)} {draw(st.sampled_from('+-*/'))} {number(depth - 1)})"

    def truth(depth: int) -> str:
        order = draw(st.sampled_from(["==", "!=", "<", "<=", ">", ">="]))
        match draw(st.integers(0, 8 if depth else 4)):
            case 0:
                return draw(
                    st.sampled_from(["b", "c", "b == c", "b <= c", "b != true", "big < 9007199254740993", "big != i"])
                )
            case 1:
                return (
                    f"{draw(st.sampled_from('st'))} {order} {draw(st.sampled_from(['s', 't', repr('a'), repr('é')]))}"
                )
            case 2:
                return f"{number(depth)} {order} {number(depth)}"
            case 3:
                return f"{number(depth)} {order} {number(depth)} {draw(st.sampled_from(['<', '!=']))} {number(depth)}"
            case 4:
                null = draw(st.sampled_from(["is null", "is not null"]))
                return f"{draw(st.sampled_from(['s', 'b', number(depth)]))} {null}"
            case 5:
                return f"not ({truth(depth - 1)})"
            case 6:
                return f"({truth(depth - 1)}) is null"
        return f"({truth(depth - 1)}) {draw(st.sampled_from(['and', 'or']))} ({truth(depth - 1)})"

    return f"({truth(depth)}) and (b or not b or b is null)"


@pytest.mark.parametrize("where", FILTERS)
def test_a_filter_lets_through_what_it_lets_through_event_by_event(engine: Any, where: str) -> None:
    rows = told(engine, "measured", MEASURED)
    found = let_through(a_view("any", (), where=where), rows).number.to_pyarrow().to_pylist()
    fields = MEASURED.select(filter_of(where).fields)
    expected = np.flatnonzero(filtered(where, fields.iter_rows(), len(fields))).tolist()
    assert sorted(found) == expected
    assert 0 < len(expected) < len(MEASURED)


@given(where=filters())
@settings(max_examples=150, deadline=None)
def test_any_filter_lets_through_what_it_lets_through_event_by_event(duck: Any, where: str) -> None:
    rows = told(duck, "measured", MEASURED)
    found = let_through(a_view("any", (), where=where), rows).number.to_pyarrow().to_pylist()
    fields = MEASURED.select(filter_of(where).fields)
    assert sorted(found) == np.flatnonzero(filtered(where, fields.iter_rows(), len(fields))).tolist()


@pytest.mark.parametrize(
    ("where", "refused"),
    [
        ("origin > 5", "where: 'origin', which is string where the filter needs a number, is not in the plan"),
        ("diverted + 1 > 1", "where: 'diverted', which is boolean where the filter needs a number,"),
        ("not dep_delay", "where: 'dep_delay', which is float64 where the filter needs a truth,"),
        ("dep_delay", "where: 'dep_delay', which is float64 where the filter needs a truth,"),
        ("dep_delay * 2", "where: 'dep_delay [*] 2', which is not true or false,"),
        ("origin == dep_delay", "where: comparing origin with dep_delay, which are text and fraction,"),
        ("stops == stops", "where: comparing stops with stops, which are other and other,"),
        (f"dep_delay < 1{'0' * 400}", "where: a number that no double holds is not in the plan"),
        (r"origin == '\0'", "where: the text '.x00' is not in the plan"),
        (r"origin == '\ud800'", "where: the text '.ud800' is not in the plan"),
    ],
)
def test_a_filter_that_cannot_mean_the_same_is_refused(where: str, refused: str) -> None:
    events = ibis.table(COLUMNS, name="events")
    with pytest.raises(BadView, match=f"by_origin: {refused}.* local engine"):
        let_through(a_view("by_origin", ("origin",), where=where), events)


def test_a_column_of_lists_is_null_or_not() -> None:
    events = ibis.table(COLUMNS, name="events")
    assert let_through(a_view("by_origin", (), where="stops is not null"), events).columns == events.columns
