"""Columns of another engine, read as definition.py says: numbers, keys as text, times in microseconds."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa

from millstream_tiles.definition import LARGEST, View
from millstream_tiles.errors import BadView, TilesError

try:
    import ibis
    import ibis.expr.datatypes as dt
    import ibis.expr.types as ir
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{error}; the plan for other engines needs `pip install 'millstream-tiles[spark]'`"
    ) from error

MINE = "_ms_"
"""Our own columns begin so; a stream's columns and a user's questions do not."""

_MICROS = {"duckdb": "epoch_us", "pyspark": "unix_micros"}
"""What turns a timestamp into microseconds without rounding, by Ibis backend; Ibis has no word of its own for it."""


def number(column: Any) -> Any:
    """`column` as float64; NULL where definition.py sees no number."""
    kind = column.type()
    if kind.is_boolean():
        return column.cast("float64")  # a literal 1.0 would be a decimal to Spark, and a mean of five digits
    if not kind.is_numeric():
        return ibis.null("float64")
    # Integers are compared as integers: as a double, 2**53 + 1 would pass. To SQL, NaN is greater than every number.
    largest = int(LARGEST) if kind.is_integer() else LARGEST
    return ibis.cases((column.between(-largest, largest), column.cast("float64")))


def double(value: float) -> Any:
    """A literal that is a double: written as digits it is a decimal to DuckDB and Spark, and 0.1 + 0.2 is 0.3."""
    return ibis.literal(repr(float(value))).cast("float64")


def present(column: Any) -> Any:
    """Whether there is a value, of whatever type; NaN is none."""
    return column.notnull() & ~column.isnan().fill_null(False) if column.type().is_floating() else column.notnull()


def text(column: Any) -> Any:
    """A key as text, as keys.py has it; NULL where it names no entity."""
    kind = column.type()
    if kind.is_boolean():
        return ibis.cases((column, "true"), (~column, "false"))
    if kind.is_integer() or kind.is_string():
        return column.cast("string")
    if kind.is_floating():
        whole = column.between(-(2.0**63), 2.0**63) & (column.floor() == column)
        return ibis.cases((whole, column.try_cast("int64").cast("string")), (~column.isnan(), column.cast("string")))
    return ibis.null("string")


def micros(table: Any, name: str) -> Any:
    """The column of times `name` as int64 microseconds. Raises TilesError where the engine has no exact way to it."""
    need(table, name, "questions or events")
    column = table[name]
    if column.type().is_integer():
        return column.cast("int64")
    function = _MICROS.get(engine_of(table))
    if function is None or not column.type().is_timestamp():
        raise TilesError(
            f"column {name!r} is {column.type()}; give int64 microseconds since the epoch, or on DuckDB and PySpark a timestamp"
        )
    return builtin(function, column.type(), dt.int64)(column)


def builtin(name: str, of: Any, gives: Any) -> Any:
    """A function of one column that the engine itself has and Ibis has no word for."""

    def its_own(column: Any) -> Any:
        """Stands for the engine's function: Ibis wants a Python one to take the shape from."""

    return ibis.udf.scalar.builtin(its_own, name=name, signature=((of,), gives))


def engine_of(table: Any) -> str:
    """The Ibis backend of `table` (`duckdb`, `pyspark`); empty where it is bound to none."""
    backends, _ = table._find_backends()
    return str(backends[0].name) if backends else ""


def beside(rows: ir.Table, table: pa.Table) -> ir.Table:
    """`table`, of int64 and float64 without NULL, on the engine of `rows`.

    Into Trino Ibis inserts its own tables row by row, minutes for the 2,900 of percentiles; there the rows stand in the query.
    """
    if engine_of(rows) != "trino":
        return ibis.memtable(table)
    [backend] = rows._find_backends()[0]
    lines = ", ".join(f"({', '.join(map(_written, row.values()))})" for row in table.to_pylist())
    names = ", ".join(f'"{name}"' for name in table.column_names)
    return backend.sql(f"SELECT * FROM (VALUES {lines}) AS t({names})", schema=ibis.Schema.from_pyarrow(table.schema))


def _written(value: int | float) -> str:
    """As Trino's SQL writes it: digits without an exponent are a decimal to it."""
    if isinstance(value, int):
        return str(value)
    return f"{value:.16e}" if math.isfinite(value) else ("" if value > 0 else "-") + "infinity()"


def floor_to(value: Any, step: int) -> Any:
    """The start of the step that `value` is in. By remainders: some engines divide integers as doubles, some truncate."""
    return value - ((value % step) + step) % step


def need(table: ir.Table, column: str, whose: str) -> None:
    if column not in table.columns:
        raise TilesError(f"{whose} have no column {column!r}; there are {', '.join(table.columns)}")


def beyond_us(view: View, what: str) -> BadView:
    """The refusal of what this plan does not compute, or not equally; `what` is named first."""
    remedy = "the local engine (get_historical_features) computes it"
    return BadView(view.name, f"{what} is not in the plan for Spark and SQL engines; {remedy}")
