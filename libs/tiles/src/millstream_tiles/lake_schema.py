"""Columns of a stream's table in the lake, made from the stream's JSON Schema, and events turned into such columns."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
import pyarrow as pa

from millstream_tiles.definition import LARGEST
from millstream_tiles.keys import key_text

MICROS = pa.timestamp("us", "UTC")

OWN_FIELDS = (
    pa.field("_event_time", MICROS),
    pa.field("_known_at", MICROS),
    pa.field("_partition", pa.int32()),
    pa.field("_offset", pa.int64()),
    pa.field("_id", pa.string()),
    pa.field("_date", pa.date32()),
)
"""What we add to an event. They come first: Delta keeps minimum and maximum of the first 32 columns to skip files by."""

_SIMPLE = {"integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_(), "string": pa.string()}
_CALLED = {pa.int64(): "an integer", pa.float64(): "a number", pa.bool_(): "a boolean", pa.string(): "text"}
_JSON_NAMES = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null", list: "array"}
_json = msgspec.json.Encoder()


def table_schema(event_schema: Mapping[str, Any]) -> pa.Schema:
    """Arrow schema of a stream's table: our own fields, then the event's properties in their order.

    integer is int64, number float64, boolean bool, everything else text: strings (date-times too) as they are, objects,
    arrays and mixtures as JSON. A property named like one of our own fields is refused with ValueError.
    """
    properties = event_schema.get("properties", {})
    own = {field.name for field in OWN_FIELDS}
    for name in properties:
        if name in own:
            raise ValueError(f"property {name!r}: the lake uses this name itself; rename it in the stream's schema")
    return pa.schema(
        [*OWN_FIELDS, *(pa.field(n, _type(_types(event_schema, s, set()))) for n, s in properties.items())]
    )


def events_table(
    schema: pa.Schema,
    *,
    partition: int,
    offsets: Sequence[int],
    event_times: Sequence[int],
    known_at: Sequence[int],
    ids: Iterable[object],
    events: Sequence[Mapping[str, Any]],
) -> pa.Table:
    """One row for each event (raw JSON values), times in microseconds. `schema` is from `table_schema`.

    A value that does not have its column's type is kept as null, an integer beyond 64 bits as the largest (smallest) there
    is; ids are kept as text.
    """
    times = pa.array(event_times, pa.int64()).cast(MICROS)
    columns = {
        "_event_time": times,
        "_known_at": pa.array(known_at, pa.int64()).cast(MICROS),
        "_partition": pa.array([partition] * len(events), pa.int32()),
        "_offset": pa.array(offsets, pa.int64()),
        "_id": pa.array([key_text(i) for i in ids], pa.string()),
        "_date": times.cast(pa.date32()),
    }
    for field in schema:
        if field.name not in columns:
            columns[field.name] = _column([event.get(field.name) for event in events], field.type)
    return pa.Table.from_arrays([columns[field.name] for field in schema], schema=schema)


@dataclass(frozen=True, kw_only=True)
class Clash:
    """A field whose type in the stream's schema does not fit its column in the lake."""

    field: str
    problem: str

    REMEDY: ClassVar[str] = "give the field a new name, or the events a new stream"


def clashes(schema: pa.Schema, known: pa.Schema) -> list[Clash]:
    """What keeps rows with the columns of `schema` out of a table with those of `known`.

    A new column fits, so does one that is gone, and an integer where the lake has numbers.
    """
    found = []
    for field in schema:
        there = known.field(field.name).type if field.name in known.names else field.type
        if there != field.type and (field.type, there) != (pa.int64(), pa.float64()):
            problem = f"{field.name!r} is {_called(there)} in the lake and {_called(field.type)} in the stream's schema"
            found.append(Clash(field=field.name, problem=problem))
    return found


def fitted(rows: pa.Table, known: pa.Schema) -> pa.Table:
    """`rows`, which have no clash with `known`, with its columns first and in its order: null where they have none."""
    columns = []
    for field in known:
        if field.name in rows.schema.names:
            columns.append(_widened(rows[field.name], field.type))
        else:
            columns.append(pa.chunked_array([pa.nulls(len(rows), field.type)]))
    new = [field for field in rows.schema if field.name not in known.names]
    fields = [*known, *new]
    return pa.Table.from_arrays([*columns, *(rows[field.name] for field in new)], schema=pa.schema(fields))


def _widened(column: pa.ChunkedArray, dtype: pa.DataType) -> pa.ChunkedArray:
    """`column` with the type of the table's: a cast, but for integers that no double holds."""
    if column.type == pa.int64() and dtype == pa.float64():
        return pa.chunked_array([[None if v is None else _double(v) for v in column.to_pylist()]], dtype)
    return column.cast(dtype)


def _called(dtype: pa.DataType) -> str:
    return _CALLED.get(dtype, str(dtype))


def _column(values: list[Any], dtype: pa.DataType) -> pa.Array:
    kinds: set[type] = {*map(type, values)} - {type(None)}
    if kinds <= _PURE[dtype]:
        try:
            return pa.array(values, dtype)
        except (pa.ArrowInvalid, OverflowError):
            # An integer that int64, or a double without rounding, cannot hold: value by value below.
            return pa.array([_value(v, dtype) for v in values], dtype)
    return pa.array([_value(v, dtype) for v in values], dtype)


_PURE: dict[pa.DataType, set[type]] = {
    pa.int64(): {int},
    pa.float64(): {int, float},
    pa.bool_(): {bool},
    pa.string(): {str},
}
"""Python types that Arrow turns into the column's type as we mean it, all at once."""


def _value(value: Any, dtype: pa.DataType) -> Any:
    if value is None:
        return None
    if dtype == pa.string():
        return value if isinstance(value, str) else _json.encode(value).decode()
    if dtype == pa.bool_():
        return value if isinstance(value, bool) else None
    if not isinstance(value, int | float):
        return None
    if dtype == pa.float64():
        return _double(value)
    whole = isinstance(value, int) or value.is_integer()  # JSON Schema takes 3.0 for an integer
    return max(-(2**63), min(2**63 - 1, int(value))) if whole else None


def _double(value: float) -> float:
    """The nearest double that means the same to the windows: beyond `LARGEST` is no number there, but not null either."""
    try:
        nearest = float(value)
    except OverflowError:  # an int that no double can hold
        return sys.float_info.max if value > 0 else -sys.float_info.max
    if abs(nearest) == LARGEST and abs(value) > LARGEST:  # 2**53 + 1 would become a number by rounding
        return math.copysign(math.nextafter(LARGEST, math.inf), nearest)
    return nearest


def _type(names: frozenset[str]) -> pa.DataType:
    names = names - {"null"}
    if names == {"integer", "number"}:
        return pa.float64()
    return _SIMPLE.get(next(iter(names)), pa.string()) if len(names) == 1 else pa.string()


def _types(root: Mapping[str, Any], schema: object, seen: set[str]) -> frozenset[str]:
    """JSON types that a property may have; empty where the schema does not say."""
    match schema:
        case {"type": str() as one}:
            return frozenset({one})
        case {"type": list() as several}:
            return frozenset(several)
        case {"const": value}:
            return frozenset({_JSON_NAMES.get(type(value), "object")})
        case {"enum": list() as values}:
            return frozenset(_JSON_NAMES.get(type(value), "object") for value in values)
        case {"$ref": str() as reference} if reference.startswith("#/$defs/") and reference not in seen:
            return _types(root, root.get("$defs", {}).get(reference.removeprefix("#/$defs/")), seen | {reference})
        case {"anyOf": list() as branches} | {"oneOf": list() as branches}:
            found = [_types(root, branch, seen) for branch in branches]
            return frozenset().union(*found) if all(found) else frozenset()
        case _:
            return frozenset()
