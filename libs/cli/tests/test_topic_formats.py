"""Commands that read topics read every format: what a rebuild and a skew explanation fetch from a stream in Avro."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from millstream.codecs.wire import framed
from millstream.errors import BadSetup
from millstream.project import Stream
from millstream.runtime.codecs import Codecs
from millstream.runtime.schema_registry import RegistrySettings
from millstream.runtime.topic_admin import TopicSpec, ensure_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.registry_server import RegistryServer
from millstream_cli.errors import Stuck
from millstream_cli.lost_events import lost_events
from millstream_cli.topic_log import TopicLog

TIME = {"type": "long", "logicalType": "timestamp-micros"}
FIELDS = [{"name": "flight_id", "type": "string"}, {"name": "departed_at", "type": TIME}]
AVSC = {"type": "record", "name": "Departed", "fields": FIELDS}


def departures(folder: Path, name: str) -> Stream:
    (folder / "departed.avsc").write_text(json.dumps(AVSC))
    said = {
        "stream": name,
        "description": "A flight left the gate.",
        "key": "flight_id",
        "id": "flight_id",
        "time": "departed_at",
        "format": "avro",
        "schema": {"file": "departed.avsc"},
    }
    return Stream.model_validate(said, context={"folder": folder})


@pytest.mark.connected
async def test_events_in_avro_are_read_from_their_topic(
    kafka: EmbeddedKafka, unique_name: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = departures(tmp_path, unique_name("departed"))
    await ensure_topics(kafka.bootstrap, [TopicSpec(name=stream.name, partitions=1, retention=timedelta(days=9999))])
    with RegistryServer().running() as registry:
        monkeypatch.setenv("MILLSTREAM_SCHEMA_REGISTRY", registry.url)
        monkeypatch.setenv("MILLSTREAM_SCHEMA_PATIENCE", "0")
        codecs = Codecs({stream.name: stream}, RegistrySettings.of_environment())
        await codecs.register()
        await codecs.close()
        event = {"departed_at": "2013-06-01T12:00:00Z"}
        values = [codecs[stream.name].encode(event | {"flight_id": f"F{n}"}) for n in range(3)]
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all")
        await producer.start()
        nameless = codecs[stream.name].encode(event | {"flight_id": ""})
        for value in (values[0], b"no frame", framed(99, values[1][5:]), values[2], nameless):
            await producer.send_and_wait(stream.name, value)
        await producer.stop()

        async with TopicLog(kafka.bootstrap, {stream.name: stream}, [], []) as topics:
            await topics.partitions(stream.name)
            async with asyncio.timeout(30):
                while not (batches := await topics.read(stream.name, {0: 0})):  # one poll waits for moments
                    pass
            (batch,) = batches
        lost = await lost_events(kafka.bootstrap, stream, {0: [0, 1, 2, 3]})
        registry.away = True
        with pytest.raises(Stuck, match=r"the schema registry at .* answers 503"):
            await lost_events(kafka.bootstrap, stream, {0: [0]})

    assert list(batch.ids or ()) == ["F0", "F2"]
    assert [one.columns["flight_id"] for one in lost] == ["F0", "F2"]


def test_without_an_address_the_command_says_what_to_set(tmp_path: Path) -> None:
    stream = departures(tmp_path, "flights-departed")
    with pytest.raises(BadSetup, match="stream flights-departed is in avro: set MILLSTREAM_SCHEMA_REGISTRY"):
        TopicLog("127.0.0.1:1", {stream.name: stream}, [], [])
