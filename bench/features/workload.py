"""What the measurements run on: a project with four views, and departures of 300 bytes."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

from aiokafka import AIOKafkaProducer

STREAM = "departures"
ENTITIES = {"airport": 16, "terminal": 3, "route": 100, "aircraft": 4_000}
"""Join key of each view, and how many different ones there are."""
SPAN = 600.0
"""Seconds of event time, whatever the number of events: they are of the last ten minutes."""
HEADERS = ("ce_specversion", "content-type", "ce_id", "ce_type", "ce_source", "ce_time", "ce_knownat")
"""What ingest writes on each record."""

_STREAM = """\
stream: departures
description: A flight left the gate.
key: aircraft
time: departed_at
lateness: 1h
partitions: 1
schema:
  type: object
  required: [aircraft, departed_at, airport, terminal, route, delay]
  properties:
    departed_at: {type: string, format: date-time}
    aircraft: {type: string, maxLength: 40}
    airport: {type: string}
    terminal: {type: string}
    route: {type: string}
    delay: {type: [number, "null"]}
    remark: {type: string}
"""
_STORE = """\
project: bench
provider: local
entity_key_serialization_version: 3
online_store: {type: millstream_tiles.online_store.MillstreamOnlineStore}
offline_store: {type: millstream_tiles.offline_store.MillstreamOfflineStore}
"""
_DEFINITIONS = """\
from datetime import timedelta

from feast import Entity, FeatureService
from feast.aggregation import Aggregation
from feast.stream_feature_view import StreamFeatureView

from millstream_tiles import stream_source

source = stream_source("../streams/departures.yaml")
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def aggregations():
    found = [
        Aggregation(column="delay", function="mean", name="mean_1h", time_window=HOUR, slide_interval=10 * MINUTE),
        Aggregation(column="*", function="count", name="count_1h", time_window=HOUR, slide_interval=10 * MINUTE),
    ]
    if {two_slides}:
        found.append(
            Aggregation(column="delay", function="mean", name="mean_24h", time_window=24 * HOUR, slide_interval=HOUR)
        )
    return found


def view(entity):
    return StreamFeatureView(
        name=f"by_{{entity.name}}",
        entities=[entity],
        source=source,
        timestamp_field="departed_at",
        aggregations=aggregations(),
    )


airport, terminal = Entity(name="airport"), Entity(name="terminal")
route, aircraft = Entity(name="route"), Entity(name="aircraft")
by_airport, by_terminal = view(airport), view(terminal)
by_route, by_aircraft = view(route), view(aircraft)
everything = FeatureService(name="everything", features=[by_airport, by_terminal, by_route, by_aircraft])
"""


_RNG = random.Random(2)
_REMARK = "x" * 155  # for 300 bytes an event


def project(folder: Path, *, two_slides: bool) -> Path:
    """Write the project and return its folder."""
    for part in ("streams", "loops", "features"):
        (folder / part).mkdir(parents=True)
    (folder / "streams" / "departures.yaml").write_text(_STREAM)
    (folder / "features" / "feature_store.yaml").write_text(_STORE)
    (folder / "features" / "definitions.py").write_text(_DEFINITIONS.format(two_slides=two_slides))
    return folder


def departures(count: int, until: float) -> Iterator[tuple[int, bytes, bytes]]:
    """(milliseconds, key, event) in order; the last one left at `until`. The same ones every time but for their times."""
    rng = random.Random(1)
    for number in range(count):
        yield departure(until - SPAN + number * SPAN / count, rng)


def departure(at: float, rng: random.Random = _RNG, aircraft: str | None = None) -> tuple[int, bytes, bytes]:
    """(milliseconds, key, event) of a departure at `at`, by any aircraft unless one is named."""
    aircraft = aircraft or f"N{rng.randrange(ENTITIES['aircraft']):05d}"
    event = {
        "departed_at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1000):03d}Z",
        "aircraft": aircraft,
        "airport": f"A{rng.randrange(ENTITIES['airport'])}",
        "terminal": f"T{rng.randrange(ENTITIES['terminal'])}",
        "route": f"R{rng.randrange(ENTITIES['route'])}",
        "delay": round(rng.gauss(10, 30), 1),
        "remark": _REMARK,
    }
    return int(at * 1000), aircraft.encode(), json.dumps(event).encode()


async def fill(bootstrap: str, count: int, *, headers: bool, partitions: int = 1) -> int:
    """Send `count` departures to the topic, each batch to the next partition; bytes of one event.

    With `headers` as ingest sends them, else bare.
    """
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=256 * 1024, acks=1)
    await producer.start()
    try:
        batch, size, sent = producer.create_batch(), 0, 0
        for at, key, value in departures(count, time.time()):
            size = len(value)
            said = [(name, value[16:40]) for name in HEADERS[:-1]] if headers else []
            if headers:
                said.append((HEADERS[-1], json.loads(value)["departed_at"].encode()))
            while batch.append(key=key, value=value, timestamp=at, headers=said) is None:
                await producer.send_batch(batch, STREAM, partition=sent % partitions)
                batch, sent = producer.create_batch(), sent + 1
        await (await producer.send_batch(batch, STREAM, partition=sent % partitions))
        return size
    finally:
        await producer.stop()
