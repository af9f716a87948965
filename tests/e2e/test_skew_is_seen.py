"""Somebody alters a tile, somebody loses an event: the metric rises, a verdict is said, and the table names what happened."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from deltalake import DeltaTable
from typer.testing import CliRunner

from millstream.contracts.envelope import Envelope, derived_id
from millstream.contracts.events import Finding, PredictionServed, SkewJudged, decode_event
from millstream.contracts.times import MINUTE, from_rfc3339, to_datetime, to_rfc3339
from millstream.contracts.topics import PREDICTIONS, SKEW
from millstream.project import load_project
from millstream.runtime.topic_admin import ensure_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.ports import free_port
from millstream.testing.process import ManagedProcess
from millstream.testing.valkey import EmbeddedValkey
from millstream.testing.waiting import wait_until
from millstream_cli.main import app
from millstream_cli.topics import topics_of

FLIGHTS = Path(__file__).parents[2] / "examples" / "flights"
NOON = from_rfc3339("2013-06-01T12:00:00Z")
KEY = {"dest": "LAX", "carrier": "B6", "tailnum": "N1"}

pytestmark = [pytest.mark.connected, pytest.mark.timeout(400)]


class SmallMill:
    """A real features process with its lake, and a scorer that logs what it reads online."""

    def __init__(self, kafka: str, valkey: str, folder: Path) -> None:
        self.kafka, self.valkey, self.lake = kafka, valkey, str(folder / "lake")
        self.project = folder / "project"
        shutil.copytree(FLIGHTS, self.project, ignore=shutil.ignore_patterns("__pycache__"))
        loop = self.project / "loops" / "flight-delay.yaml"
        # Every prediction of half a second, so that a test sees all of them checked.
        loop.write_text(loop.read_text().replace("  psi: 0.2\n", "  psi: 0.2\n  skew: { sample: 6000, bound: 2% }\n"))
        self.http = f"http://127.0.0.1:{free_port()}"
        self.process = ManagedProcess(
            "features",
            [sys.executable, "-m", "millstream_features"],
            log=folder / "features.log",
            env=os.environ
            | {
                "MILLSTREAM_KAFKA": kafka,
                "MILLSTREAM_VALKEY": valkey,
                "MILLSTREAM_PROJECT": str(self.project),
                "MILLSTREAM_LAKE": self.lake,
                "MILLSTREAM_DATA": str(folder / "data"),
                "MILLSTREAM_PORT": self.http.rpartition(":")[2],
                "MILLSTREAM_SKEW_EVERY": "0.5",
            },
            ready=lambda: self.get("/readyz") is not None,
            ready_within=150,
        )

    def get(self, path: str) -> str | None:
        try:
            answer = httpx.get(self.http + path, timeout=5)
        except httpx.TransportError:
            return None
        return answer.text if answer.status_code == 200 else None

    def metric(self, name: str) -> float:
        """Sum over the labels of one of the service's metrics."""
        lines = (self.get("/metrics") or "").splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def reaches(self, name: str, value: float) -> None:
        """Wait for a metric; more than `value` is wrong, too."""
        seen = 0.0

        def there() -> bool:
            nonlocal seen
            seen = self.metric(name)
            return seen >= value

        wait_until(there, within=60, what=f"{name} to reach {value}")
        assert seen == value

    def departs(self, flights: list[tuple[str, str, int, float]]) -> None:
        """(id, origin, minutes before noon, delay): known a minute later, and applied when this returns."""
        wanted = self.metric("millstream_events_applied_total") + len(flights)
        records = []
        for id, origin, minutes, delay in flights:
            at = NOON - minutes * MINUTE
            event = KEY | {"flight_id": id, "departed_at": to_rfc3339(at), "origin": origin, "dep_delay": delay}
            headers = Envelope(id=id, type="departed", source="test", known_at=at + MINUTE).headers()
            records.append(("flights-departed", b"N1", json.dumps(event).encode(), headers))
        asyncio.run(self._send(records))
        self.reaches("millstream_events_applied_total", wanted)

    def predicts(self, origin: str, minutes: range, round: str) -> None:
        """Answer a question at each of these minutes before noon with what is online, and log it as serving does."""
        records = []
        for minute in minutes:
            t = NOON - minute * MINUTE
            entities = KEY | {"origin": origin}
            id = derived_id(round, origin, str(minute))
            served = PredictionServed(
                id=id,
                loop="flight-delay",
                question=f"{round}-{minute}",
                key=id,
                asked_at=to_datetime(t),
                version="1",
                variant="champion",
                transport="kafka",
                entities=dict(entities),
                inputs={},
                features=self._online(entities, t),
                output={"probability": 0.5},
                timings_ms={},
            )
            headers = Envelope(id=id, type=PredictionServed.type_name, source="test").headers()
            records.append((PREDICTIONS.name, b"k", served.encode(), headers))
        asyncio.run(self._send(records))

    def _online(self, entities: dict[str, str], t: int) -> dict[str, Any]:
        body = {
            "feature_service": "delay_v1",
            "full_feature_names": True,
            "as_of": to_rfc3339(t),
            "entities": {k: [v] for k, v in entities.items()},
        }
        answer = httpx.post(f"{self.http}/get-online-features", json=body, timeout=10).json()
        names, results = answer["metadata"]["feature_names"], answer["results"]
        return {n: r["values"][0] for n, r in zip(names, results, strict=True) if n not in entities}

    async def _send(self, records: list[tuple[str, bytes, bytes, list[tuple[str, bytes]]]]) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.kafka, acks="all")
        await producer.start()
        try:
            for topic, key, value, headers in records:
                await producer.send_and_wait(topic, value, key=key, headers=headers)
        finally:
            await producer.stop()

    async def verdict(self) -> SkewJudged:
        """The first one said."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.kafka, auto_offset_reset="earliest")
        await consumer.start()
        try:
            place = TopicPartition(SKEW.name, 0)
            consumer.assign([place])
            await consumer.seek_to_beginning(place)
            async with asyncio.timeout(60):
                record = await consumer.getone()
        finally:
            await consumer.stop()
        event = decode_event(dict(record.headers)["ce_type"].decode(), record.value or b"")
        assert isinstance(event, SkewJudged)
        return event

    def runs(self, *args: str) -> tuple[int, str]:
        """Exit status and output of a `millstream` command that is pointed at this mill."""
        where = ["--project", str(self.project), "--lake", self.lake, "--valkey", self.valkey]
        done = CliRunner().invoke(app, [*args, *where], env={"COLUMNS": "200"})
        return done.exit_code, done.output

    def skew(self, *args: str) -> tuple[int, dict[str, Any]]:
        status, said = self.runs("skew", "flight-delay", "--kafka", self.kafka, "--json", *args)
        return status, json.loads(said)


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallMill]:
    """With servers of its own: other tests count what is in the session's topics."""
    folder = tmp_path_factory.mktemp("mill")
    with EmbeddedKafka(folder / "kafka").running() as kafka, EmbeddedValkey(folder / "valkey").running() as valkey:
        asyncio.run(ensure_topics(kafka.bootstrap, topics_of(load_project(FLIGHTS), partitions=1)))
        small = SmallMill(kafka.bootstrap, valkey.url, folder)
        small.process.launch()
        try:
            small.process.wait_ready()
            small.departs([(f"F{n}", ("JFK", "LGA")[n % 2], 120 - n, float(n)) for n in range(100)])
            yield small
        finally:
            small.process.terminate(grace=20)


@contextmanager
def altered_tile(valkey: str, view: str, entity: str) -> Iterator[int]:
    """The newest tile of an entity holds twice of everything meanwhile; its index."""
    client = redis.Redis.from_url(valkey)
    [key] = set(client.scan_iter(f"*:tile:{view}:*:{entity}"))  # a scan may say a key twice
    field, raw = max(client.hgetall(key).items(), key=lambda item: struct.unpack("<d", item[0]))
    index, *parts = struct.unpack(f"<{len(raw) // 8}d", raw)
    client.hset(key, field, struct.pack(f"<{len(raw) // 8}d", index, *(2 * part for part in parts)))
    try:
        yield int(index)
    finally:
        client.hset(key, field, raw)
        client.close()


@contextmanager
def invented_key(valkey: str, view: str, entity: str, name: str) -> Iterator[None]:
    """Tiles of `entity` lie under `name`, too, of which nobody ever said anything."""
    client = redis.Redis.from_url(valkey)
    [key] = set(client.scan_iter(f"*:tile:{view}:*:{entity}"))  # a scan may say a key twice
    invented = key.removesuffix(entity.encode()) + name.encode()
    client.copy(key, invented)
    try:
        yield
    finally:
        client.delete(invented)
        client.close()


def test_a_fault_on_either_side_is_measured_judged_and_explained(mill: SmallMill) -> None:
    mill.predicts("JFK", range(15, 0, -1), "good")
    mill.predicts("LGA", range(15, 0, -1), "good")
    mill.reaches("millstream_skew_checked_total", 30)
    assert mill.metric("millstream_skew_differing_total") == 0
    status, found = mill.skew()
    assert (status, found["checked"], found["differing"], found["rows"]) == (0, 30, 0, [])
    assert found["values"] > 100

    with altered_tile(mill.valkey, "origin_departures", "JFK") as index:
        mill.predicts("JFK", range(10, 0, -1), "altered")
        verdict = asyncio.run(mill.verdict())
        status, found = mill.skew("--rows", "2")
        _, table = mill.runs("skew", "flight-delay", "--kafka", mill.kafka, "--rows", "2")
        _, explained = mill.runs(
            "features", "explain", "origin_departures", "JFK", "--at", "2013-06-01T12:00", "--json"
        )
    assert verdict.finding is Finding.DETECTED
    assert verdict.loop == "flight-delay"
    assert verdict.worst[0].question.startswith("altered-")
    assert {v.view for v in verdict.views if v.differing} == {"origin_departures"}
    mill.reaches(
        "millstream_skew_differing_total", 10
    )  # five of them are a verdict, and it comes before the rest is checked
    mill.reaches("millstream_skew_verdicts_total", 1)
    start = to_rfc3339(index * 10 * MINUTE)
    assert (status, found["kept"], found["differing"]) == (1, False, 10)
    for row in found["rows"]:
        assert row["feature"].startswith("origin_departures__")
        assert row["offline"] == pytest.approx(row["recounted"])
        assert row["online"] != pytest.approx(row["offline"])
        [tile] = row["tiles"]
        assert tile["start"] == start
        assert tile["online"] != tile["by_events"] or tile["sums"][0] == 2 * tile["sums"][1]
    assert "flight-delay: 10 of 40 predictions differ" in table
    assert f"tile {start} to " in table

    one = next(f for f in json.loads(explained)["features"] if f["name"] == "flights_1h")
    [tile] = [t for t in one["tiles"] if t["start"] == start]
    assert tile["online"] == 2 * tile["recounted"] == 2 * len(tile["events"])
    assert one["online"] == one["offline"] + tile["recounted"]

    DeltaTable(f"{mill.lake}/flights-departed").delete("flight_id = 'F97'")
    mill.predicts("LGA", range(6, 0, -1), "lost")
    mill.reaches("millstream_skew_differing_total", 16)
    status, found = mill.skew("--rows", "30", "--since", "2013-06-01T11:54:00")
    row = next(r for r in found["rows"] if r["question"].startswith("lost-") and r["feature"].endswith("flights_1h"))
    assert status == 1
    assert row["online"] == row["recounted"] == row["offline"] + 1
    assert (row["explanation"], [e["id"] for e in row["lost"]]) == ("agrees", ["F97"])


def test_a_key_is_explained_and_a_wrong_name_is_told_which_are_right(mill: SmallMill) -> None:
    for args, said in (
        (["origin_departure", "JFK"], "did you mean 'origin_departures'?"),
        (["origin_carrier_departures", "JFK"], "write origin=VALUE carrier=VALUE"),
        (["origin_departures", "JFK", "--feature", "flights"], "did you mean 'flights_1h'?"),
        (["origin_departures", "JKF", "--at", "2013-06-01T12:00"], "did you mean 'JFK'?"),
    ):
        status, output = mill.runs("features", "explain", *args)
        assert (status, said in output) == (1, True), output
    status, output = mill.runs("features", "explain", "origin_departures", "origin=JFK", "--feature", "flights_1h")
    assert status == 0
    assert "flights_1h: count of dep_delay over 1h by 10m" in output
    assert "✓" in output
    assert "F98" in output
    status, output = mill.runs("features", "explain", "origin_departures", "JFK", "--at", "2013-06-04T12:00")
    assert (status, "the lake has events of this key at other times" in output) == (0, True), output
    assert "online 0  offline 0  recount 0  ✓" in output
    with invented_key(mill.valkey, "origin_departures", "JFK", "ZZZ"):
        status, output = mill.runs(
            "features", "explain", "origin_departures", "ZZZ", "--at", "2013-06-01T12:00", "--feature", "flights_1h"
        )
        later, quiet = mill.runs("features", "explain", "origin_departures", "ZZZ", "--at", "2013-06-04T12:00")
    assert (status, "and the online store holds tiles of this key" in output) == (0, True), output
    assert "they differ" in output
    assert "no event in the lake" in output
    assert (later, "and the online store holds tiles of this key" in quiet) == (0, True), quiet
    status, output = mill.runs("features", "explain", "origin_departures", "ZZZ", "--at", "2013-06-01T12:00")
    assert (status, "no origin_departures of 'ZZZ'; known: JFK, LGA" in output) == (1, True), output
    status, output = mill.runs("skew", "flight-dely", "--kafka", mill.kafka)
    assert (status, "did you mean 'flight-delay'?" in output) == (1, True), output
