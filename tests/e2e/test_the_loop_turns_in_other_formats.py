"""The whole loop on streams in Avro and protobuf: asked, featured, labelled and learned from as in JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from millstream.project import load_project
from millstream.testing.registry_server import RegistryServer

from .small_mill import run_small, small_project

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

TIME = {"type": "long", "logicalType": "timestamp-micros"}
AVRO = {"string": "string", "number": "double", "integer": "long"}
PROTO = {"string": "string", "number": "double", "integer": "int64"}


def avsc(name: str, properties: dict[str, Any]) -> str:
    """The fields of a JSON stream as an Avro record: times are timestamps, what may be null a union."""
    fields = []
    for field, said in properties.items():
        nullable = isinstance(said["type"], list)
        kind: Any = TIME if said.get("format") == "date-time" else AVRO[said["type"][0] if nullable else said["type"]]
        fields.append({"name": field, "type": ["null", kind] if nullable else kind})
    return json.dumps({"type": "record", "name": name, "fields": fields})


def proto(name: str, properties: dict[str, Any]) -> str:
    lines = []
    for number, (field, said) in enumerate(properties.items(), 1):
        kind = "google.protobuf.Timestamp" if said.get("format") == "date-time" else PROTO[said["type"]]
        lines.append(f"  {kind} {field} = {number};")
    head = 'syntax = "proto3";\nimport "google/protobuf/timestamp.proto";\n'
    return head + f"message {name} {{\n" + "\n".join(lines) + "\n}\n"


def rewrite(folder: Path) -> None:
    """Questions and labels in Avro, departures in protobuf."""
    yaml = YAML()
    for name, format in (("scheduled", "avro"), ("departed", "protobuf"), ("landed", "avro")):
        (file,) = folder.glob(f"streams/*{name}.yaml")
        stream = yaml.load(file)
        properties = stream["schema"]["properties"]
        beside = f"{name}.avsc" if format == "avro" else f"{name}.proto"
        text = avsc(name.title(), properties) if format == "avro" else proto(name.title(), properties)
        (folder / "streams" / beside).write_text(text)
        stream |= {"format": format, "schema": {"file": beside}}
        yaml.dump(stream, file)


async def test_the_loop_turns_on_avro_and_protobuf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_project(tmp_path / "project", partitions=1)
    rewrite(tmp_path / "project")
    with RegistryServer().running() as registry:
        monkeypatch.setenv("MILLSTREAM_SCHEMA_REGISTRY", registry.url)
        outcome = await run_small(load_project(tmp_path / "project"), tmp_path / "mill", until="2013-01-07T00:00:00Z")

    figures = outcome.figures
    assert sorted(registry.subjects) == ["flights-departed-value", "flights-landed-value", "flights-scheduled-value"]
    assert figures["events_lost"] == figures["dead_letters"] == figures["failed_runs"] == 0
    assert figures["events_in_topics"] == figures["events_in_lake"] == figures["events_sent"]
    assert figures["predictions_effective"] + figures["unanswered_no_model"] == figures["questions"]
    assert figures["predictions_effective"] > 1000
    assert figures["skew_max"] <= 1e-9, figures["skew_worst"]
    assert figures["recount_max"] <= 1e-9, figures["recount_worst"]
    assert figures["retrains"] >= 1
