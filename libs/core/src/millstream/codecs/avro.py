"""Events in Avro: read with the schema they were written with, resolved to the stream's own; written with the stream's own."""

from __future__ import annotations

import base64
import datetime
import decimal
import io
import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import fastavro
from fastavro.read import LOGICAL_READERS, SchemaResolutionError

from millstream.codecs.avro_schema import DECIMAL, AvroSchema, names_in, parse_writer
from millstream.codecs.codec import Registered, RegistryCodec
from millstream.codecs.errors import UnfitSchema
from millstream.codecs.plain import plain_event
from millstream.codecs.wire import HEAD
from millstream.contracts.times import from_rfc3339, to_datetime
from millstream.errors import RejectEvent

_BROKEN = (EOFError, LookupError, ValueError, TypeError, ArithmeticError, AttributeError, MemoryError)
"""What the decoder raises on bytes that are no value of the schema."""


class AvroCodec(RegistryCodec[Any]):
    kind = "AVRO"

    def __init__(self, schema: AvroSchema) -> None:
        super().__init__(schema.text)
        self._schema = schema.parsed
        self._reader = schema.reading
        self._said = json.loads(schema.text)
        self._fill = _Filler(schema.parsed).of(schema.parsed)

    def writer(self, id: int, schema: Registered) -> Any:
        named: dict[str, Any] = {}
        for _, other in schema.references:
            named = names_in(parse_writer(_loads(other.text), named), named)
        said = _loads(schema.text)
        # The very same schema needs no resolution, which is a third of the work.
        return self._reader if said == self._said else parse_writer(said, named)

    def read(self, id: int, writer: Any, raw: bytes) -> dict[str, Any]:
        body = io.BytesIO(raw)
        body.seek(HEAD)
        try:
            event = fastavro.schemaless_reader(body, writer, None if writer is self._reader else self._reader)
            rest = len(raw) - body.tell()
            if rest:
                raise ValueError(f"{rest} bytes are left behind the event")
            if type(event) is not dict:
                raise ValueError("is no record")
            return plain_event(event)
        except SchemaResolutionError as error:
            raise RejectEvent("wrong_schema", f"schema {id} does not fit the stream's own: {_said(error)}") from error
        except RecursionError as error:
            raise RejectEvent("too_deep", f"nested too deeply for schema {id}") from error
        except _BROKEN as error:
            raise RejectEvent("bad_value", f"is no value of schema {id}: {_said(error)}") from error

    def write(self, event: Mapping[str, Any]) -> bytes:
        body = io.BytesIO()
        try:
            fastavro.schemaless_writer(body, self._schema, self._fill(event))
        except _BROKEN as error:
            raise RejectEvent("schema", f"does not fit the stream's Avro schema: {_said(error)}") from error
        return body.getvalue()


LARGEST_DECIMAL = 400
"""Bytes, about 960 digits: more than any double tells apart, whatever precision a schema claims."""


def _decimal(data: bytes, writer: Any = None, reader: Any = None) -> float:
    """Two's complement, big-endian (Avro 1.12, Decimal), of no more bytes than the schema's precision needs."""
    precision, scale = writer["precision"], writer.get("scale", 0)
    if len(data) > min(precision // 2 + 2, LARGEST_DECIMAL):  # a byte holds 2.4 digits
        raise ValueError(f"{len(data)} bytes for a decimal of {precision} digits")
    return float(decimal.Decimal(int.from_bytes(data, "big", signed=True)).scaleb(-scale, _EXACT))


_EXACT = decimal.Context(prec=1000)
LOGICAL_READERS[f"bytes-{DECIMAL}"] = LOGICAL_READERS[f"fixed-{DECIMAL}"] = _decimal


def _loads(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnfitSchema("is not JSON", "register an Avro schema") from error


def _said(error: BaseException) -> str:
    return str(error).partition("\n")[0][:300] or type(error).__name__


Fill = Callable[[Any], Any]


class _Filler:
    """Makes what JSON carries into what Avro's encoder takes, by the schema."""

    def __init__(self, schema: Any) -> None:
        self._names = names_in(schema, {})

    def of(self, schema: Any) -> Fill:
        if isinstance(schema, str):
            schema = self._names.get(schema, schema)
        if isinstance(schema, list):
            return self._union(schema)
        if isinstance(schema, str):
            return _PRIMITIVES.get(schema, _same)
        if (logical := schema.get("logicalType")) is not None:
            return _LOGICAL[logical]
        match schema["type"]:
            case "record" | "error":
                return self._record(schema)
            case "array":
                item = self.of(schema["items"])
                return lambda values: [item(value) for value in values]
            case "map":
                inner = self.of(schema["values"])
                return lambda values: {name: inner(value) for name, value in values.items()}
            case "fixed":
                return _bytes
            case "enum":
                return _same
            case inner_type:
                return self.of(inner_type)

    def _record(self, schema: Any) -> Fill:
        fills = {field["name"]: self.of(field["type"]) for field in schema["fields"]}
        return lambda event: {name: fill(event[name]) for name, fill in fills.items() if name in event}

    def _union(self, branches: list[Any]) -> Fill:
        fills = [self.of(branch) for branch in branches if branch != "null"]

        def fill(value: Any) -> Any:
            if value is None:
                return None
            for one in fills:
                # The first that takes it, as text may be a time and a name both; the encoder picks the branch by the value.
                try:
                    return one(value)
                except (ValueError, TypeError, AttributeError, ArithmeticError):
                    continue
            return value

        return fill


def _same(value: Any) -> Any:
    return value


def _int(value: Any) -> Any:
    # 3.0 is an integer to JSON Schema.
    return int(value) if type(value) is float and value.is_integer() else value


def _bytes(value: str) -> bytes:
    return base64.b64decode(value, validate=True)


def _moment(value: str) -> datetime.datetime:
    return to_datetime(from_rfc3339(value))


def _local(value: str) -> datetime.datetime:
    moment = datetime.datetime.fromisoformat(value)
    if moment.tzinfo is not None:
        raise ValueError(f"{value!r:.60} has an offset, and a local time has none")
    return moment


_PRIMITIVES: Mapping[str, Fill] = {"int": _int, "long": _int, "bytes": _bytes}
_LOGICAL: Mapping[str, Fill] = {
    "timestamp-millis": _moment,
    "timestamp-micros": _moment,
    "local-timestamp-millis": _local,
    "local-timestamp-micros": _local,
    "date": datetime.date.fromisoformat,
    "time-millis": datetime.time.fromisoformat,
    "time-micros": datetime.time.fromisoformat,
    "uuid": lambda value: str(uuid.UUID(value)),
    # As the JSON said it: a float's own digits, not its binary value.
    "decimal": lambda value: decimal.Decimal(str(value)),
}
