"""The plan on a real Trino gives what the local engine gives (`make trino` starts one and runs this)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import ibis
import polars as pl
import pytest

from millstream_tiles.definition import Aggregate, Function
from millstream_tiles.errors import BadView
from millstream_tiles.ibis_plan import windowed_features
from millstream_tiles.join import windowed_values

from .ibis_engines import HOUR, a_view
from .test_ibis_plan import MARCH, MINUTE, aggregate, assert_same
from .trino_server import a_trino

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(400),
]  # it starts in half a minute on quiet cores


@pytest.fixture(scope="module")
def trino(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    pytest.importorskip("trino", reason="no client of Trino; `make trino` installs it, fetches a server and runs this")
    with a_trino(tmp_path_factory.mktemp("trino")) as port:
        yield ibis.trino.connect(user="millstream", host="127.0.0.1", port=port, database="memory", schema="default")


def told(trino: Any, name: str, rows: pl.DataFrame) -> Any:
    trino.raw_sql(f'DROP TABLE IF EXISTS "{name}"').fetchall()  # Ibis 12's own drop_table forgets the name
    return trino.create_table(name, rows.to_arrow())


@pytest.fixture(scope="module")
def departed() -> pl.DataFrame:
    """Ten hours of two airports: three partitions, some events twice, some late, some without a delay."""
    rng = random.Random(1)
    at = [MARCH + rng.randrange(600) * MINUTE for _ in range(60)]
    return pl.DataFrame(
        {
            "_event_time": at,
            "_known_at": [t + rng.choice([0, 5, 3 * HOUR]) for t in at],
            "_partition": [i % 3 for i in range(60)],
            "_offset": range(60),
            "_id": [f"f{i % 50}" for i in range(60)],
            "origin": [rng.choice(["EWR", "JFK"]) for _ in at],
            "dep_delay": [rng.choice([None, rng.gauss(0, 30), rng.gauss(0, 1e-3), rng.gauss(0, 1e9)]) for _ in at],
        }
    )


OF_NUMBERS = [f for f in Function if f is not Function.COUNT_DISTINCT]
KINDS: dict[str, list[Aggregate]] = {
    "group_by": [aggregate(f, window=2 * HOUR) for f in OF_NUMBERS if not f.quantile and f is not Function.LAST_K],
    "last_k": [aggregate(Function.LAST_K, window=2 * HOUR)],
    "percentiles": [aggregate(f, window=6 * HOUR) for f in OF_NUMBERS if f.quantile],
}


@pytest.mark.parametrize("kind", KINDS)
def test_trino_says_what_the_local_engine_says(trino: Any, departed: pl.DataFrame, kind: str) -> None:
    asked = pl.DataFrame(
        {"number": range(20), "origin": ["EWR", "JFK"] * 10, "at": [MARCH + i * HOUR // 2 for i in range(20)]}
    )
    view = a_view("by_origin", ("origin",), *KINDS[kind], where="dep_delay is null or dep_delay > -20.5")
    events, questions = told(trino, "departed", departed), told(trino, "asked", asked)
    plan = windowed_features([view], {view.stream: events}, questions, time="at")
    found = pl.DataFrame(plan.to_pyarrow()).sort("number")
    expected = windowed_values(view, departed, asked.select("origin"), asked["at"].to_numpy())
    assert_same(found, expected, added=1e10)
    assert all(found[a.name].drop_nulls().len() > 5 for a in KINDS[kind])


def test_what_trino_cannot_count_alike_is_refused(trino: Any, departed: pl.DataFrame) -> None:
    view = a_view("different", ("origin",), aggregate(Function.COUNT_DISTINCT, "_id"))
    table = told(trino, "departed", departed)
    with pytest.raises(BadView, match="count_distinct, whose hash DuckDB and PySpark have"):
        windowed_features([view], {view.stream: table}, table, time="_event_time")
