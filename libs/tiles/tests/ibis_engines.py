"""The engines that the plan is tried on: DuckDB, and PySpark where `make spark` has installed it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ibis
import polars as pl
import pytest

from millstream.testing.errors import ToolMissing
from millstream.testing.java import find_java
from millstream_tiles.definition import Aggregate, View

HOUR = 3_600_000_000


def a_view(name: str, keys: tuple[str, ...], *aggregates: Aggregate, **more: Any) -> View:
    settings: dict[str, Any] = {"lateness": 2 * HOUR, "event_id": "flight_id", "time_field": "departed_at", **more}
    return View(name=name, stream="flights-departed", keys=keys, aggregates=aggregates, **settings)


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
    context = type(session.sparkContext)
    gateway = context._gateway
    yield ibis.pyspark.connect(session)
    session.stop()
    context._gateway = context._jvm = None  # another module would go on with the JVM that ends here
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


def told(engine: Any, name: str, rows: pl.DataFrame) -> Any:
    """`rows` as a table of the engine."""
    if engine.name == "duckdb":
        engine.con.register(name, rows.to_arrow())
    else:
        engine._session.createDataFrame(rows.to_arrow()).createOrReplaceTempView(name)
    return engine.table(name)
