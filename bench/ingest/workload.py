"""The stream of the bench: departures of 300 bytes, six partitions, a schema that checks what a real one would."""

from __future__ import annotations

import json
from pathlib import Path

STREAM = "departures"
PARTITIONS = 6
SINGLE = f"/v1/streams/{STREAM}/events"
AIRCRAFT = 5_000
EVENT_BYTES = 300

TEXT = {"type": "string"}
SCHEMA = {
    "type": "object",
    "required": ["flight_id", "departed_at", "tailnum", "origin", "dest", "carrier", "dep_delay", "distance"],
    "properties": {
        "flight_id": TEXT,
        "departed_at": {"type": "string", "format": "date-time"},
        "tailnum": TEXT,
        "origin": {"type": "string", "pattern": "^[A-Z]{3}$"},
        "dest": {"type": "string", "pattern": "^[A-Z]{3}$"},
        "carrier": {"type": "string", "minLength": 2, "maxLength": 3},
        "dep_delay": {"type": "number"},
        "distance": {"type": "integer", "minimum": 1},
        "cancelled": {"type": "boolean"},
        "remark": {"type": ["string", "null"], "maxLength": 200},
    },
}


def project(folder: Path) -> Path:
    """A project with the one stream."""
    streams = folder / "streams"
    streams.mkdir(parents=True)
    stream = {"stream": STREAM, "description": "A flight left the gate.", "key": "tailnum", "id": "flight_id"}
    stream |= {"time": "departed_at", "partitions": PARTITIONS, "schema": SCHEMA}
    (streams / f"{STREAM}.yaml").write_text(json.dumps(stream))  # JSON is YAML
    (folder / "features").mkdir()
    (folder / "features" / "feature_store.yaml").write_text("project: bench\n")  # ingest reads no feature
    return folder


def event(number: int) -> bytes:
    """One departure, EVENT_BYTES long; every number has an id of its own."""
    fields = {
        "flight_id": f"2013-01-01-UA-{number:012d}-EWR",
        "departed_at": f"2013-01-01T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}Z",
        "tailnum": f"N{number * 7919 % AIRCRAFT:05d}",
        "origin": "EWR",
        "dest": "IAH",
        "carrier": "UA",
        "dep_delay": number % 90 - 10.5,
        "distance": 1400,
        "cancelled": False,
        "remark": "",
    }
    short = EVENT_BYTES - len(json.dumps(fields, separators=(",", ":")))
    return json.dumps(fields | {"remark": "x" * short}, separators=(",", ":")).encode()
