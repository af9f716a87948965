"""Checks one event of a stream and makes its record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from millstream.codecs.codec import JSON, Codec, RegistryCodec
from millstream.contracts.envelope import Stamp, derived_id
from millstream.contracts.json_text import pointer
from millstream.contracts.times import MINUTE, to_rfc3339
from millstream.errors import RejectEvent
from millstream.project import Stream
from millstream.project.event_schema import words_of
from millstream.runtime.publisher import Outgoing
from millstream_ingest.domain.cloudevents import Origin
from millstream_ingest.domain.reading import read_event, shown
from millstream_ingest.errors import BadEvent, LogAway

AHEAD = 5 * MINUTE
"""How far an event may be dated ahead of its known-at: clocks differ by seconds; one event of next year freezes its key."""
LONGEST_NAME = 1024
"""Bytes of an id or key. Both travel in every record about the event, and in the keys of the online store."""

_PLAIN_TIME = len("2013-01-31T09:30:00Z")
_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """The circumstances of one request."""

    now: int
    """Wall clock, microseconds."""
    known_at: int | None
    """What the request says in `ce-knownat`, where that is trusted."""
    traceparent: str | None
    producer: str
    """Whose it is, by name."""


class Admitted(msgspec.Struct, frozen=True, gc=False):
    """An event that may be written."""

    id: str
    identity: str
    """What tells it from every other event of its stream: the id, and whose it is where ids are the sources' own."""
    entry: Outgoing


class Admits(Protocol):
    """Checks events and makes their records."""

    stream: Stream
    """Whose events they are, for metrics and messages."""

    def ready(self) -> None:
        """Asked before a body is read. Raises LogAway while nothing could be admitted."""

    def admit(self, raw: bytes, arrival: Arrival, origin: Origin | None = None) -> Admitted:
        """Raises BadEvent."""
        ...


class Admission:
    """The check of one stream's events, with what is the same for all of them made once."""

    def __init__(
        self, stream: Stream, source: str, max_event_bytes: int, codec: Codec = JSON, type: str | None = None
    ) -> None:
        """`type`: the CloudEvents type, where it is not the stream's own."""
        self.stream = stream
        self._name, self._time = stream.name, stream.time  # a property and a model's field cost thrice as much
        self._codec = codec
        self._type = type or f"stream.{stream.name}.v1"
        self._stamp = Stamp(self._type, source)
        self._most = max_event_bytes
        self._is_valid = stream.validator().is_valid

    def ready(self) -> None:
        """Asked before a body is read. Raises LogAway before the stream's schema has its id from the registry."""
        if isinstance(self._codec, RegistryCodec) and not self._codec.registered:
            raise LogAway(f"the schema of {self.stream.name} has no id from the registry yet; nothing was sent")

    def admit(self, raw: bytes, arrival: Arrival, origin: Origin | None = None) -> Admitted:
        """Raises BadEvent.

        The record's value is the checked event, encoded again in the stream's format: a name that a body repeats cannot
        mean one thing to us and another to a reader of the topic.
        """
        stream, event = self.stream, read_event(raw)
        if not self._is_valid(event):
            raise _misfit(stream, event)
        try:
            time, key, id = stream.time_of(event), stream.key_of(event), stream.id_of(event)
        except RejectEvent as error:
            field = _unread(stream, event, error.reason)
            raise BadEvent(error.reason, error.detail, pointer=pointer([field]), got=shown(event.get(field))) from error
        known = arrival.now if arrival.known_at is None else arrival.known_at
        if time > known + AHEAD:
            raise BadEvent(
                "too_early",
                f"{stream.time} is more than 5 minutes ahead of {to_rfc3339(known)}, when the event became known",
                pointer=f"/{stream.time}",
                expected=f"at most {to_rfc3339(known + AHEAD)}",
                got=shown(event[stream.time]),
            )
        value = _ENCODER.encode(event)
        identity = id
        if id is None:
            id = derived_id(stream.name, value.decode()) if origin is None else origin.id
            # A CloudEvent's id is one of its source's own (CloudEvents 1.0, 3.1.1): two sources may count alike.
            identity = id if origin is None else f"{origin.source}\x1f{id}"
        if self._codec is not JSON:
            try:
                value = self._codec.encode(event)
            except RejectEvent as error:
                raise BadEvent(error.reason, error.detail) from error
        name = id.encode()
        if len(key) > LONGEST_NAME or len(name) > LONGEST_NAME:
            raise BadEvent("too_large", f"a key or id of more than {LONGEST_NAME} bytes")
        if len(value) > self._most:
            raise BadEvent("too_large", f"an event of {len(value)} bytes; Kafka takes {self._most}")
        stamp = self._stamp if origin is None else Stamp(self._type, origin.source)
        said = event[self._time]
        # The schema lets only RFC 3339 pass: a time of this shape is written as we would write it.
        if len(said) != _PLAIN_TIME or said[10] != "T" or said[-1] != "Z":
            said = to_rfc3339(time)
        headers = stamp.headers(name, said, arrival.known_at, arrival.traceparent)
        return Admitted(id, identity or id, Outgoing(self._name, key, value, headers))


def _unread(stream: Stream, event: dict[str, Any], reason: str) -> str:
    """The field that is no time, key or id though it fits the schema."""
    if reason == "invalid_time":
        return stream.time
    try:
        stream.key_of(event)
    except RejectEvent:
        return stream.key
    return stream.id or ""


def _misfit(stream: Stream, event: dict[str, Any]) -> BadEvent:
    """The first mistake of an event that does not fit its schema."""
    error = next(stream.validator().iter_errors(event))
    keyword, allowed = _rule(stream.event_schema, error.schema_path)
    return BadEvent(
        "schema",
        words_of(error, 300),
        pointer=pointer(error.instance_path),
        expected=f"{keyword}: {allowed}" if keyword else None,
        got=shown(error.instance),
    )


def _rule(schema: Any, path: Sequence[str | int]) -> tuple[str, str]:
    """The keyword that the event breaks, and what it says."""
    for step in path:
        try:
            schema = schema[step]
        except (KeyError, IndexError, TypeError):
            # The path leads through a $ref; the keyword at its end is still the one that is broken.
            return str(path[-1]), "see the schema"
    return (str(path[-1]) if path else "", _ENCODER.encode(schema).decode()[:200])
