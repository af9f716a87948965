"""What every registry with Confluent's REST API has to answer alike: the tests' own, and one of yours.

`MILLSTREAM_TEST_REGISTRY=http://localhost:8081 pytest …` asks a real one (Karapace, Confluent's, Apicurio's `ccompat/v7`);
it is left with some subjects that begin with `millstream-test-`. Confluent's client, which knows the published API alone, is
asked beside ours.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import message_factory

from millstream.codecs.codec import Registered
from millstream.codecs.proto_schema import ProtoSchema
from millstream.project import Stream
from millstream.runtime.codecs import Codecs
from millstream.runtime.records import Batch
from millstream.runtime.schema_registry import RegistrySettings, SchemaRegistry
from millstream.testing.registry_server import JSON_TYPE, RegistryServer

from .formats_story import AVSC, DEPARTURE, FLOWN, stream_of
from .test_runtime_codecs import Told

KIND = {"type": "enum", "name": "Kind", "namespace": "flights", "symbols": ["PASSENGER", "CARGO"]}


@pytest.fixture(params=["the tests' own", "yours"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "yours":
        if "MILLSTREAM_TEST_REGISTRY" not in os.environ:
            pytest.skip("MILLSTREAM_TEST_REGISTRY names no registry")
        yield os.environ["MILLSTREAM_TEST_REGISTRY"].rstrip("/")
        return
    with RegistryServer().running() as server:
        yield server.url


@pytest.fixture
def subject() -> str:
    return f"millstream-test-{uuid.uuid4().hex[:8]}"


def departures(folder: Path, format: str, name: str) -> Stream:
    return stream_of(folder, format).model_copy(update={"stream": name})


def batch(topic: str, raw: bytes) -> Batch:
    return Batch(topic, 0, 0, 0, [Told(raw, topic=topic)])


async def test_what_confluents_avro_serializer_wrote_is_read_and_the_other_way_round(
    url: str, subject: str, tmp_path: Path
) -> None:
    made = Codecs({subject: departures(tmp_path, "avro", subject)}, RegistrySettings(schema_registry=url))
    to = SerializationContext(subject, MessageField.VALUE)
    await made.register()
    with SchemaRegistryClient({"url": url}) as client:
        back = AvroDeserializer(client)(made[subject].encode(DEPARTURE), to)
        raw = AvroSerializer(client, json.dumps(AVSC))(back, to)
        assert client.get_latest_version(f"{subject}-value").version == 1

    await made.prepare(batch(subject, raw))
    assert made[subject].decode(raw) == DEPARTURE
    await made.close()


async def test_what_confluents_protobuf_serializer_wrote_is_read(url: str, subject: str, tmp_path: Path) -> None:
    stream = departures(tmp_path, "protobuf", subject)
    wire = stream.wire
    assert isinstance(wire, ProtoSchema)
    kind: Any = message_factory.GetMessageClass(wire.descriptor())
    made = Codecs({subject: stream}, RegistrySettings(schema_registry=url))
    to = SerializationContext(subject, MessageField.VALUE)
    await made.register()
    ours = made[subject].encode(FLOWN)
    # Were it to register by itself, it would send a serialized descriptor, which only a real registry makes text of.
    said = {"use.deprecated.format": False, "auto.register.schemas": False, "use.latest.version": True}
    with SchemaRegistryClient({"url": url}) as client:
        theirs = ProtobufSerializer(kind, client, said)(kind.FromString(ours[7:]), to)
        back = ProtobufDeserializer(kind, {"use.deprecated.format": False})(ours, to)

    assert theirs == ours
    assert back == kind.FromString(ours[7:])
    await made.prepare(batch(subject, theirs))
    assert made[subject].decode(theirs) == FLOWN
    await made.close()


async def test_a_schema_keeps_its_id_and_an_id_that_is_none_is_told(url: str, subject: str) -> None:
    registry = SchemaRegistry(RegistrySettings(schema_registry=url))
    schema = Registered(kind="AVRO", text=json.dumps(AVSC))
    id = await registry.id_of(subject, schema)

    assert await registry.id_of(subject, schema) == id
    found = await registry.schema(id)
    assert found is not None
    assert (found.kind, json.loads(found.text)["name"]) == ("AVRO", "Departed")
    assert await registry.schema(2**30) is None
    await registry.close()


async def test_what_a_schema_refers_to_comes_with_it(url: str, subject: str) -> None:
    fields = [{"name": "kind", "type": "flights.Kind"}]
    departed = {"type": "record", "name": "Departed", "namespace": "flights", "fields": fields}
    referring = {"references": [{"name": "flights.Kind", "subject": f"{subject}-kinds", "version": 1}]}
    async with httpx.AsyncClient(base_url=url, headers={"content-type": JSON_TYPE}) as http:
        kinds = await http.post(f"/subjects/{subject}-kinds/versions", json={"schema": json.dumps(KIND)})
        kinds.raise_for_status()
        answer = await http.post(f"/subjects/{subject}/versions", json={"schema": json.dumps(departed)} | referring)

    registry = SchemaRegistry(RegistrySettings(schema_registry=url))
    found = await registry.schema(answer.raise_for_status().json()["id"])
    assert found is not None
    [(name, kind)] = found.references
    assert (name, json.loads(kind.text)["symbols"]) == ("flights.Kind", KIND["symbols"])
    await registry.close()
