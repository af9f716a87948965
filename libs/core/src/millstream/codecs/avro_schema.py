"""An Avro schema as a stream uses it: read, kept within what can be decoded safely, and said as JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fastavro.schema import SchemaParseException, UnknownType, parse_schema

from millstream.codecs.errors import UnfitSchema

LONG = 2**63
_SIMPLE: Mapping[str, dict[str, Any]] = {
    "null": {"type": "null"},
    "boolean": {"type": "boolean"},
    "int": {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    "long": {"type": "integer", "minimum": -LONG, "maximum": LONG - 1},
    "float": {"type": "number"},
    "double": {"type": "number"},
    "string": {"type": "string"},
    "bytes": {"type": "string", "contentEncoding": "base64"},
}
_MOMENT = {"type": "string", "format": "date-time"}
LOGICAL: Mapping[str, dict[str, Any]] = {
    "timestamp-millis": _MOMENT,
    "timestamp-micros": _MOMENT,
    "date": {"type": "string", "format": "date"},
    "uuid": {"type": "string", "format": "uuid"},
    "decimal": {"type": "number"},
    # A time of day, or a time without an offset: text, since no instant can be told from it.
    "time-millis": {"type": "string"},
    "time-micros": {"type": "string"},
    "local-timestamp-millis": {"type": "string"},
    "local-timestamp-micros": {"type": "string"},
}
"""Logical types and what JSON would have carried for them."""


@dataclass(frozen=True, kw_only=True)
class AvroSchema:
    """The schema of a stream's own file: what its events are read as, whatever they were written with."""

    text: str
    """As a registry gets it."""
    parsed: Any
    """What is written with."""
    reading: Any
    """What is read with, see `parse_writer`."""
    json_schema: dict[str, Any]


def read_avsc(text: str) -> AvroSchema:
    """The schema of a .avsc file. Raises UnfitSchema."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnfitSchema(f"is not JSON ({error or 'nested too deeply'})", "write an Avro schema there") from error
    if not isinstance(said, dict) or said.get("type") != "record":
        raise UnfitSchema("is no record", 'write {"type": "record", "name": …, "fields": [...]}')
    parsed = parse_avro(said)
    described = _Describer(parsed).record(parsed, ())
    return AvroSchema(text=json.dumps(said), parsed=parsed, reading=parse_writer(said), json_schema=described)


def parse_avro(said: Any, named: Mapping[str, Any] | None = None) -> Any:
    """A schema ready for fastavro, `named` being what it refers to. Raises UnfitSchema, also for one that is not safe.

    The decoder recurses in C without a limit: 100 kB of a type that holds itself would crash the process. And items of no
    bytes cost nothing to claim: 10 bytes stand for 2^62 of them.
    """
    try:
        parsed = parse_schema(said, named_schemas=dict(named or {}))
    except UnknownType as error:
        raise UnfitSchema(f"unknown type {error.name!r}", "name a primitive type, or one declared before it") from error
    except (SchemaParseException, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UnfitSchema(f"is no Avro schema ({_line(error)})", "see the Avro specification") from error
    _Safety(parsed, named or {}).size(parsed, ())
    return parsed


DECIMAL = "millstream-decimal"
"""Decimals of what is read: the library's own reader takes a megabyte of digits for one and is busy with it for minutes."""


def parse_writer(said: Any, named: Mapping[str, Any] | None = None) -> Any:
    """`said` ready to read with. Raises UnfitSchema."""
    parse_avro(said, named)
    return parse_avro(_bounded(said), named)


def _bounded(said: Any) -> Any:
    if isinstance(said, list):
        return [_bounded(one) for one in said]
    if not isinstance(said, dict):
        return said
    inner = {key: _bounded(value) if key != "default" else value for key, value in said.items()}
    return inner | {"logicalType": DECIMAL} if inner.get("logicalType") == "decimal" else inner


def names_in(schema: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    """Every named type of a parsed schema, by its full name."""
    found = dict(known)
    _collect(schema, found)
    return found


def _collect(schema: Any, found: dict[str, Any]) -> None:
    if isinstance(schema, list):
        for branch in schema:
            _collect(branch, found)
    elif isinstance(schema, dict):
        if "name" in schema:
            found[schema["name"]] = schema
        for field in schema.get("fields", ()):
            _collect(field["type"], found)
        for inner in ("items", "values", "type"):
            if isinstance(schema.get(inner), dict | list):
                _collect(schema[inner], found)


class _Walk:
    def __init__(self, schema: Any, known: Mapping[str, Any] | None = None) -> None:
        self._names = names_in(schema, known or {})

    def resolve(self, schema: Any) -> Any:
        return self._names.get(schema, schema) if isinstance(schema, str) else schema

    def inside(self, schema: Any, around: tuple[str, ...]) -> tuple[str, ...]:
        """`around` with this named type in it. Raises UnfitSchema where it is there already."""
        name = schema["name"]
        if name in around:
            raise UnfitSchema(f"{name} holds itself", "write the levels that an event really has as types of their own")
        if len(around) > 30:
            raise UnfitSchema("nested deeper than 30 types", "write it flatter")
        return (*around, name)


class _Safety(_Walk):
    def size(self, schema: Any, around: tuple[str, ...]) -> int:
        """Fewest bytes that a value takes, 0 or 1."""
        schema = self.resolve(schema)
        if isinstance(schema, list):
            for branch in schema:
                self.size(branch, around)
            return 1
        kind = schema["type"] if isinstance(schema, dict) else schema
        if isinstance(kind, dict | list):
            return self.size(kind, around)
        if kind in ("record", "error"):
            within = self.inside(schema, around)
            return max((self.size(field["type"], within) for field in schema["fields"]), default=0)
        if kind in ("array", "map"):
            if self.size(schema["items" if kind == "array" else "values"], around) == 0 and kind == "array":
                raise UnfitSchema("an array of items that take no bytes", "give the items a type that holds something")
            return 1
        return 0 if kind == "null" or (kind == "fixed" and schema["size"] == 0) else 1


class _Describer(_Walk):
    """Says what decoded events look like."""

    def of(self, schema: Any, around: tuple[str, ...]) -> dict[str, Any]:
        schema = self.resolve(schema)
        if isinstance(schema, list):
            return self._union([self.of(branch, around) for branch in schema])
        if not isinstance(schema, dict):
            return dict(_SIMPLE[schema])
        if (logical := schema.get("logicalType")) is not None:
            if logical not in LOGICAL:
                raise UnfitSchema(f"unknown logicalType {logical!r}", f"known: {', '.join(sorted(LOGICAL))}")
            return dict(LOGICAL[logical])
        match schema["type"]:
            case "record" | "error":
                return self.record(schema, around)
            case "array":
                return {"type": "array", "items": self.of(schema["items"], around)}
            case "map":
                return {"type": "object", "additionalProperties": self.of(schema["values"], around)}
            case "enum":
                return {"type": "string", "enum": list(schema["symbols"])}
            case "fixed":
                return {"type": "string", "contentEncoding": "base64"}
            case inner:
                return self.of(inner, around)

    def record(self, schema: Any, around: tuple[str, ...]) -> dict[str, Any]:
        within = self.inside(schema, around)
        properties: dict[str, Any] = {}
        for field in schema["fields"]:
            name = field["name"]
            if name in properties:
                raise UnfitSchema(f"field {name!r} of {schema['name']} stands there twice", "keep one of them")
            said = {"description": field["doc"]} if isinstance(field.get("doc"), str) else {}
            properties[name] = said | self.of(field["type"], within)
        # What a producer of JSON leaves out has to have a default; a reader of Kafka finds every field filled in.
        required = [field["name"] for field in schema["fields"] if "default" not in field]
        return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}

    def _union(self, branches: Iterable[dict[str, Any]]) -> dict[str, Any]:
        branches = list(branches)
        others = [one for one in branches if one != {"type": "null"}]
        nullable = len(others) < len(branches)
        if len(others) == 1 and nullable:
            (one,) = others
            if isinstance(one.get("type"), str):
                enum = {"enum": [*one["enum"], None]} if "enum" in one else {}
                return one | {"type": [one["type"], "null"]} | enum
        if all(set(one) <= {"type", "minimum", "maximum"} for one in others):
            return {"type": [*dict.fromkeys(one["type"] for one in others), *(["null"] if nullable else [])]}
        return {"anyOf": branches}


def _line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:200] or type(error).__name__
