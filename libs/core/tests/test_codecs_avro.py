"""Avro: an event comes out as JSON would have carried it, whatever schema it was written with, and no bytes do harm."""

from __future__ import annotations

import io
import json
import math
import pickle
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.codecs.avro import AvroCodec
from millstream.codecs.avro_schema import read_avsc
from millstream.codecs.codec import Registered
from millstream.codecs.errors import UnfitSchema
from millstream.codecs.wire import framed
from millstream.errors import RejectEvent, RetryLater

from .formats_story import AVSC, DEPARTURE, stream_of


def codec(schema: dict[str, Any] = AVSC, written: dict[str, Any] | None = None) -> AvroCodec:
    """Reads as `schema` what was `written` with id 7, and writes with 7."""
    made = AvroCodec(read_avsc(json.dumps(schema)))
    made.learn(7, Registered(kind="AVRO", text=json.dumps(written or schema)))
    made.write_as(7)
    return made


def written(event: dict[str, Any], schema: dict[str, Any], id: int = 7) -> bytes:
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(deepcopy(schema)), event)
    return framed(id, body.getvalue())


def changed(*fields: dict[str, Any], without: str = "") -> dict[str, Any]:
    """AVSC with fields replaced or added, and one left out."""
    new = {field["name"]: field for field in fields}
    old = [new.pop(field["name"], field) for field in AVSC["fields"] if field["name"] != without]
    return AVSC | {"fields": [*old, *new.values()]}


RAW = codec().encode(DEPARTURE)


def test_what_json_carried_comes_back() -> None:
    assert RAW[:5] == b"\x00\x00\x00\x00\x07"
    assert codec().decode(RAW) == DEPARTURE


def test_the_streams_json_schema_follows_from_the_file(tmp_path: Path) -> None:
    stream = stream_of(tmp_path, "avro")

    assert stream.validator().is_valid(DEPARTURE)
    assert stream.types_of("departed_at") == {"string"}
    assert stream.types_of("delay") == {"number", "null"}
    assert stream.types_of("fare") == {"number", "null"}
    assert stream.event_schema["properties"]["kind"] == {"type": "string", "enum": ["PASSENGER", "CARGO"]}
    assert "seats" not in stream.event_schema["required"], "it has a default"
    assert not stream.validator().is_valid(DEPARTURE | {"seats": 2**31})
    assert not stream.validator().is_valid(DEPARTURE | {"seat": 1}), "what the record has no field for would be lost"
    assert pickle.loads(pickle.dumps(stream)).wire.json_schema == stream.event_schema  # noqa: S301


def test_what_a_producer_of_json_leaves_out_is_its_default() -> None:
    sent = {name: value for name, value in DEPARTURE.items() if name not in ("delay", "seats")}

    assert codec().decode(codec().encode(sent)) == DEPARTURE | {"delay": None, "seats": 0}


def test_an_older_and_a_newer_producer_are_read_with_the_streams_own_schema() -> None:
    older = changed(without="seats")
    newer = changed({"name": "gate", "type": "string"}, {"name": "seats", "type": "int"})
    event = codec().decode(RAW)
    native = fastavro.schemaless_reader(io.BytesIO(RAW[5:]), fastavro.parse_schema(deepcopy(AVSC)), None)

    assert codec(written=older).decode(written(native, older)) == event | {"seats": 0}
    assert codec(written=newer).decode(written(native | {"gate": "B2"}, newer)) == event


def test_a_producer_in_milliseconds_is_read_at_its_own_scale() -> None:
    millis = changed({"name": "departed_at", "type": {"type": "long", "logicalType": "timestamp-millis"}})
    native = fastavro.schemaless_reader(io.BytesIO(RAW[5:]), fastavro.parse_schema(deepcopy(AVSC)), None)

    assert codec(written=millis).decode(written(native, millis)) == DEPARTURE


def test_a_schema_that_does_not_resolve_is_named() -> None:
    other = changed({"name": "tailnum", "type": "long"})
    native = fastavro.schemaless_reader(io.BytesIO(RAW[5:]), fastavro.parse_schema(deepcopy(AVSC)), None)

    with pytest.raises(RejectEvent, match="schema 7 does not fit the stream's own") as caught:
        codec(written=other).decode(written(native | {"tailnum": 725}, other))
    assert caught.value.reason == "wrong_schema"


def test_references_are_followed() -> None:
    kind = next(field["type"] for field in AVSC["fields"] if field["name"] == "kind")
    kind = kind | {"namespace": "flights"}
    referring = changed({"name": "kind", "type": "flights.Kind"})
    made = codec()
    made.learn(
        8,
        Registered(
            kind="AVRO",
            text=json.dumps(referring),
            references=(("flights.Kind", Registered(kind="AVRO", text=json.dumps(kind))),),
        ),
    )

    assert made.decode(framed(8, RAW[5:])) == DEPARTURE


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (None, "bad_frame"),
        (b"", "bad_frame"),
        (b'{"flight_id":"F1"}', "bad_frame"),
        (RAW[:4], "bad_frame"),
        (RAW[:5], "bad_value"),
        (RAW[:-1], "bad_value"),
        (RAW[:20], "bad_value"),
        (RAW + b"x", "bad_value"),
        (RAW[:5] + b"\x05" + RAW[6:], "bad_value"),
        (RAW[:5] + b"\xfe\xff\xff\xff\x0f" + RAW[6:], "bad_value"),
        (RAW.replace(b"F1", b"\xff\xfe"), "bad_value"),
    ],
)
def test_bytes_that_are_no_event(raw: bytes | None, reason: str) -> None:
    with pytest.raises(RejectEvent) as caught:
        codec().decode(raw)
    assert caught.value.reason == reason


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_be_an_event_or_a_rejected_one(body: bytes) -> None:
    try:
        event = codec().decode(framed(7, body))
    except RejectEvent:
        return
    json.dumps(event, allow_nan=False)


@given(st.binary(max_size=20), st.integers(0, len(RAW) - 5))
def test_damaged_events_are_rejected_or_read(harm: bytes, at: int) -> None:
    try:
        event = codec().decode(RAW[: 5 + at] + harm + RAW[5 + at + len(harm) :])
    except RejectEvent:
        return
    json.dumps(event, allow_nan=False)


def test_numbers_that_json_has_not_are_named() -> None:
    schema = changed({"name": "delay", "type": "double"})
    native = fastavro.schemaless_reader(io.BytesIO(RAW[5:]), fastavro.parse_schema(deepcopy(AVSC)), None)
    for odd in (math.nan, math.inf):
        with pytest.raises(RejectEvent, match="/delay: NaN and infinity"):
            codec(schema).decode(written(native | {"delay": odd}, schema))


def test_a_time_that_no_calendar_has_is_rejected() -> None:
    plain = changed({"name": "departed_at", "type": "long"})
    native = fastavro.schemaless_reader(io.BytesIO(RAW[5:]), fastavro.parse_schema(deepcopy(AVSC)), None)
    raw = written(native | {"departed_at": 2**62}, plain)

    with pytest.raises(RejectEvent) as caught:
        codec().decode(raw)
    assert caught.value.reason == "bad_value"


def test_a_huge_decimal_is_no_way_to_stop_the_stream() -> None:
    plain = changed({"name": "fare", "type": ["bytes", "null"]})
    native = fastavro.schemaless_reader(io.BytesIO(RAW[5:]), fastavro.parse_schema(deepcopy(AVSC)), None)
    raw = written(native | {"fare": b"\x7f" * 900_000}, plain)
    began = time.monotonic()

    with pytest.raises(RejectEvent):
        codec().decode(raw)
    assert time.monotonic() - began < 30, "a ninth of it as a number takes ten seconds, all of it eighty times as many"


def test_a_schema_is_unknown_until_it_is_learned_and_of_its_own_kind() -> None:
    made = AvroCodec(read_avsc(json.dumps(AVSC)))
    with pytest.raises(RetryLater, match="schema 7 has not come"):
        made.decode(RAW)
    with pytest.raises(RetryLater, match="no id"):
        made.encode(DEPARTURE)
    made.learn(7, Registered(kind="JSON", text="{}"))
    with pytest.raises(RejectEvent, match="schema 7 is JSON, the stream is AVRO"):
        made.decode(RAW)
    made.give_up([9], "http://registry:8081")
    with pytest.raises(RejectEvent, match="schema 9 is not in the registry at http://registry:8081") as caught:
        made.decode(framed(9, b""))
    assert caught.value.reason == "unknown_schema"


LIST = {"type": "record", "name": "R", "fields": [{"name": "next", "type": ["null", "R"]}]}
NOTHINGS = {"type": "record", "name": "R", "fields": [{"name": "n", "type": {"type": "array", "items": "null"}}]}


@pytest.mark.parametrize(("schema", "why"), [(LIST, "R holds itself"), (NOTHINGS, "items that take no bytes")])
def test_schemas_whose_values_could_kill_the_process_are_refused(schema: dict[str, Any], why: str) -> None:
    """100 kB of the first end in a stack overflow inside the decoder, 12 bytes of the second in all of the memory."""
    with pytest.raises(UnfitSchema, match=why):
        read_avsc(json.dumps(schema))
    made = codec()
    made.learn(8, Registered(kind="AVRO", text=json.dumps(schema)))
    with pytest.raises(RejectEvent, match=why) as caught:
        made.decode(framed(8, b"\x02" * 100_000))
    assert caught.value.reason == "wrong_schema"


@pytest.mark.parametrize(
    ("event", "why"),
    [({"fare": 0.001}, "Avro schema"), ({"departed_at": "noon"}, "Avro schema"), ({"seal": "é"}, "Avro schema")],
)
def test_what_json_schema_lets_pass_and_avro_cannot_hold_is_refused(event: dict[str, Any], why: str) -> None:
    with pytest.raises(RejectEvent, match=why) as caught:
        codec().encode(DEPARTURE | event)
    assert caught.value.reason == "schema"
