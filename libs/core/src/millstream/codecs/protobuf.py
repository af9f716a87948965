"""Events in protobuf: field numbers are the contract, so the stream's own message reads what newer and older ones wrote."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, EncodeError, Message

from millstream.codecs.codec import Registered, RegistryCodec
from millstream.codecs.proto_schema import SPECIAL, ProtoSchema, message_names
from millstream.codecs.wire import index_bytes, message_indexes
from millstream.contracts.times import SECOND, to_rfc3339
from millstream.errors import RejectEvent

Names = Callable[[tuple[int, ...]], str | None]
Plain = Callable[[Any], Any]


class ProtobufCodec(RegistryCodec[Names]):
    kind = "PROTOBUF"

    def __init__(self, schema: ProtoSchema) -> None:
        super().__init__(schema.text, prefix=index_bytes(schema.indexes()))
        descriptor = schema.descriptor()
        self._name = schema.message
        self._class = message_factory.GetMessageClass(descriptor)
        self._plain = _message(descriptor)

    def writer(self, id: int, schema: Registered) -> Names:
        return message_names(schema.text)

    def read(self, id: int, writer: Names, raw: bytes) -> dict[str, Any]:
        indexes, at = message_indexes(raw)
        name = writer(indexes)
        if name != self._name:
            said = ".".join(map(str, indexes))
            there = f"message {name}" if name else "no message"
            raise RejectEvent("wrong_schema", f"schema {id} has {there} at index {said}, the stream has {self._name}")
        try:
            message = self._class.FromString(raw[at:])
        except DecodeError as error:
            raise RejectEvent("bad_value", f"is no {self._name}: {error}") from error
        try:
            event: dict[str, Any] = self._plain(message)
        except (ValueError, OverflowError) as error:
            raise RejectEvent("bad_value", str(error)) from error
        return event

    def write(self, event: Mapping[str, Any]) -> bytes:
        try:
            message = json_format.ParseDict(dict(event), self._class())
            return bytes(message.SerializeToString())
        except (json_format.ParseError, EncodeError, ValueError, TypeError) as error:
            raise RejectEvent("schema", f"does not fit {self._name}: {str(error)[:300]}") from error


def _message(descriptor: Descriptor) -> Plain:
    """What makes a dict of a message: every field that is there, and those that are never absent."""
    always: list[tuple[str, Plain]] = []
    present: list[tuple[str, Plain]] = []
    for field in descriptor.fields:
        (present if field.has_presence else always).append((field.name, _field(field)))

    def plain(message: Message) -> dict[str, Any]:
        event = {name: make(getattr(message, name)) for name, make in always}
        for name, make in present:
            if message.HasField(name):
                event[name] = make(getattr(message, name))
        return event

    return plain


def _field(field: FieldDescriptor) -> Plain:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = _value(field.message_type.fields_by_name["value"])
        return lambda found: {_key(key): value(found[key]) for key in found}
    one = _value(field)
    return (lambda found: [one(item) for item in found]) if field.is_repeated else one


def _value(field: FieldDescriptor) -> Plain:
    if field.enum_type is not None:
        names = {value.number: value.name for value in field.enum_type.values}
        where = f"/{field.name}"

        def named(number: int) -> str:
            if number not in names:
                raise ValueError(
                    f"{where}: {number} is no value of {field.enum_type.full_name}; add it to the .proto file"
                )
            return str(names[number])

        return named
    if field.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return _number(field.name)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _base64
    if field.message_type is None:
        return _same
    return _special(field.name, field.message_type) or _message(field.message_type)


def _special(name: str, message: Descriptor) -> Plain | None:
    if message.full_name not in SPECIAL:
        return None
    if message.full_name == "google.protobuf.Timestamp":
        return lambda found: _moment(name, found)
    if message.full_name == "google.protobuf.Duration":
        return lambda found: str(found.ToJsonString())
    inner = _value(message.fields_by_name["value"])
    return lambda found: inner(found.value)


def _moment(name: str, found: Any) -> str:
    if not 0 <= found.nanos < 10**9:
        raise ValueError(f"/{name}: {found.nanos} nanoseconds")
    try:
        return to_rfc3339(found.seconds * SECOND + found.nanos // 1000)
    except OverflowError as error:
        raise ValueError(f"/{name}: a time outside of the years 1 to 9999") from error


def _number(name: str) -> Plain:
    def finite(value: float) -> float:
        if not math.isfinite(value):
            raise ValueError(f"/{name}: NaN and infinity are no numbers of JSON; leave it out where nothing is known")
        return value

    return finite


def _key(key: object) -> str:
    return ("true" if key else "false") if isinstance(key, bool) else str(key)


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _same(value: Any) -> Any:
    return value
