"""A stream: one Kafka topic of the user's events, with its schema, record key, event id and event time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

import jsonschema_rs
from pydantic import BaseModel, Field, PrivateAttr, ValidationInfo, field_validator

from millstream.contracts.times import DAY, HOUR, from_rfc3339
from millstream.errors import RejectEvent
from millstream.project.duration import Duration, PositiveDuration
from millstream.project.event_schema import compile_schema, field_types, properties_of, required_of, schema_faults
from millstream.project.fields import text_of
from millstream.project.names import STRICT, FieldName, TopicName
from millstream.project.problem import Fault, Path, Refused, gaps_of, nearest, visible
from millstream.project.schema_file import SchemaFile, WireSchema


class Stream(BaseModel):
    """One file of `streams/`."""

    model_config = STRICT

    stream: TopicName
    """Name of the stream and of its Kafka topic."""
    description: Annotated[str, Field(min_length=1, max_length=2000)]
    """What one event says, in a sentence: the topic list and the API show it."""
    key: FieldName
    """Record key: events of one key keep their order, on one partition."""
    id: FieldName | None = None
    """Event id: two events of one id are one event. Without it an event is known by its CloudEvent's source and id, which
    ingest derives from the content where nobody says them; a record of Kafka that has none always counts."""
    time: FieldName
    """Event time: when it happened, RFC 3339 with an offset."""
    lateness: Duration = HOUR
    """An event known later than this after its event time enters no window; an hour outlasts most producers' retries."""
    partitions: Annotated[int, Field(ge=1, le=1000)] = 6
    """Upper bound for parallel consumers. 6 divides by 1, 2, 3 and 6 pods; raising it later moves keys, so start above need."""
    retention: PositiveDuration = 7 * DAY
    """How long Kafka keeps the events, counted from each record's own timestamp: who writes history with the times of then has
    it removed within minutes, before anybody has read it. Ingest stamps what it accepts with now. The lake keeps events
    for good; a week covers a long weekend of broken consumers."""
    format: Literal["json", "avro", "protobuf"] = "json"
    """What an event is in Kafka. Avro and protobuf are framed as Confluent's serializers do, and need a schema registry."""
    compatibility: Literal["backward", "forward", "full", "none"] = "backward"
    """What a change of the schema must keep: `backward`, events of before are still read, as Kafka and lake are full of them;
    `forward`, who still has the old schema reads new events; `full`, both. `millstream check --against` holds you to it."""
    event_schema: Annotated[dict[str, Any], Field(alias="schema")]
    """JSON Schema 2020-12 of one event: an object that requires the key, id and time fields. Of a stream in Avro or protobuf
    the file beside this one, {file: departed.avsc} or {file: departed.proto, message: Departed}: the JSON Schema follows."""
    _wire: WireSchema | None = PrivateAttr(default=None)

    @field_validator("event_schema", mode="before")
    @classmethod
    def _from_file(cls, said: Any, stream: ValidationInfo) -> Any:
        """The JSON Schema that follows from a schema file; what is written here where there is none."""
        if (format := stream.data.get("format")) is None or not isinstance(said, dict):
            return said
        if format == "json":
            if isinstance(said.get("file"), str):
                message, remedy = (
                    "a schema file goes with format: avro or protobuf",
                    "write that, or the JSON Schema here",
                )
                raise Refused([Fault(path=("file",), message=message, remedy=remedy)])
            return said
        roles = frozenset(name for role in ("key", "id", "time") if isinstance(name := stream.data.get(role), str))
        file = SchemaFile.read(said, format)
        context = stream.context if isinstance(stream.context, dict) else {}
        wire = file.load(context.get("folder", FilePath()), format, roles)
        if faults := [*_wire_faults(wire, file.file, stream.data)]:
            raise Refused(faults)
        context["wire"] = wire
        return wire.json_schema

    @field_validator("event_schema")
    @classmethod
    def _schema_fits(cls, schema: dict[str, Any], stream: ValidationInfo) -> dict[str, Any]:
        """Of the key, id and time only what could be read is judged: here `stream` holds no other."""
        if stream.data.get("format") != "json":
            return schema
        faults = schema_faults(schema)
        faults += visible(_field_faults(schema, stream.data), gaps_of(faults))
        if faults:
            raise Refused(faults)
        return schema

    def model_post_init(self, context: Any) -> None:
        if self.format != "json" and isinstance(context, dict):
            self._wire = context.pop("wire", None)

    @property
    def name(self) -> str:
        return self.stream

    @property
    def wire(self) -> WireSchema | None:
        """The schema of an Avro or protobuf stream's own file; None of a JSON stream."""
        return self._wire

    @cached_property
    def _validator(self) -> jsonschema_rs.Draft202012Validator:
        return compile_schema(self.event_schema)

    def __getstate__(self) -> dict[Any, Any]:
        """Compiled validators do not pickle: the other side compiles its own."""
        state = super().__getstate__()
        return state | {"__dict__": {k: v for k, v in state["__dict__"].items() if k != "_validator"}}

    def validator(self) -> jsonschema_rs.Draft202012Validator:
        """The schema, compiled once."""
        return self._validator

    def types_of(self, field: str) -> frozenset[str]:
        """JSON types that `field` may have; empty where the schema does not say or has no such field."""
        return field_types(self.event_schema, field)

    def time_of(self, event: Mapping[str, Any]) -> int:
        """Event time, microseconds. Raises RejectEvent(`invalid_time`) for what is no time, or one no calendar has."""
        value = event.get(self.time)
        try:
            return from_rfc3339(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise RejectEvent(
                "invalid_time", f"{self.time} is {value!r:.60}; write a time like 2013-01-31T09:30:00Z"
            ) from error

    def key_of(self, event: Mapping[str, Any]) -> bytes:
        """Kafka record key. Raises RejectEvent(`missing_field`)."""
        return text_of(event, self.key).encode()

    def id_of(self, event: Mapping[str, Any]) -> str | None:
        """Event id; None where the stream has none. Raises RejectEvent(`missing_field`)."""
        return None if self.id is None else text_of(event, self.id)


def _field_faults(schema: Mapping[str, Any], names: Mapping[str, Any]) -> Iterator[Fault]:
    """The key, id and time fields have to be in every event, with a type that can be one."""
    properties, required = properties_of(schema), required_of(schema)
    roles: dict[str, list[str]] = {}
    for role in ("key", "id", "time"):
        if isinstance(name := names.get(role), str):
            roles.setdefault(name, []).append(role)
    for name, parts in roles.items():
        role, place = " and ".join(parts), ("properties", name)
        if name not in properties:
            message = f"the {role} field {name!r} is not in properties"
            remedy = nearest(name, properties)
            yield Fault(path=("properties",), message=message, remedy=remedy, rests_on=(place,))
            continue
        if name not in required:
            message = f"the {role} field {name!r} is not required"
            rests_on = (("required", name),)
            yield Fault(path=("required",), message=message, remedy=f"add {name} to required", rests_on=rests_on)
        types = field_types(schema, name)
        if "time" in parts:
            if types != {"string"} or properties[name].get("format") != "date-time":
                message = f"the {role} field {name!r} is not an RFC 3339 time"
                remedy = "write {type: string, format: date-time}"
                said = (*_says_type(schema, name), (*place, "format"))
                yield Fault(path=place, message=message, remedy=remedy, rests_on=said)
        elif types not in ({"string"}, {"integer"}):
            message = f"the {role} field {name!r} is {' or '.join(sorted(types)) or 'of no stated type'}"
            remedy = "write type: string or type: integer, without null"
            yield Fault(path=place, message=message, remedy=remedy, rests_on=_says_type(schema, name))


_ROLE_REMEDY = {
    "avro": ('{"type": "long", "logicalType": "timestamp-micros"}', "string, int, long or an enum, without null"),
    "protobuf": ("google.protobuf.Timestamp", "string or an integer, without optional"),
}
"""What the time field, and what the key and id fields may be."""


def _wire_faults(wire: WireSchema, file: str, names: Mapping[str, Any]) -> Iterator[Fault]:
    """The key, id and time fields of a schema file, told in the words of its format."""
    time, other = _ROLE_REMEDY[names["format"]]
    for fault in _field_faults(wire.json_schema, names):
        known = fault.path == ("properties",)
        remedy = (
            fault.remedy
            if known
            else f"write {time}"
            if "time" in fault.message.split("field")[0]
            else f"write {other}"
        )
        message = fault.message.replace("is not in properties", "is no field there")
        message = message.replace("is not required", "may be missing").replace("an RFC 3339 time", "a time")
        yield Fault(path=("file",), message=f"{file}: {message}", remedy=remedy)


def _says_type(schema: Mapping[str, Any], name: str) -> tuple[Path, ...]:
    """Where `field_types` looks for the type of a field."""
    place = ("properties", name)
    refers = isinstance(field := schema["properties"][name], dict) and "$ref" in field
    here = tuple((*place, keyword) for keyword in ("type", "enum", "const", "$ref"))
    return (*here, ("$defs",)) if refers else here


UNREAD_STREAM: dict[str, Any] = {"description": "unread"}
"""Stands for what can be missing without anything else being judged by it."""
