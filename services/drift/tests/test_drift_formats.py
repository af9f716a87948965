"""Drift on a label stream in Avro, with a real Kafka: labels whose schema comes late, and one whose schema never comes."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import fastavro
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from millstream.codecs.wire import framed
from millstream.contracts.dead_letters import letter_of
from millstream.contracts.envelope import Envelope
from millstream.contracts.topics import dead_letter_topic
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.registry_server import RegistryServer

from .drift_kit import JUNE, Desk, Topics, World
from .drift_process import Verdicts, announce, announcement, drift, make_topics, save_package, send, write_project
from .test_drift_connected import records, told

pytestmark = [pytest.mark.connected, pytest.mark.timeout(300)]

FIELDS: list[dict[str, Any]] = [
    {"name": "flight_id", "type": "string"},
    {"name": "landed_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "arr_delay", "type": ["null", "double"], "default": None},
]
LANDED = json.dumps({"type": "record", "name": "Landed", "fields": FIELDS})
NEWER = json.dumps({"type": "record", "name": "Landed", "fields": [*FIELDS, {"name": "gate", "type": "int"}]})


def avro(id: int, schema: str, event: dict[str, Any]) -> bytes:
    out, at = io.BytesIO(), datetime.fromisoformat(event["landed_at"])
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(schema)), event | {"landed_at": at, "gate": 7})
    return framed(id, out.getvalue())


async def test_labels_of_an_unknown_schema_wait_for_it_and_one_is_a_letter_where_it_never_comes(
    kafka: EmbeddedKafka, valkey_url: str, unique_name: Callable[[str], str], tmp_path: Path
) -> None:
    loop = unique_name("delay")
    landed, folder = f"{loop}-landed", tmp_path / "project"
    write_project(folder, loop)
    stream = json.loads((folder / f"streams/{landed}.yaml").read_text())
    said = stream | {"format": "avro", "schema": {"file": "landed.avsc"}}
    (folder / f"streams/{landed}.yaml").write_text(json.dumps(said))
    (folder / "streams/landed.avsc").write_text(LANDED)
    await make_topics(kafka.bootstrap, loop)
    await announce(kafka.bootstrap, announcement(loop, save_package(tmp_path / "packages", "1")))
    world = World().hours(JUNE, 20)
    expected = (await (await Desk(Topics().add(world.said)).start()).read_all()).speaker.said
    verdicts = Verdicts(kafka.bootstrap, loop)
    with RegistryServer().running() as registry:
        known = registry.register(f"{landed}-value", LANDED)
        in_json = records(world.said, loop)
        late = next(n for n in reversed(range(len(in_json))) if in_json[n][0] == landed)
        sent = []
        for number, (topic, key, value, envelope) in enumerate(in_json):
            if topic == landed:
                event = json.loads(value)
                value = avro(77, NEWER, event) if number == late else avro(known, LANDED, event)
            sent.append((topic, key, value, envelope))
        await _never(kafka.bootstrap, landed, avro(78, NEWER, event))
        settings: dict[str, Any] = {
            "kafka": kafka.bootstrap,
            "valkey": valkey_url,
            "namespace": loop,
            "project": folder,
            "packages": tmp_path / "packages",
            "data": tmp_path / "data",
            "schema_registry": registry.url,
            "schema_patience": 100,
        }
        async with drift(**settings):
            await send(kafka.bootstrap, sent)
            async with asyncio.timeout(100):
                while registry.asked.count("GET /schemas/ids/77") < 3:  # noqa: ASYNC110 - the registry's thread
                    await asyncio.sleep(0.01)
            registry.register(f"{landed}-value", NEWER, id=77)
            await verdicts.until(len(expected))
            letter = await _letter(kafka.bootstrap, dead_letter_topic(landed, "drift"))

    assert [told(event) for event in verdicts.effective.values()] == [told(event) for event in expected]
    assert letter is not None
    assert (letter.reason, letter.producer, "78" in letter.detail) == ("unknown_schema", "/gates/jfk", True)


async def _never(bootstrap: str, topic: str, value: bytes) -> None:
    """One that has lain there for nearly as long as anybody waits for its schema."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    try:
        headers = Envelope(id="never", type="landed", source="/gates/jfk", known_at=JUNE).headers()
        at = round((time.time() - 99.0) * 1000)
        await producer.send_and_wait(topic, value, key=b"never", headers=headers, timestamp_ms=at)
    finally:
        await producer.stop()


async def _letter(bootstrap: str, topic: str) -> Any:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        async with asyncio.timeout(60):
            return letter_of(await consumer.getone())
    finally:
        await consumer.stop()
