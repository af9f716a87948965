"""The gate on a real Kafka and a real Valkey: a stream goes quiet, features fall behind, catch up, and lose everything."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
from aiokafka import AIOKafkaProducer

from millstream.contracts.times import DAY, HOUR, MINUTE, SECOND, from_rfc3339, to_rfc3339
from millstream.contracts.topics import TILES_GROUP
from millstream.runtime.topic_admin import ensure_topics, stream_topics
from millstream.runtime.waiting_records import WaitingRecords
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.valkey import EmbeddedValkey
from millstream_serving.adapters.feast_features import FeastFeatures, FeastStore
from millstream_serving.adapters.kafka_freshness import LOOK_EVERY, KafkaFreshness
from millstream_tiles.events import EventBatch
from millstream_tiles.tile_store import ValkeyTileStore
from millstream_tiles.writer import TileWriter

FLIGHTS = Path(__file__).parents[3] / "examples" / "flights"
NOON = from_rfc3339("2013-06-01T12:00:00Z")
BOUND = 30 * SECOND
DEPARTURE_VIEWS = {
    "origin_departures",
    "carrier_departures",
    "origin_carrier_departures",
    "dest_departures",
    "aircraft_departures",
}


class Airport:
    """Departures go into Kafka; the tiles apply them when they are told to."""

    def __init__(self, stream: str, url: str, producer: AIOKafkaProducer, features: FeastFeatures) -> None:
        self.stream = stream
        self.producer = producer
        self.features = features
        self.tiles = ValkeyTileStore(url, "millstream")
        views = [view for view in features._reader.views.values() if view.stream == stream]
        self.writer = TileWriter(self.tiles, views, TILES_GROUP)

    async def departs(self, known_at: int, partition: int = 0) -> None:
        """A record as ingest writes it; the gate looks at nothing but when it was known."""
        said = [("ce_knownat", to_rfc3339(known_at).encode())]
        value = json.dumps({"departed_at": to_rfc3339(known_at)}).encode()
        await self.producer.send_and_wait(self.stream, value, partition=partition, headers=said)

    async def apply(self, offset: int, known_at: int, partition: int = 0) -> None:
        """What features does with it."""
        times = np.array([known_at])
        keys = {"origin": ["JFK"], "dest": ["LAX"], "carrier": ["B6"], "tailnum": ["N1"], "dep_delay": [1.0]}
        await self.writer.write(
            EventBatch(
                stream=self.stream,
                partition=partition,
                start=offset,
                end=offset,
                offsets=np.array([offset]),
                event_time=times,
                known_at=times,
                ids=[f"{partition}-{offset}"],
                columns=keys,
            )
        )


@asynccontextmanager
async def airport(kafka: EmbeddedKafka, url: str, folder: Path, stream: str) -> AsyncIterator[Airport]:
    project = folder / "project"
    shutil.copytree(FLIGHTS, project, ignore=shutil.ignore_patterns("__pycache__"))
    for file, name in (("flights-departed", stream), ("flights-landed", f"{stream}-landed")):
        path = project / "streams" / f"{file}.yaml"
        path.write_text(path.read_text().replace(f"stream: {file}", f"stream: {name}"))
        await ensure_topics(kafka.bootstrap, stream_topics(name, 2, timedelta(days=9999), []))
    store = FeastStore(repo=project / "features", registry=folder / "registry.db", url=url, namespace="millstream")
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all")
    await producer.start()
    here = Airport(stream, url, producer, await store.open("delay_v1"))
    try:
        yield here
    finally:
        await producer.stop()
        await here.tiles.close()
        await store.close()


async def test_quiet_is_not_stale_and_behind_is(
    kafka: EmbeddedKafka,
    valkey: EmbeddedValkey,
    valkey_url: str,
    tmp_path: Path,
    unique_name: Callable[[str], str],
) -> None:
    gate = KafkaFreshness(WaitingRecords(kafka.bootstrap))
    async with airport(kafka, valkey_url, tmp_path, unique_name("flights-departed")) as jfk:

        async def stale(asked_at: int) -> dict[str, float]:
            (found,) = await gate.stale(jfk.features, [asked_at], BOUND)
            return found

        assert await stale(NOON) == {}, "nothing has happened yet"
        await jfk.departs(NOON)
        await jfk.apply(0, NOON)
        assert await stale(NOON + DAY) == {}, "nothing more happened for a day"

        await jfk.departs(NOON + DAY)
        assert await stale(NOON + DAY + BOUND) == {}, "within the bound"
        assert await stale(NOON + DAY + MINUTE) == dict.fromkeys(DEPARTURE_VIEWS, 60.0)
        assert await stale(NOON + DAY - HOUR) == {}, "of an hour before it was known"
        two = await gate.stale(jfk.features, [NOON + DAY, NOON + DAY + MINUTE], BOUND)
        assert two == [{}, dict.fromkeys(DEPARTURE_VIEWS, 60.0)]

        await jfk.apply(1, NOON + DAY)
        assert await stale(NOON + DAY + MINUTE) == {}
        await jfk.departs(NOON + DAY, partition=1)
        assert set(await stale(NOON + DAY + MINUTE)) == DEPARTURE_VIEWS, (
            "another partition, not one event of it applied"
        )
        await jfk.apply(0, NOON + DAY, partition=1)
        assert await stale(NOON + DAY + MINUTE) == {}

        valkey.flush()
        lost = await stale(NOON + 2 * DAY)
        assert lost == dict.fromkeys(DEPARTURE_VIEWS, 2 * 86_400.0), "as stale as the first event that is lost"
    await gate.close()


async def test_busy_questions_cost_ten_looks_a_second(
    kafka: EmbeddedKafka, valkey_url: str, tmp_path: Path, unique_name: Callable[[str], str]
) -> None:
    seconds = 0.0
    gate = KafkaFreshness(WaitingRecords(kafka.bootstrap), clock=lambda: seconds, wall=lambda: NOON)
    async with airport(kafka, valkey_url, tmp_path, unique_name("flights-departed")) as jfk:
        looks = 0
        applied = jfk.features._reader.fences_async

        async def counted(group: str) -> object:
            nonlocal looks
            looks += 1
            return await applied(group)

        jfk.features._reader.fences_async = counted
        for number in range(1_000):
            seconds = number / 1_000
            await gate.stale(jfk.features, [NOON + number * 1_000], BOUND)
    await gate.close()
    assert looks <= 1 / LOOK_EVERY
