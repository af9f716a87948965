"""An airport's ingest: one stream of departures, a log in memory, and a clock that stands still."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from millstream.contracts.times import from_rfc3339
from millstream.project import Stream
from millstream.runtime.service import Service
from millstream_ingest.adapters.memory import MemoryLog
from millstream_ingest.app import create_app
from millstream_ingest.domain.keyring import Keyring
from millstream_ingest.settings import IngestSettings

NOON = from_rfc3339("2013-01-01T12:00:00Z")

DEPARTURES = Stream.model_validate(
    {
        "stream": "flights-departed",
        "description": "A flight left the gate.",
        "key": "tailnum",
        "id": "flight_id",
        "time": "departed_at",
        "schema": {
            "type": "object",
            "required": ["flight_id", "tailnum", "departed_at"],
            "properties": {
                "flight_id": {"type": "string"},
                "tailnum": {"type": "string"},
                "departed_at": {"type": "string", "format": "date-time"},
                "dep_delay": {"type": "number"},
                "legs": {"type": "array", "items": {"type": "object", "properties": {"a/b~c": {"type": "integer"}}}},
            },
        },
    }
)
READINGS = Stream.model_validate(
    {
        "stream": "sensor-readings",
        "description": "A gauge was read; readings have no id of their own.",
        "key": "gauge",
        "time": "at",
        "schema": {
            "type": "object",
            "required": ["gauge", "at"],
            "properties": {"gauge": {"type": "integer"}, "at": {"type": "string", "format": "date-time"}},
        },
    }
)
STREAMS = {stream.name: stream for stream in (DEPARTURES, READINGS)}


def departure(**fields: Any) -> dict[str, Any]:
    """UA 1545 leaves Newark at 10:17, two minutes late."""
    return {
        "flight_id": "2013-01-01-UA-1545-EWR",
        "tailnum": "N14228",
        "departed_at": "2013-01-01T10:17:00Z",
        "dep_delay": 2,
    } | fields


def lines(*events: Any) -> bytes:
    return "".join(json.dumps(event) + "\n" for event in events).encode()


class Airport:
    """ingest with its log at hand; `post` speaks to it as a producer does."""

    def __init__(self, keyring: Keyring | None = None, **settings: Any) -> None:
        self.log = MemoryLog()
        self.settings = IngestSettings(instance="jfk", **settings)
        self.service: Service = create_app(
            self.settings, streams=STREAMS, log=self.log, keyring=keyring, clock=lambda: NOON
        )
        transport = httpx.ASGITransport(self.service.app)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://ingest")

    async def send(self, event: Any, stream: str = "flights-departed", **headers: str) -> httpx.Response:
        return await self.post(f"{stream}/events", json.dumps(event).encode(), **headers)

    async def batch(self, body: bytes, kind: str = "application/x-ndjson", **headers: str) -> httpx.Response:
        return await self.post("flights-departed/batch", body, content_type=kind, **headers)

    async def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        named = {"content_type": "application/json"} | headers
        return await self.http.post(
            f"/v1/streams/{path}",
            content=body,
            headers={name.replace("_", "-"): value for name, value in named.items()},
        )

    def counted(self, name: str, **labels: str) -> float:
        return self.service.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
async def airport() -> AsyncIterator[Airport]:
    made = Airport()
    async with made.http:
        yield made


@pytest.fixture
async def replayed_airport() -> AsyncIterator[Airport]:
    """An ingest that a replay talks to: it believes what the request says about time."""
    made = Airport(trust_known_at=True)
    async with made.http:
        yield made
