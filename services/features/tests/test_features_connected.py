"""Features as its own process on a real Kafka and a real Valkey: events in, tiles and lake rows out, junk set aside."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from millstream.contracts.topics import dead_letter_topic
from millstream.project import load_project
from millstream.runtime.topic_admin import ensure_topics, stream_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.ports import free_port
from millstream.testing.valkey import EmbeddedValkey
from millstream_features.subscribers import LAKE, TILES
from millstream_tiles.lake import Lake
from millstream_tiles.lake_reader import read_events

pytestmark = pytest.mark.timeout(300)  # each starts processes that import Feast, 20 s on a busy machine
FLIGHTS = Path(__file__).parents[3] / "examples" / "flights"
DEPARTED = "flights-departed"
NOON_MS = 1_370_088_000_000
"""2013-06-01 12:00 UTC as Kafka's timestamps are: a stranger's record without headers is known when Kafka got it."""


def departure(number: int, at: str = "2013-06-01T11:30:00Z") -> bytes:
    """The `number`th flight of B6 out of JFK, `number` minutes late."""
    flight = {"flight_id": f"B6-{number}", "departed_at": at, "tailnum": f"N{number}", "carrier": "B6"}
    return json.dumps(flight | {"origin": "JFK", "dest": "LAX", "dep_delay": float(number)}).encode()


JUNK = [
    (b"\xff\xfe no text", b"bad_json"),
    (b"{", b"bad_json"),
    (b"", b"bad_json"),
    (b"[" * 64 + b"]" * 64, b"schema"),
    (departure(8)[:-1] + b', "extra": ' + b"[" * 100 + b"]" * 100 + b"}", b"too_deep"),
    (b"[" * 100_000 + b"]" * 100_000, b"too_deep"),
    (b'{"flight_id": "B6-9"}', b"schema"),
    (b'{"flight_id": "' + b"x" * 900_000 + b'"}', b"schema"),
    (departure(9, at="2013-06-01T12:06:00Z"), b"too_early"),
]


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """Its own: the topics have the names of the example, and whoever made them first in a Kafka of all tests says how long
    records of 2013 are kept."""
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka")).running() as server:
        yield server


@pytest.fixture
async def environment(kafka: EmbeddedKafka, valkey_url: str, tmp_path: Path) -> dict[str, str]:
    for name, stream in load_project(FLIGHTS).streams.items():
        await ensure_topics(
            kafka.bootstrap, stream_topics(name, stream.partitions, timedelta(days=9999), [TILES, LAKE])
        )
    return {
        "MILLSTREAM_KAFKA": kafka.bootstrap,
        "MILLSTREAM_VALKEY": valkey_url,
        "MILLSTREAM_PROJECT": str(FLIGHTS),
        "MILLSTREAM_LAKE": str(tmp_path / "lake"),
        "MILLSTREAM_DATA": str(tmp_path / "data"),
        "MILLSTREAM_SESSION_TIMEOUT_MS": "6000",
    }


class Process:
    """One `python -m millstream_features`."""

    def __init__(self, child: asyncio.subprocess.Process, address: str) -> None:
        self.child = child
        self.http = httpx.AsyncClient(base_url=address, timeout=30.0)

    async def shows(self, text: str) -> None:
        """Wait until /readyz has `text` in it."""
        async with asyncio.timeout(120):
            while True:
                try:
                    if text in (await self.http.get("/readyz")).text:
                        return
                except httpx.TransportError:
                    assert self.child.returncode is None, "features ended"
                await asyncio.sleep(0.05)

    async def flights(self, origin: str = "JFK") -> int:
        """Departures out of `origin` in the hour before noon, as the online store has them; -1 while it is late to answer."""
        asked = {"features": ["origin_departures:flights_1h"], "entities": {"origin": [origin]}}
        answer = await self.http.post("/get-online-features", json=asked | {"as_of": "2013-06-01T12:00:00Z"})
        if answer.status_code == 503:
            return -1
        assert answer.status_code == 200, answer.text
        names = answer.json()["metadata"]["feature_names"]
        return int(answer.json()["results"][names.index("flights_1h")]["values"][0])

    async def has_come_to(self, *times: tuple[str, str | None]) -> None:
        """Wait until nothing waits for these views, which are at their times then. The last record may be one that was told
        twice, so what the windows count does not say that it was read."""
        async with asyncio.timeout(60):
            while True:
                answer = await self.http.get("/v1/views")
                said = {one["view"]: one for one in answer.json().get("views", ())}
                if said and all(said[view]["waits_since"] is None for view, _ in times):
                    break
                await asyncio.sleep(0.05)
        assert [(view, said[view]["stream_time"]) for view, _ in times] == [*times]


@asynccontextmanager
async def features(environment: dict[str, str]) -> AsyncIterator[Process]:
    port = free_port()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "millstream_features", env=os.environ | environment | {"MILLSTREAM_PORT": str(port)}
    )
    process = Process(child, f"http://127.0.0.1:{port}")
    try:
        yield process
    finally:
        await process.http.aclose()
        if child.returncode is None:
            child.kill()
            await child.wait()


async def send(bootstrap: str, values: list[bytes]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    try:
        for value in values:
            await producer.send_and_wait(DEPARTED, value, key=b"stranger", timestamp_ms=NOON_MS)
    finally:
        await producer.stop()


async def dead_letters(bootstrap: str, group: str, count: int) -> list[tuple[bytes, bytes]]:
    """(value, reason) of the first `count` dead letters of a group."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        place = TopicPartition(dead_letter_topic(DEPARTED, group), 0)
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        async with asyncio.timeout(60):
            found = [await consumer.getone() for _ in range(count)]
        return [(record.value or b"", dict(record.headers)["millstream-dlq-reason"]) for record in found]
    finally:
        await consumer.stop()


async def test_strangers_write_to_kafka_and_a_kill_repeats_nothing(
    kafka: EmbeddedKafka, valkey: EmbeddedValkey, environment: dict[str, str]
) -> None:
    valkey.stop()
    try:
        async with features(environment) as process:
            await process.shows("Valkey does not answer, check MILLSTREAM_VALKEY")
            valkey.start()
            await process.shows('"ready":true')

            await send(kafka.bootstrap, [departure(1), *(value for value, _ in JUNK), departure(2), departure(1)])
            for group in (TILES, LAKE):
                assert await dead_letters(kafka.bootstrap, group, len(JUNK)) == JUNK
            await until(process, 2)
            await strangers_ask(process.http)
            await process.has_come_to(("origin_departures", "2013-06-01T12:00:00Z"), ("origin_landings", None))
            process.child.kill()
            await process.child.wait()
    finally:
        if not valkey.processes[0].alive():
            valkey.start()

    await send(kafka.bootstrap, [departure(3), departure(2)])
    async with features(environment) as process:
        await process.shows('"ready":true')
        await until(process, 3)
        lake = Lake(environment["MILLSTREAM_LAKE"])
        await asyncio.to_thread(lake.wait_for, DEPARTED, LAKE, {0: len(JUNK) + 4}, timeout=60)
        valkey.flush()
        await until(process, 3)  # and nothing new came
        process.child.terminate()
        assert await process.child.wait() == 0
    rows = read_events(lake, DEPARTED, ["flight_id", "_offset"])
    # A repeated id is one event in every window and stays what it is in the history: two records.
    assert rows["flight_id"].to_list() == ["B6-1", "B6-2", "B6-1", "B6-3", "B6-2"]
    assert rows["_offset"].is_unique().all()


@pytest.mark.parametrize(
    ("right", "wrong"), [('"dep_delay"', '"dep_dely"'), ("def mean_delay(", "def mean_dely(")], ids=["field", "code"]
)
async def test_a_feast_repo_that_does_not_fit_stops_the_service(
    environment: dict[str, str], tmp_path: Path, right: str, wrong: str
) -> None:
    broken = tmp_path / "project"
    shutil.copytree(FLIGHTS, broken)
    definitions = broken / "features" / "definitions.py"
    definitions.write_text(definitions.read_text().replace(right, wrong, 1))
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "millstream_features",
        env=os.environ | environment | {"MILLSTREAM_PROJECT": str(broken)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(180):
        said, _ = await child.communicate()
    assert child.returncode == 2, "as for every setting that only a person can mend"
    assert b"definitions.py:" in said
    assert b"did you mean 'dep_delay'" in said or b"'mean_delay' is not defined" in said
    assert b"Traceback" not in said


async def strangers_ask(http: httpx.AsyncClient) -> None:
    """Over a real connection: a null entity, 2 MiB, the ends of the calendar, all told what they are."""
    door, asked = "/get-online-features", {"features": ["origin_departures:flights_1h"]}
    answer = await http.post(door, json=asked | {"entities": {"origin": ["JFK", None]}})
    assert (answer.status_code, answer.json()["error"]) == (422, "bad_entities")
    answer = await http.post(door, json=asked | {"entities": {"origin": ["x" * 2 * 1024 * 1024]}})
    assert (answer.status_code, answer.json()["error"]) == (413, "body_too_large")
    for as_of, status in (("0001-01-01T00:00:00+05:00", 422), ("9999-12-31T23:59:59Z", 200)):
        answer = await http.post(door, json=asked | {"entities": {"origin": ["JFK", 7, True]}, "as_of": as_of})
        assert answer.status_code == status, answer.text


async def until(process: Process, flights: int, origin: str = "JFK") -> None:
    """Wait until the online store counts so many flights; more would be one too often."""
    async with asyncio.timeout(60):
        while (found := await process.flights(origin)) < flights:  # noqa: ASYNC110  another process decides
            await asyncio.sleep(0.05)
    assert found == flights


async def test_a_cluster_is_written_and_read_as_one_server_is(
    kafka: EmbeddedKafka, valkey_cluster_url: str, environment: dict[str, str]
) -> None:
    """It is empty, wherever the group's commits are: the worker goes back to the log's start and fills it."""
    there = environment | {"MILLSTREAM_VALKEY": valkey_cluster_url, "MILLSTREAM_SHARDS": "6"}
    await send(kafka.bootstrap, [departure(number).replace(b"JFK", b"EWR") for number in (70, 71)])
    async with features(there) as process:
        await process.shows('"ready":true')
        await until(process, 2, "EWR")
