"""Streams in Avro and protobuf, written by Confluent's serializers: the same features as the same events in JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import json_format, message_factory

from millstream.codecs.proto_schema import ProtoSchema, read_proto
from millstream.codecs.wire import framed
from millstream.contracts.topics import dead_letter_topic
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.registry_server import RegistryServer
from millstream_features.subscribers import LAKE, TILES
from millstream_tiles.lake import Lake
from millstream_tiles.lake_reader import read_events

from .features_airfield import JSON, Field, Sent, airfield

pytestmark = pytest.mark.connected

AVSC = json.dumps(
    {
        "type": "record",
        "name": "Departed",
        "fields": [
            {"name": "flight_id", "type": "string"},
            {"name": "departed_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "tailnum", "type": ["null", {"type": "string", "logicalType": "uuid"}], "default": None},
            {"name": "origin", "type": {"type": "enum", "name": "Origin", "symbols": ["EWR", "JFK"]}},
            {"name": "gate", "type": ["null", "int"], "default": None},
            {"name": "delay", "type": ["null", "double"], "default": None},
            {"name": "seats", "type": "int", "default": 0},
            {"name": "fare", "type": {"type": "bytes", "logicalType": "decimal", "precision": 8, "scale": 2}},
        ],
    }
)
PROTO = """
syntax = "proto3";
import "google/protobuf/timestamp.proto";
enum Origin { EWR = 0; JFK = 1; }
message Departed {
  string flight_id = 1;
  google.protobuf.Timestamp departed_at = 2;
  optional string tailnum = 3;
  Origin origin = 4;
  optional int64 gate = 5;
  optional double delay = 6;
  int32 seats = 7;
  double fare = 8;
}
message Landed { string flight_id = 1; }
"""
TAILS = [str(UUID(int=n)) for n in range(3)]
FLIGHTS = [
    {
        "flight_id": f"F{n}",
        "departed_at": f"2013-06-01T11:{10 + n}:00.500Z",
        "tailnum": TAILS[n % 3],
        "origin": "JFK" if n < 7 else "EWR",
        "gate": n % 2 or None,
        "delay": None if n == 4 else n * 1.5,
        "seats": 100 + n,
        "fare": 129.99 + n,
    }
    for n in range(9)
]
ROWS = [{"tailnum": tail, "origin": origin, "gate": 1} for tail in TAILS for origin in ("EWR", "JFK")]
"""By a key that is a UUID, and one that is an enum, where the format has them."""
SERVICE = 'everything = FeatureService(name="everything", features=['
BY_FARE = f"""\
by_fare = view("by_fare", [origin], [agg(name, "fare") for name in ("count", "sum", "max", "mean", "std")])
{SERVICE}by_fare, """
"""Aggregates of a decimal, where the format has one."""
FORMATS = {
    "json": (f'{JSON}    fare: {{type: [number, "null"]}}\n', {}),
    "avro": ("format: avro\nschema: {file: departed.avsc}", {"departed.avsc": AVSC}),
    "protobuf": ("format: protobuf\nschema: {file: departed.proto, message: Departed}", {"departed.proto": PROTO}),
}


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with RegistryServer().running() as server:
        yield server


def encoder(format: str, registry: RegistryServer, stream: str, folder: Path) -> Callable[[dict[str, Any]], bytes]:
    """What an ordinary producer of `format` has."""
    if format == "json":
        return lambda event: json.dumps(event).encode()
    if format == "avro":
        to = SerializationContext(stream, MessageField.VALUE)

        def avro(event: dict[str, Any]) -> bytes:
            with SchemaRegistryClient({"url": registry.url}) as client:
                fits = {
                    "departed_at": datetime.fromisoformat(event["departed_at"]),
                    "tailnum": UUID(event["tailnum"]),
                    "fare": Decimal(str(event["fare"])),
                }
                raw: bytes = AvroSerializer(client, AVSC)(event | fits, to)
                return raw

        return avro
    with SchemaRegistryClient({"url": registry.url}) as client:
        id = client.register_schema(f"{stream}-value", Schema(PROTO, "PROTOBUF"))
    (folder / "theirs.proto").write_text(PROTO)
    schema: ProtoSchema = read_proto(folder / "theirs.proto", "Departed", frozenset())
    kind: Any = message_factory.GetMessageClass(schema.descriptor())
    return lambda event: framed(id, b"\x00" + json_format.ParseDict(event, kind()).SerializeToString())


@asynccontextmanager
async def field_of(
    format: str, kafka: EmbeddedKafka, valkey_url: str, registry: RegistryServer, folder: Path, stream: str
) -> AsyncIterator[Field]:
    said, beside = FORMATS[format]
    knobs: dict[str, Any] = {"schema_registry": registry.url, "schema_patience": 0.5, "namespace": stream}
    knobs |= {"right": SERVICE, "wrong": BY_FARE}
    async with airfield(kafka, valkey_url, folder, stream, format=said, beside=beside, **knobs) as field:
        yield field


async def seen(field: Field) -> tuple[Any, ...]:
    """The features of three aircraft online and offline, and the rows of the lake."""
    at = "2013-06-01T12:00:00+00:00"
    online, offline = await field.online(ROWS, at), await field.offline(ROWS, at)
    columns = ["flight_id", "departed_at", "tailnum", "origin", "gate", "delay", "seats", "fare"]
    columns += ["_event_time", "_known_at"]
    rows = await asyncio.to_thread(read_events, Lake(field.settings.lake), field.stream, columns)
    found = rows.sort("flight_id").to_dicts()
    for row in found:
        row["departed_at"] = datetime.fromisoformat(row["departed_at"])
    return repr(online), repr(offline), found, [row["by_fare__sum"] for row in online[:2]]


async def test_features_are_the_same_in_every_format(
    kafka: EmbeddedKafka, valkey_url: str, registry: RegistryServer, unique_name: Callable[[str], str], tmp_path: Path
) -> None:
    told = {}
    for format in FORMATS:
        stream, folder = unique_name(f"departed-{format}"), tmp_path / format
        folder.mkdir()
        encode = encoder(format, registry, stream, folder)
        async with field_of(format, kafka, valkey_url, registry, folder, stream) as field:
            await field.departs(*(Sent(encode(event)) for event in FLIGHTS))
            told[format] = await seen(field)

    assert told["avro"] == told["json"]
    assert told["protobuf"] == told["json"]
    assert len(told["json"][2]) == len(FLIGHTS)
    assert told["json"][3] == pytest.approx([274.98, 930.93]), "by EWR, and by JFK"


@pytest.mark.parametrize("format", ["avro", "protobuf"])
async def test_what_cannot_be_read_is_a_dead_letter_with_its_reason(
    format: str,
    kafka: EmbeddedKafka,
    valkey_url: str,
    registry: RegistryServer,
    unique_name: Callable[[str], str],
    tmp_path: Path,
) -> None:
    stream = unique_name(f"departed-{format}")
    encode = encoder(format, registry, stream, tmp_path)
    good = [encode(event) for event in FLIGHTS[:3]]
    other = registry.register("others-value", '{"type": "string"}', "JSON")
    junk = [
        (json.dumps(FLIGHTS[0]).encode(), b"bad_frame"),
        (b"", b"bad_frame"),
        (b"\x00\x00", b"bad_frame"),
        (good[0][:-3], b"bad_value"),
        (framed(4_000_000_000, good[0][5:]), b"unknown_schema"),
        (framed(other, good[0][5:]), b"wrong_schema"),
        (encode(FLIGHTS[3] | {"departed_at": "2013-06-01T12:30:00Z"}), b"too_early"),
    ]
    if format == "protobuf":
        junk += [(good[0][:5] + b"\x02\x02" + good[0][6:], b"wrong_schema"), (good[0][:5] + b"\x80", b"bad_frame")]
    async with field_of(format, kafka, valkey_url, registry, tmp_path / "field", stream) as field:
        mixed = [Sent(good[0]), *(Sent(raw) for raw, _ in junk), Sent(good[1]), Sent(good[2])]
        await field.departs(*mixed)
        _, _, rows, _ = await seen(field)
        letters = {group: await field.letters(dead_letter_topic(stream, group), len(junk)) for group in (TILES, LAKE)}

    assert [row["flight_id"] for row in rows] == ["F0", "F1", "F2"]
    assert letters[TILES] == junk
    assert letters[LAKE] == junk


async def test_while_the_registry_is_away_records_wait_and_none_is_lost(
    kafka: EmbeddedKafka, valkey_url: str, registry: RegistryServer, unique_name: Callable[[str], str], tmp_path: Path
) -> None:
    stream = unique_name("departed-avro")
    encode = encoder("avro", registry, stream, tmp_path)
    values = [encode(event) for event in FLIGHTS]
    registry.away = True
    async with field_of("avro", kafka, valkey_url, registry, tmp_path / "field", stream) as field:
        sending = asyncio.create_task(field.departs(*(Sent(value) for value in values)))
        async with asyncio.timeout(30):
            while len(registry.asked) < 30:  # noqa: ASYNC110  the registry answers in a thread of its own
                await asyncio.sleep(0.02)
        assert not sending.done()
        registry.away = False
        await sending
        _, _, rows, _ = await seen(field)
        assert await field.letters(dead_letter_topic(stream, TILES), 0) == []

    assert len(rows) == len(FLIGHTS)
