"""A departure changes: who reads the events of before, who reads those of now, and what the one who changed it should write."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from millstream.compatibility.change import breaks
from millstream.compatibility.json_schema import refusals
from millstream.project import Stream
from millstream.project.event_schema import compile_schema

from .formats_story import AVSC, PROTO, stream_of

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["flight_id", "tailnum", "departed_at"],
    "properties": {
        "flight_id": {"type": "string"},
        "tailnum": {"type": "string"},
        "departed_at": {"type": "string", "format": "date-time"},
        "delay": {"type": ["number", "null"], "minimum": -120},
        "kind": {"enum": ["PASSENGER", "CARGO"]},
        "legs": {"type": "array", "items": {"$ref": "#/$defs/leg"}},
    },
    "$defs": {"leg": {"type": "object", "required": ["to"], "properties": {"to": {"type": "string"}}}},
}


def stream(schema: dict[str, Any], compatibility: str = "full") -> Stream:
    said = {"stream": "flights-departed", "description": "A flight left.", "key": "tailnum", "time": "departed_at"}
    return Stream.model_validate(said | {"compatibility": compatibility, "schema": schema})


def changed(path: str, value: Any) -> dict[str, Any]:
    """SCHEMA with `value` at the dotted `path`; None takes it out."""
    schema = copy.deepcopy(SCHEMA)
    *steps, last = path.split(".")
    place: Any = schema
    for step in steps:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return schema


def told(old: Stream, new: Stream) -> set[tuple[str, str]]:
    return {(one.direction, one.pointer) for one in breaks(old, new)}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("properties.gate", {"type": "string"}, set()),
        ("required", [*SCHEMA["required"], "delay"], {("backward", "/delay")}),
        ("required", ["tailnum", "departed_at"], {("forward", "/flight_id")}),
        ("properties.delay.type", "number", {("backward", "/delay")}),
        ("properties.delay.type", ["integer", "null"], {("backward", "/delay")}),
        ("properties.delay.type", ["number", "null", "string"], {("forward", "/delay")}),
        ("properties.delay.minimum", -60, {("backward", "/delay")}),
        ("properties.delay.minimum", None, {("forward", "/delay")}),
        ("properties.kind.enum", ["PASSENGER"], {("backward", "/kind")}),
        ("properties.kind.enum", ["PASSENGER", "CARGO", "FERRY"], {("forward", "/kind")}),
        ("properties.tailnum.pattern", "^N", {("backward", "/tailnum")}),
        ("properties.kind", None, set()),
        ("additionalProperties", False, {("backward", "")}),
        ("$defs.leg.required", ["to", "km"], {("backward", "/legs/0/km")}),
        ("$defs.leg.properties.to.type", ["string", "null"], {("forward", "/legs/0/to")}),
        ("properties.legs.items", {"type": "string"}, {("backward", "/legs/0"), ("forward", "/legs/0")}),
        ("anyOf", [{"required": ["delay"]}], {("backward", "")}),
    ],
)
def test_a_json_schema_changes(path: str, value: Any, expected: set[tuple[str, str]]) -> None:
    old, new = stream(SCHEMA), stream(changed(path, value))
    assert told(old, new) == expected
    for one in ("backward", "forward", "none"):
        assert told(old, stream(changed(path, value), one)) == {pair for pair in expected if pair[0] == one}


def test_a_break_says_whom_it_breaks_and_what_to_write() -> None:
    [one] = breaks(stream(SCHEMA), stream(changed("required", [*SCHEMA["required"], "delay"])))
    assert one.where == (
        "/delay: is required on one side, and may be missing on the other; not backward compatible: "
        "events that were written before are refused now"
    )
    assert one.remedy == "take delay out of required"


VALUE = st.sampled_from(
    [
        {"type": "string"},
        {"type": "integer"},
        {"type": "number"},
        {"type": ["number", "null"]},
        {"type": "integer", "minimum": 3},
        {"type": "number", "maximum": 2},
        {"enum": ["a", "b"]},
        {"enum": ["a"]},
        {"const": 5},
        {"type": "string", "maxLength": 1},
        {"type": "array", "items": {"type": "integer"}},
        {"type": "object", "properties": {"x": {"type": "integer"}}, "additionalProperties": False},
        {"type": "object", "required": ["x"], "properties": {"x": {"type": "number"}}},
        {},
    ]
)
SCHEMAS = st.builds(
    lambda fields, required, closed: (
        {"type": "object", "properties": fields, "required": sorted(required & set(fields))}
        | ({"additionalProperties": False} if closed else {})
    ),
    st.dictionaries(st.sampled_from("abc"), VALUE, max_size=3),
    st.frozensets(st.sampled_from("abc")),
    st.booleans(),
)
PLAIN = st.sampled_from([None, 1, 2.5, 5, "a", "b", "long", True, [], [1], ["x"], {}, {"x": 1}, {"x": 1.5, "y": 2}])
EVENTS = st.dictionaries(st.sampled_from("abc"), PLAIN, max_size=3)


@settings(max_examples=1000, deadline=None)
@given(SCHEMAS, SCHEMAS, EVENTS)
def test_what_is_called_compatible_is_never_refused(writer: dict[str, Any], reader: dict[str, Any], event: Any) -> None:
    assume(set(event) <= set(writer["properties"]))  # a field that nobody declared may be anything
    assume(not list(refusals(writer, reader)))
    assume(compile_schema(writer).is_valid(event))
    assert compile_schema(reader).is_valid(event)


def avro(folder: Path, **fields: Any) -> Stream:
    """AVSC with these fields another way; None takes one out."""
    kept = [fields.get(one["name"], one) for one in AVSC["fields"]]
    new = [one for name, one in fields.items() if one and name not in {each["name"] for each in AVSC["fields"]}]
    said = AVSC | {"fields": [one for one in kept if one] + new}
    return stream_of(folder, "avro", json.dumps(said)).model_copy(update={"compatibility": "full"})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"gate": {"name": "gate", "type": "string"}}, {("backward", "/gate")}),
        ({"gate": {"name": "gate", "type": "string", "default": ""}}, set()),
        ({"tags": None}, {("forward", "/tags")}),
        ({"delay": None}, set()),
        ({"seats": {"name": "seats", "type": "long", "default": 0}}, {("forward", "/seats")}),
        (
            {"seats": {"name": "seats", "type": "string", "default": ""}},
            {("backward", "/seats"), ("forward", "/seats")},
        ),
        ({"places": {"name": "places", "type": "int", "aliases": ["seats"]}, "seats": None}, set()),
        (
            {"kind": {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["PASSENGER"]}}},
            {("backward", "/kind")},
        ),
        (
            {"departed_at": {"name": "departed_at", "type": {"type": "long", "logicalType": "timestamp-millis"}}},
            {("backward", "/departed_at"), ("forward", "/departed_at")},
        ),
        ({"delay": {"name": "delay", "type": "double", "default": 0.0}}, {("backward", "/delay")}),
    ],
)
def test_an_avro_schema_changes(tmp_path: Path, fields: dict[str, Any], expected: set[tuple[str, str]]) -> None:
    assert told(avro(tmp_path), avro(tmp_path, **fields)) == expected


@pytest.mark.parametrize(
    ("was", "now", "expected"),
    [
        ("bytes seal = 12;", "bytes seal = 12; string crew = 13;", set()),
        ("bytes seal = 12;", "", set()),
        ("bytes seal = 12;", "bytes seal = 14;", {("backward", "/seal"), ("forward", "/seal")}),
        ("bytes seal = 12;", "int64 seal = 12;", {("backward", "/seal"), ("forward", "/seal")}),
        ("optional int32 gate", "optional int64 gate", {("forward", "/gate")}),
        ("int64 metres = 2", "string metres = 2", {("backward", "/legs/metres"), ("forward", "/legs/metres")}),
        ("CARGO = 1;", "CARGO = 1; FERRY = 2;", {("forward", "/kind")}),
        ("string tailnum = 2;", "string tailnum = 20;", {("backward", "/tailnum"), ("forward", "/tailnum")}),
        (
            "google.protobuf.DoubleValue delay",
            "google.protobuf.StringValue delay",
            {("backward", "/delay"), ("forward", "/delay")},
        ),
    ],
)
def test_a_protobuf_message_changes(tmp_path: Path, was: str, now: str, expected: set[tuple[str, str]]) -> None:
    assert PROTO.count(was) == 1
    old = stream_of(tmp_path, "protobuf", PROTO)
    new = stream_of(tmp_path, "protobuf", PROTO.replace(was, now)).model_copy(update={"compatibility": "full"})
    assert told(old, new) == expected
    assert told(old, old.model_copy(update={"compatibility": "full"})) == set()


def test_another_format_is_another_stream(tmp_path: Path) -> None:
    assert told(stream(SCHEMA), avro(tmp_path)) == {("backward", ""), ("forward", "")}
