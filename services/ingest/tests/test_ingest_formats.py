"""A producer sends JSON whatever the stream's format is; what lies in the topic is the format."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import fastavro
import httpx
import pytest

from millstream.project import Stream
from millstream.testing.registry_server import RegistryServer
from millstream_ingest.adapters.memory import MemoryLog
from millstream_ingest.app import create_app
from millstream_ingest.settings import IngestSettings

from .conftest import DEPARTURES, NOON, departure, lines

FARE = {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}
AVSC = {
    "type": "record",
    "name": "Departed",
    "fields": [
        {"name": "flight_id", "type": "string"},
        {"name": "tailnum", "type": "string"},
        {"name": "departed_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "dep_delay", "type": "double"},
        {
            "name": "fare",
            "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}],
            "default": None,
        },
    ],
}


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with RegistryServer().running() as server:
        yield server


def departures(folder: Path) -> Stream:
    (folder / "departed.avsc").write_text(json.dumps(AVSC))
    said = DEPARTURES.model_dump(by_alias=True) | {"lateness": "1h", "retention": "7d"}
    said |= {"stream": "departed-avro", "format": "avro", "schema": {"file": "departed.avsc"}}
    return Stream.model_validate(said, context={"folder": folder})


@asynccontextmanager
async def ingest(
    log: MemoryLog, registry: RegistryServer, folder: Path
) -> AsyncIterator[tuple[Any, httpx.AsyncClient]]:
    streams = {stream.name: stream for stream in (DEPARTURES, departures(folder))}
    settings = IngestSettings(instance="jfk", schema_registry=registry.url)
    service = create_app(settings, streams=streams, log=log, clock=lambda: NOON)
    transport = httpx.ASGITransport(service.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://ingest") as http:
        yield service, http
    await service._stop()  # nothing started it, but its doors have asked the registry


async def test_an_event_is_written_in_the_streams_format(registry: RegistryServer, tmp_path: Path) -> None:
    log = MemoryLog()
    async with ingest(log, registry, tmp_path) as (service, http):
        early = await http.post("/v1/streams/departed-avro/events", json=departure())
        plain = await http.post("/v1/streams/flights-departed/events", json=departure())
        await registered(service)
        body = lines(departure(), departure(fare=0.001), departure(gate="B2"))
        batch = await http.post(
            "/v1/streams/departed-avro/batch", content=body, headers={"content-type": "application/x-ndjson"}
        )
        schema = (await http.get("/v1/streams/departed-avro/schema")).json()

    assert early.status_code == 503
    assert early.json()["outcome"] == "not_accepted"
    assert plain.status_code == 202, "a stream in JSON does not wait for a registry"
    assert [one.get("error", {}).get("code") for one in batch.json()["results"]] == [None, "schema", "schema"]
    assert json.loads(log.entries[0].value) == departure()
    written = log.entries[1].value
    assert written[:5] == b"\x00\x00\x00\x00\x01"
    found: Any = fastavro.schemaless_reader(io.BytesIO(written[5:]), fastavro.parse_schema(AVSC), None)
    assert found["departed_at"].isoformat() == "2013-01-01T10:17:00+00:00"
    assert found["dep_delay"] == 2.0
    assert schema["properties"]["fare"] == {"type": ["number", "null"]}
    assert registry.subjects == {"departed-avro-value": [1]}


async def registered(service: Any) -> None:
    """What the service does beside its doors once it runs."""
    (register,) = [work for what, work in service._loops if what == "registering schemas"]
    async with asyncio.timeout(30):
        await register()
