"""Protobuf: the message that the stream names, as JSON would have carried it, and no other."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import message_factory
from hypothesis import given
from hypothesis import strategies as st

from millstream.codecs.codec import Registered
from millstream.codecs.errors import UnfitSchema
from millstream.codecs.proto_schema import ProtoSchema, message_names, read_proto
from millstream.codecs.protobuf import ProtobufCodec
from millstream.codecs.wire import framed, index_bytes, message_indexes
from millstream.errors import RejectEvent

from .formats_story import FLOWN, PROTO, stream_of


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> ProtoSchema:
    file = tmp_path_factory.mktemp("streams") / "departed.proto"
    file.write_text(PROTO)
    return read_proto(file, "Departed", frozenset({"departed_at"}))


@pytest.fixture(scope="module")
def codec(schema: ProtoSchema) -> ProtobufCodec:
    """Reads and writes with id 7."""
    made = ProtobufCodec(schema)
    made.learn(7, Registered(kind="PROTOBUF", text=PROTO))
    made.write_as(7)
    return made


def test_what_json_carried_comes_back(codec: ProtobufCodec) -> None:
    raw = codec.encode(FLOWN)

    assert raw[:7] == b"\x00\x00\x00\x00\x07" + b"\x02\x02", "one index, the second message"
    assert codec.decode(raw) == FLOWN


def test_absent_is_absent_and_a_plain_field_is_never_absent(codec: ProtobufCodec) -> None:
    assert codec.decode(framed(7, b"\x02\x02")) == {
        "flight_id": "",
        "tailnum": "",
        "fuel": 0,
        "kind": "PASSENGER",
        "legs": [],
        "bags": {},
        "seal": "",
    }


def test_the_streams_json_schema_follows_from_the_file(tmp_path: Path) -> None:
    stream = stream_of(tmp_path, "protobuf")

    assert stream.validator().is_valid(FLOWN)
    assert stream.types_of("departed_at") == {"string"}, "the event time is never null"
    assert "departed_at" in stream.event_schema["required"]
    assert stream.types_of("delay") == {"number", "null"}
    assert stream.types_of("fuel") == {"integer"}
    assert stream.types_of("gate") == {"integer", "null"}
    assert not stream.validator().is_valid(FLOWN | {"speed": 1})


def test_fields_of_a_newer_producer_are_passed_over(codec: ProtobufCodec, schema: ProtoSchema, tmp_path: Path) -> None:
    newer = PROTO.replace("bytes seal = 12;", "bytes seal = 12; string pilot = 99;")
    (tmp_path / "departed.proto").write_text(newer)
    theirs = ProtobufCodec(read_proto(tmp_path / "departed.proto", "Departed", frozenset()))
    theirs.write_as(8)
    codec.learn(8, Registered(kind="PROTOBUF", text=newer))

    assert codec.decode(theirs.encode(FLOWN | {"pilot": "Sully"})) == FLOWN


def test_the_message_index_is_looked_up_in_the_writers_file(codec: ProtobufCodec) -> None:
    """A producer whose file has the same message in another place writes another index."""
    own = PROTO[PROTO.index("message Departed") :]
    codec.learn(9, Registered(kind="PROTOBUF", text=f"package flights; {own}"))
    raw = codec.encode(FLOWN)

    assert codec.decode(framed(9, b"\x00" + raw[7:])) == FLOWN
    for indexes, said in (((0,), "message flights.Gate at index 0"), ((1, 0), "Departed.Leg"), ((5,), "no message")):
        with pytest.raises(RejectEvent, match=said) as caught:
            codec.decode(framed(7, index_bytes(indexes) + raw[7:]))
        assert caught.value.reason == "wrong_schema"


def test_names_are_found_in_any_file() -> None:
    names = message_names(
        'syntax="proto2"; /* message No { */ package a.b; option x = "message { \\" }";\n'
        "extend Other { optional int32 e = 9; } enum E { message = 0; }\n"
        "message M { oneof message { string s = 1; } message Inner { message Deep {} } enum F { A = 0; } message Next {} }\n"
        "service S { rpc Do (M) returns (M) {} } message Last {}"
    )

    found = {indexes: names(indexes) for indexes in ((0,), (0, 0), (0, 0, 0), (0, 1), (1,), (2,))}
    assert found == {
        (0,): "a.b.M",
        (0, 0): "a.b.M.Inner",
        (0, 0, 0): "a.b.M.Inner.Deep",
        (0, 1): "a.b.M.Next",
        (1,): "a.b.Last",
        (2,): None,
    }
    with pytest.raises(UnfitSchema, match="braces"):
        message_names("message M { ")


@given(st.lists(st.integers(0, 2**20), min_size=1, max_size=16))
def test_message_indexes_come_back(indexes: list[int]) -> None:
    raw = framed(1, index_bytes(indexes) + b"rest")
    found, at = message_indexes(raw)
    assert list(found) == indexes
    assert raw[at:] == b"rest"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "bad_frame"),
        (b"\x80", "bad_frame"),
        (b"\x80\x80\x80\x80\x80\x80\x80", "bad_frame"),
        (b"\xfe\x0f", "bad_frame"),
        (b"\x01", "bad_frame"),
        (b"\x04\x02", "bad_frame"),
        (b"\x02\x02\x0a\x7fF1", "bad_value"),
        (b"\x02\x02\x0a\x02\xff\xfe", "bad_value"),
        (b"\x02\x02\x30\x07", "bad_value"),
    ],
)
def test_bytes_that_are_no_event(codec: ProtobufCodec, body: bytes, reason: str) -> None:
    with pytest.raises(RejectEvent) as caught:
        codec.decode(framed(7, body))
    assert caught.value.reason == reason


@given(body=st.binary(max_size=60))
def test_no_bytes_do_anything_but_be_an_event_or_a_rejected_one(codec: ProtobufCodec, body: bytes) -> None:
    try:
        event = codec.decode(framed(7, b"\x02\x02" + body))
    except RejectEvent:
        return
    json.dumps(event, allow_nan=False)


def test_values_that_json_has_not_are_named(codec: ProtobufCodec, schema: ProtoSchema) -> None:
    message: Any = message_factory.GetMessageClass(schema.descriptor())
    for said, make in (
        ("/cash: NaN", message(cash=math.nan)),
        ("/value: NaN", message(delay={"value": math.inf})),
        ("/departed_at: a time outside", message(departed_at={"seconds": 2**61})),
        ("/departed_at: -1 nanoseconds", message(departed_at={"nanos": -1})),
    ):
        with pytest.raises(RejectEvent, match=said) as caught:
            codec.decode(framed(7, b"\x02\x02" + make.SerializeToString()))
        assert caught.value.reason == "bad_value"


@pytest.mark.parametrize(
    ("text", "message", "why", "remedy"),
    [
        ("syntax = 'proto3';\nmessage D { strin a = 1; }", None, 'departed.proto:2:13: "strin" is not defined', "mend"),
        (PROTO, None, "has 2 messages", "known: flights.Departed, flights.Departed.Leg, flights.Gate"),
        (PROTO, "Departd", "has no message 'Departd'", "known: flights.Departed"),
        ("syntax = 'proto3'; message D { D d = 1; }", None, "D holds itself", "levels"),
        (
            "syntax = 'proto3'; import 'google/protobuf/any.proto'; message D { google.protobuf.Any a = 1; }",
            None,
            "a is a google.protobuf.Any",
            "Timestamp",
        ),
        ("syntax = 'proto3'; import 'other.proto'; message D { int32 a = 1; }", None, "other.proto", "mend"),
    ],
)
def test_a_file_that_no_event_can_have_is_named(
    tmp_path: Path, text: str, message: str | None, why: str, remedy: str
) -> None:
    (tmp_path / "departed.proto").write_text(text)
    with pytest.raises(UnfitSchema) as caught:
        read_proto(tmp_path / "departed.proto", message, frozenset())
    assert why in str(caught.value)
    assert remedy in caught.value.remedy
