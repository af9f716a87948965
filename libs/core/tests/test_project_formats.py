"""A stream in Avro or protobuf: what its schema file must have is said with the line of the stream that names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from millstream.project import BadProject, load_project

from .formats_story import AVSC, PROTO

STREAM = """\
stream: flights-departed
description: A flight left the gate.
key: tailnum
id: flight_id
time: departed_at
{format}
"""


def project(folder: Path, format: str) -> Path:
    for name in ("streams", "features"):
        (folder / name).mkdir()
    (folder / "features" / "feature_store.yaml").touch()
    (folder / "streams" / "departed.yaml").write_text(STREAM.format(format=format))
    (folder / "streams" / "departed.avsc").write_text(json.dumps(AVSC))
    (folder / "streams" / "departed.proto").write_text(PROTO)
    return folder


@pytest.mark.parametrize(
    "format",
    [
        "format: avro\nschema: {file: departed.avsc}",
        "format: protobuf\nschema: {file: departed.proto, message: flights.Departed}",
        "schema: {file: departed.avsc}\nformat: avro",
    ],
)
def test_a_schema_file_beside_the_stream_is_all_it_needs(tmp_path: Path, format: str) -> None:
    stream = load_project(project(tmp_path, format)).streams["flights-departed"]

    assert stream.wire is not None
    assert stream.types_of("tailnum") == {"string"}


@pytest.mark.parametrize(
    ("format", "said"),
    [
        (
            "format: arvo\nschema: {file: departed.avsc}",
            "streams/departed.yaml:6: format: unknown 'arvo'; did you mean 'avro'? known: avro, json, protobuf",
        ),
        (
            "schema: {file: departed.avsc}",
            "streams/departed.yaml:6: schema.file: a schema file goes with format: avro or protobuf; write that, or"
            " the JSON Schema here",
        ),
        (
            "format: avro\nschema: {type: object}",
            "streams/departed.yaml:7: schema: names no file, and the stream is in avro; write schema: {file: departed.avsc}",
        ),
        (
            "format: avro\nschema: {file: departed.avsc, mesage: D}",
            "streams/departed.yaml:7: schema.mesage: unknown key 'mesage'; known: file",
        ),
        (
            "format: avro\nschema: {file: ../departed.avsc}",
            "streams/departed.yaml:7: schema.file: '../departed.avsc' is no .avsc file here; name a .avsc file that lies"
            " beside this one, without a folder",
        ),
        (
            "format: avro\nschema: {file: left.avsc}",
            "streams/departed.yaml:7: schema.file: left.avsc cannot be read (No such file or directory);"
            " put it beside this file",
        ),
        (
            "format: protobuf\nschema: {file: departed.proto, message: Departd}",
            "streams/departed.yaml:7: schema.file: departed.proto: has no message 'Departd'; known: flights.Departed,"
            " flights.Departed.Leg, flights.Gate",
        ),
    ],
)
def test_a_mistake_is_told_once_with_its_line_and_what_to_write(tmp_path: Path, format: str, said: str) -> None:
    with pytest.raises(BadProject) as caught:
        load_project(project(tmp_path, format))

    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("field", "said"),
    [
        (
            {"name": "departed_at", "type": "long"},
            'the time field \'departed_at\' is not a time; write {"type": "long", "logicalType": "timestamp-micros"}',
        ),
        (
            {"name": "tailnum", "type": ["null", "string"], "default": None},
            "the key field 'tailnum' is null or string; write string, int, long or an enum, without null",
        ),
        ({"name": "day", "type": {"type": "int", "logicalType": "dat"}}, "unknown logicalType 'dat'; known: date, "),
        ({"name": "kind", "type": "Knd"}, "unknown type 'flights.Knd'; name a primitive type"),
    ],
)
def test_a_field_that_cannot_be_what_the_stream_says(tmp_path: Path, field: dict[str, object], said: str) -> None:
    folder = project(tmp_path, "format: avro\nschema: {file: departed.avsc}")
    fields = [field if one["name"] == field["name"] else one for one in AVSC["fields"]]
    (folder / "streams" / "departed.avsc").write_text(json.dumps(AVSC | {"fields": fields}))

    with pytest.raises(BadProject) as caught:
        load_project(folder)

    assert any(
        f"streams/departed.yaml:7: schema.file: departed.avsc: {said}" in str(p) for p in caught.value.problems
    ), caught.value


def test_broken_json_is_named_with_its_line(tmp_path: Path) -> None:
    folder = project(tmp_path, "format: avro\nschema: {file: departed.avsc}")
    (folder / "streams" / "departed.avsc").write_text('{"type": "record",\n "name" "D"}')

    with pytest.raises(BadProject, match=r"departed\.avsc: is not JSON \(Expecting ':' delimiter: line 2 column 9"):
        load_project(folder)
