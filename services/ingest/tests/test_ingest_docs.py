"""What ingest says of itself: streams, versions of their schemas, a page for each with a working example, and the topics."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
from faststream.specification.asyncapi.v3_0_0.schema import ApplicationSchema
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.contracts.asyncapi import asyncapi
from millstream.contracts.topics import TOPICS
from millstream.project import Stream, load_project
from millstream.project.event_schema import DIALECT
from millstream.project.versions import keep
from millstream.testing.registry_server import RegistryServer
from millstream.testing.sockets import served
from millstream_cli.against import streams_at
from millstream_ingest.adapters.memory import MemoryLog
from millstream_ingest.app import create_app
from millstream_ingest.domain.example import example_of
from millstream_ingest.settings import IngestSettings

from .conftest import STREAMS, Airport
from .test_ingest_formats import departures

EXAMPLES = Path(__file__).parents[3] / "examples"


def client(**more: Any) -> httpx.AsyncClient:
    """Of an ingest with a log in memory."""
    service = create_app(IngestSettings(instance="jfk", **more.pop("settings", {})), log=MemoryLog(), **more)
    return httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url="http://ingest")


@pytest.mark.parametrize("project", ["flights", "bikes", "machines"])
async def test_the_example_of_each_page_is_accepted_as_it_stands(project: str) -> None:
    streams = load_project(EXAMPLES / project).streams
    async with client(settings={"project": EXAMPLES / project}) as http:
        document = (await http.get("/openapi.json")).json()
        for name in streams:
            page = document["paths"][f"/v1/streams/{name}/events"]["post"]
            assert page["tags"] == [name]
            example = page["requestBody"]["content"]["application/json"]["example"]
            answer = await http.post(f"/v1/streams/{name}/events", json=example)
            assert answer.status_code == 202, (name, answer.text)


async def test_the_pages_hold_together_as_openapi() -> None:
    """Schemas that refer into themselves do so from where they lie in the document."""
    leg = {"type": "object", "properties": {"to": {"type": "string"}}}
    said = STREAMS["flights-departed"].model_dump(by_alias=True) | {"lateness": "1h", "retention": "7d"}
    said["schema"] |= {"$defs": {"leg": leg}}
    said["schema"]["properties"] |= {"next": {"$ref": "#/$defs/leg"}}
    stream = Stream.model_validate(said)
    async with client(streams={stream.name: stream}) as http:
        document = (await http.get("/openapi.json")).json()
        again = (await http.get("/openapi.json")).json()

    assert document == again
    assert document["openapi"].startswith("3.1")
    schema = document["components"]["schemas"]["flights-departed"]
    assert schema["properties"]["next"]["$ref"] == "#/components/schemas/flights-departed/$defs/leg"
    assert [reference for reference in references(document) if missing(document, reference)] == []


async def test_an_avro_stream_has_an_example_and_its_own_file(tmp_path: Path) -> None:
    stream = departures(tmp_path)
    with RegistryServer().running() as registry:
        async with client(streams={stream.name: stream}, settings={"schema_registry": registry.url}) as http:
            page = (await http.get("/openapi.json")).json()["paths"]["/v1/streams/departed-avro/events"]["post"]
            assert stream.validator().is_valid(page["requestBody"]["content"]["application/json"]["example"])
            own = await http.get("/v1/streams/departed-avro/schema?form=own")
            assert own.json()["name"] == "Departed"
            assert own.headers["content-type"] == "application/vnd.apache.avro+json"


PLAIN = st.sampled_from(
    [
        {"type": "string", "minLength": 3},
        {"type": "string", "maxLength": 2},
        {"type": "string", "format": "uuid"},
        {"type": "integer", "minimum": 100},
        {"type": "integer", "maximum": -3},
        {"type": "integer", "exclusiveMinimum": 4, "multipleOf": 5},
        {"type": "number", "exclusiveMaximum": 0},
        {"type": ["null", "boolean"]},
        {"enum": ["a", 7]},
        {"const": None},
        {"type": "string", "contentEncoding": "base64"},
        {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        {},
    ]
)
NESTED = st.recursive(
    PLAIN,
    lambda inner: (
        st.builds(lambda items: {"type": "array", "items": items, "minItems": 2}, inner)
        | st.builds(
            lambda fields: {"type": "object", "properties": fields, "required": sorted(fields)},
            st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        )
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(NESTED)
def test_an_example_fits_its_schema(schema: dict[str, Any]) -> None:
    assert jsonschema_rs.Draft202012Validator(schema, validate_formats=True).is_valid(example_of(schema))


@pytest.fixture
def flights(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLES / "flights", tmp_path / "flights", ignore=shutil.ignore_patterns("data")))


async def test_every_version_of_a_schema_is_answered_for(flights: Path) -> None:
    landed = load_project(flights).streams["flights-landed"]
    keep(flights, landed)
    file = flights / "streams" / "flights-landed.yaml"
    file.write_text(file.read_text().replace("  properties:\n", "  properties:\n    gate: {type: string}\n", 1))
    place = "/v1/streams/flights-landed/schema"
    async with client(settings={"project": flights}) as http:
        listed = {one["stream"]: one for one in (await http.get("/v1/streams")).json()["streams"]}
        assert (listed["flights-landed"]["version"], listed["flights-landed"]["versions"]) == (2, [1, 2])
        assert (listed["flights-departed"]["version"], listed["flights-departed"]["compatibility"]) == (1, "backward")
        now, first, second = [await http.get(place + asked) for asked in ("", "?version=1", "?version=2")]
        assert now.headers["millstream-schema-version"] == second.headers["millstream-schema-version"] == "2"
        assert "gate" in now.json()["properties"]
        assert first.json() == landed.event_schema
        none = await http.get(place + "?version=3")
        assert (none.status_code, none.json()["error"], none.json()["known"]) == (404, "unknown_version", [1, 2])
        assert (await http.get(place + "?version=0")).status_code == 422


async def test_check_reads_a_running_ingest(flights: Path, tmp_path: Path) -> None:
    avro = departures(tmp_path)
    streams = dict(load_project(flights).streams) | {avro.name: avro}
    with RegistryServer().running() as registry:
        service = create_app(IngestSettings(schema_registry=registry.url), streams=streams, loops={}, log=MemoryLog())
        async with served(service.app) as (host, port):
            found = await asyncio.to_thread(streams_at, f"http://{host}:{port}", flights)
        await service._stop()  # the server did not start it, but its doors have asked the registry
    assert {name: one.event_schema for name, one in found.items()} == {n: s.event_schema for n, s in streams.items()}
    assert found[avro.name].wire is not None


def references(said: Any) -> Iterator[str]:
    if isinstance(said, dict):
        if isinstance(said.get("$ref"), str):
            yield said["$ref"]
        for inner in said.values():
            yield from references(inner)
    elif isinstance(said, list):
        for inner in said:
            yield from references(inner)


def missing(document: Any, reference: str) -> bool:
    found = document
    for step in reference.removeprefix("#/").split("/"):
        step = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or step not in found:
            return True
        found = found[step]
    return False


async def test_the_topics_are_an_asyncapi_document(airport: Airport) -> None:
    document = (await airport.http.get("/v1/asyncapi.json")).json()

    ApplicationSchema.model_validate(document)
    assert set(document["channels"]) == {*STREAMS, *(topic.name for topic in TOPICS)}
    assert [reference for reference in references(document) if missing(document, reference)] == []
    for message in document["components"]["messages"].values():
        schema = message["payload"].get("schema", message["payload"])
        assert isinstance(schema, dict)
        jsonschema_rs.meta.validate(schema | {"$schema": DIALECT})
    channel = document["channels"]["flights-departed"]
    assert channel["bindings"]["kafka"]["topicConfiguration"] == {"retention.ms": 7 * 24 * 3600 * 1000}
    assert document["channels"]["millstream-models"]["bindings"]["kafka"]["topicConfiguration"] == {
        "cleanup.policy": ["compact"]
    }


def test_the_command_prints_the_same_document() -> None:
    command = [sys.executable, "-m", "millstream_cli.main", "asyncapi", "--project", str(EXAMPLES / "bikes")]
    printed = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    assert json.loads(printed) == asyncapi(load_project(EXAMPLES / "bikes").streams)
