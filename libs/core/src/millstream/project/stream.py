"""A stream: one Kafka topic of the user's events, with its schema, record key, event id and event time."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any

import jsonschema_rs
from pydantic import BaseModel, Field, model_validator

from millstream.contracts.times import DAY, HOUR, from_rfc3339
from millstream.errors import RejectEvent
from millstream.project.duration import Duration, PositiveDuration
from millstream.project.event_schema import compile_schema, field_types, schema_faults
from millstream.project.fields import text_of
from millstream.project.names import STRICT, FieldName, TopicName
from millstream.project.problem import Fault, Refused, nearest


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
    """Event id: two events of one id are one event. Without it every record counts."""
    time: FieldName
    """Event time: when it happened, RFC 3339 with an offset."""
    lateness: Duration = HOUR
    """An event known later than this after its event time enters no window; an hour outlasts most producers' retries."""
    partitions: Annotated[int, Field(ge=1, le=1000)] = 6
    """Upper bound for parallel consumers. 6 divides by 1, 2, 3 and 6 pods; raising it later moves keys, so start above need."""
    retention: PositiveDuration = 7 * DAY
    """How long Kafka keeps the events. The lake keeps them for good; a week covers a long weekend of broken consumers."""
    event_schema: Annotated[dict[str, Any], Field(alias="schema")]
    """JSON Schema 2020-12 of one event: an object that requires the key, id and time fields."""

    @model_validator(mode="after")
    def _schema_fits(self) -> Stream:
        faults = schema_faults(self.event_schema) or self._field_faults()
        if faults:
            raise Refused([Fault(path=("schema", *f.path), message=f.message, remedy=f.remedy) for f in faults])
        return self

    def _field_faults(self) -> list[Fault]:
        """The key, id and time fields have to be in every event, with a type that can be one."""
        properties, required = self.event_schema.get("properties", {}), self.event_schema.get("required", [])
        faults = []
        for role, name in (("key", self.key), ("id", self.id), ("time", self.time)):
            if name is None:
                continue
            if name not in properties:
                message = f"the {role} field {name!r} is not in properties"
                faults.append(Fault(path=("properties",), message=message, remedy=nearest(name, properties)))
                continue
            if name not in required:
                message = f"the {role} field {name!r} is not required"
                faults.append(Fault(path=("required",), message=message, remedy=f"add {name} to required"))
            types = field_types(self.event_schema, name)
            if role == "time":
                if types != {"string"} or properties[name].get("format") != "date-time":
                    message = f"the time field {name!r} is not an RFC 3339 time"
                    remedy = "write {type: string, format: date-time}"
                    faults.append(Fault(path=("properties", name), message=message, remedy=remedy))
            elif types not in ({"string"}, {"integer"}):
                message = f"the {role} field {name!r} is {' or '.join(sorted(types)) or 'of no stated type'}"
                remedy = "write type: string or type: integer, without null"
                faults.append(Fault(path=("properties", name), message=message, remedy=remedy))
        return faults

    @property
    def name(self) -> str:
        return self.stream

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
