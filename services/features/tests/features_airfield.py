"""An airfield for the tests of bad input: a small project, the features service on real servers, and ways to ask both sides."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from millstream.runtime.topic_admin import ensure_topics, stream_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream_features.app import create_app
from millstream_features.settings import Settings
from millstream_features.subscribers import LAKE, TILES
from millstream_tiles import open_store
from millstream_tiles.lake import Lake

STREAM = """\
stream: {stream}
description: A flight left the gate.
key: flight_id
{known_by}
time: departed_at
lateness: 1h
partitions: 1
{format}
"""
JSON = """\
schema:
  type: object
  required: [flight_id, departed_at]
  properties:
    flight_id: {type: string}
    departed_at: {type: string, format: date-time}
    tailnum: {type: [string, "null"]}
    origin: {type: string}
    gate: {type: [integer, "null"]}
    delay: {type: [number, "null"]}
    seats: {type: integer}
    crew: {type: array}
"""
STORE = """\
project: flights
provider: local
entity_key_serialization_version: 3
online_store: {type: millstream_tiles.online_store.MillstreamOnlineStore}
offline_store: {type: millstream_tiles.offline_store.MillstreamOfflineStore}
"""
DEFINITIONS = """\
from datetime import timedelta
from feast import Entity, FeatureService, ValueType
from feast.aggregation import Aggregation
from feast.stream_feature_view import StreamFeatureView
from millstream_tiles import stream_source

departed = stream_source("../streams/departed.yaml")
tailnum, origin = Entity(name="tailnum"), Entity(name="origin")
gate = Entity(name="gate", value_type=ValueType.INT64)
HOUR, TEN = timedelta(hours=1), timedelta(minutes=10)


def agg(function, column="delay", window=HOUR, slide=TEN):
    return Aggregation(column=column, function=function, name=function, time_window=window, slide_interval=slide)


def view(name, entities, aggregations):
    return StreamFeatureView(
        name=name, entities=entities, source=departed, timestamp_field="departed_at", aggregations=aggregations
    )


by_tail = view("by_tail", [tailnum], [agg("count"), agg("sum"), agg("max"), agg("std"), agg("min", "seats")])
by_seats = view("by_seats", [tailnum], [agg("count", "seats"), agg("sum", "seats")])
by_route = view("by_route", [origin, tailnum], [agg("count", "*"), agg("last")])
by_gate = view("by_gate", [gate], [agg("count", "*"), agg("sum")])
by_minute = view("by_minute", [tailnum], [agg("count", "*", timedelta(minutes=10_000), timedelta(minutes=1))])
everything = FeatureService(name="everything", features=[by_tail, by_route, by_gate, by_minute, by_seats])
"""


def write_project(
    folder: Path,
    *,
    stream: str = "flights-departed",
    right: str = "",
    wrong: str = "",
    format: str = JSON,
    beside: Mapping[str, str] | None = None,
    known_by: str = "id: flight_id",
) -> Path:
    """`right` in the definitions becomes `wrong`. `format`: the stream's schema; `beside`: files that it names."""
    definitions = DEFINITIONS.replace(right, wrong, 1) if right else DEFINITIONS
    assert not right or definitions != DEFINITIONS
    for file, text in {
        "streams/departed.yaml": STREAM.format(stream=stream, format=format, known_by=known_by),
        "features/feature_store.yaml": STORE,
        "features/definitions.py": definitions,
        **{f"streams/{name}": text for name, text in (beside or {}).items()},
    }.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)
    (folder / "loops").mkdir(exist_ok=True)
    return folder


@dataclass(frozen=True)
class Sent:
    """One record: `value` is JSON, or bytes as they are."""

    value: dict[str, Any] | bytes
    reason: str = ""
    """Why it is a dead letter; empty: it is good, or late."""
    known_at: str = "2013-06-01T12:00:00Z"
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def raw(self) -> bytes:
        return self.value if isinstance(self.value, bytes) else json.dumps(self.value).encode()


class Field:
    """An airfield: the features service, and what one needs to speak with it."""

    def __init__(self, stream: str, settings: Settings, http: httpx.AsyncClient, producer: AIOKafkaProducer) -> None:
        self.stream = stream
        self.settings = settings
        self.http = http
        self.producer = producer
        self.sent = 0

    async def departs(self, *records: Sent) -> None:
        """Send them, and wait until the tiles have them all."""
        for one in records:
            said = [("ce_knownat", one.known_at.encode()), *one.headers]
            last = await self.producer.send(self.stream, one.raw, partition=0, headers=said)
        assert (await last).offset == self.sent + len(records) - 1
        self.sent += len(records)
        async with asyncio.timeout(60):
            while await self._behind():  # noqa: ASYNC110  another task of the service decides
                await asyncio.sleep(0.02)

    async def online(self, rows: Sequence[dict[str, Any]], as_of: str) -> list[dict[str, float]]:
        """The features of each row, as the HTTP doorway says them."""
        entities = {name: [row[name] for row in rows] for name in ("tailnum", "origin", "gate")}
        asked = {"feature_service": "everything", "full_feature_names": True, "entities": entities, "as_of": as_of}
        async with asyncio.timeout(60):  # the store has two seconds for an answer, and a busy machine takes more
            while (answer := await self.http.post("/get-online-features", json=asked)).status_code == 503:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert answer.status_code == 200, answer.text
        names = answer.json()["metadata"]["feature_names"]
        columns = dict(zip(names, (one["values"] for one in answer.json()["results"]), strict=True))
        return [{n: _number(columns[n][row]) for n in names if "__" in n} for row in range(len(rows))]

    async def offline(self, rows: Sequence[dict[str, Any]], as_of: str) -> list[dict[str, float]]:
        """The same from the lake, once it has all that was sent."""
        lake = Lake(self.settings.lake)
        await asyncio.to_thread(lake.wait_for, self.stream, LAKE, {0: self.sent - 1}, timeout=60)
        store = open_store(self.settings.project / "features", offline={"lake": self.settings.lake})
        frame = pd.DataFrame(list(rows))
        frame["event_timestamp"] = pd.Timestamp(datetime.fromisoformat(as_of))
        service = store.get_feature_service("everything")
        found = store.get_historical_features(frame, service, full_feature_names=True).to_df()
        names = [name for name in found.columns if "__" in name]
        return [{n: float(row[n]) for n in names} for _, row in found.iterrows()]

    async def letters(self, topic: str, count: int) -> list[tuple[bytes, bytes]]:
        """(value, reason) of the first `count` records of a topic that nobody else writes to."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.settings.kafka)
        await consumer.start()
        try:
            place = TopicPartition(topic, 0)
            consumer.assign([place])
            await consumer.seek_to_beginning(place)
            async with asyncio.timeout(30):
                found = [await consumer.getone() for _ in range(count)]
            assert await consumer.end_offsets([place]) == {place: count}
            return [(one.value, dict(one.headers).get("millstream-dlq-reason", b"")) for one in found]
        finally:
            await consumer.stop()

    async def _behind(self) -> bool:
        answer = await self.http.get("/v1/views")
        if answer.status_code == 503:  # on a busy machine Kafka or the store may be late; whoever asks again is told
            return True
        return any(view["waits_since"] for view in answer.json()["views"])


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


@asynccontextmanager
async def airfield(
    kafka: EmbeddedKafka,
    valkey_url: str,
    folder: Path,
    stream: str,
    *,
    format: str = JSON,
    beside: Mapping[str, str] | None = None,
    known_by: str = "id: flight_id",
    right: str = "",
    wrong: str = "",
    **knobs: Any,
) -> AsyncIterator[Field]:
    await ensure_topics(kafka.bootstrap, stream_topics(stream, 1, timedelta(days=9999), [TILES, LAKE]))
    settings = Settings(
        kafka=kafka.bootstrap,
        valkey=valkey_url,
        project=write_project(
            folder / "project",
            stream=stream,
            right=right,
            wrong=wrong,
            format=format,
            beside=beside,
            known_by=known_by,
        ),
        lake=str(folder / "lake"),
        data=folder / "data",
        session_timeout_ms=6_000,
        **({"namespace": "bad-input"} | knobs),
    )
    service = create_app(settings)
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all", max_request_size=2**21)
    await producer.start()
    try:
        async with (
            service.app.router.lifespan_context(service.app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app=service.app), base_url="http://features") as http,
        ):
            async with asyncio.timeout(60):
                while (await http.get("/readyz")).status_code != 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            yield Field(stream, settings, http, producer)
    finally:
        await producer.stop()
