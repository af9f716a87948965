"""What ingest does: checks events against their stream and puts the good ones into the log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from millstream.codecs.codec import JSON, Codec
from millstream.contracts.envelope import Envelope, derived_id
from millstream.contracts.json_text import pointer
from millstream.contracts.times import MINUTE, to_rfc3339
from millstream.errors import RejectEvent, RetryLater
from millstream.project import Stream
from millstream_ingest.domain.reading import read_event, shown
from millstream_ingest.domain.result import Fault, Result
from millstream_ingest.errors import BadEvent, LogAway
from millstream_ingest.ports import Entry, EventLog

AHEAD = 5 * MINUTE
"""How far an event may be dated ahead of its known-at: clocks differ by seconds; one event of next year freezes its key."""
LONGEST_NAME = 1024
"""Bytes of an id or key. Both travel in every record about the event, and in the keys of the online store."""
BREATH = 500
"""Events checked before others get a turn: about 10 ms, so a large batch does not hold up the probes."""

_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """The circumstances of one request."""

    now: int
    """Wall clock, microseconds."""
    known_at: int | None
    """What the request says in `ce-knownat`, where that is trusted."""
    traceparent: str | None
    max_event_bytes: int


async def accept(
    stream: Stream, raws: Sequence[bytes], arrival: Arrival, log: EventLog, codec: Codec = JSON
) -> list[Result]:
    """Check every event, append the good ones together, and say of each what became of it, in order.

    An event is called accepted only when the log has confirmed it. Raises LogAway, DeliveryUnknown.
    """
    results, entries = [], []
    for index, raw in enumerate(raws):
        try:
            id, entry = admit(stream, raw, arrival, log.source, codec)
        except BadEvent as error:
            results.append(Result(index=index, status="rejected", error=Fault.of(error)))
        else:
            entries.append(entry)
            results.append(Result(index=index, status="accepted", id=id))
        if index % BREATH == BREATH - 1:
            await asyncio.sleep(0)
    if entries:
        await log.append(entries)
    return results


def admit(stream: Stream, raw: bytes, arrival: Arrival, source: str, codec: Codec = JSON) -> tuple[str, Entry]:
    """The event's id and its entry in the log. Raises BadEvent, LogAway before the stream's schema has an id.

    The entry's value is the checked event, encoded again: a name that a body repeats cannot mean one thing to us
    and another to a reader of the topic.
    """
    event = read_event(raw)
    _fits(stream, event)
    try:
        time, key, id = stream.time_of(event), stream.key_of(event), stream.id_of(event)
    except RejectEvent as error:
        pointer = f"/{stream.time}" if error.reason == "invalid_time" else ""
        raise BadEvent(error.reason, error.detail, pointer=pointer) from error
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
    if id is None:
        id = derived_id(stream.name, value.decode())
    if codec is not JSON:
        value = _encoded(codec, event)
    if len(key) > LONGEST_NAME or len(id.encode()) > LONGEST_NAME:
        raise BadEvent("too_large", f"a key or id of more than {LONGEST_NAME} bytes")
    if len(value) > arrival.max_event_bytes:
        raise BadEvent("too_large", f"an event of {len(value)} bytes; Kafka takes {arrival.max_event_bytes}")
    envelope = Envelope(
        id=id,
        type=f"stream.{stream.name}.v1",
        source=source,
        time=time,
        known_at=arrival.known_at,
        traceparent=arrival.traceparent,
    )
    return id, Entry(stream.name, key, value, envelope.headers())


def _encoded(codec: Codec, event: dict[str, Any]) -> bytes:
    """The record's value in the stream's format. Raises BadEvent, LogAway."""
    try:
        return codec.encode(event)
    except RejectEvent as error:
        raise BadEvent(error.reason, error.detail) from error
    except RetryLater as error:
        raise LogAway(f"{error}; nothing was sent") from error


def _fits(stream: Stream, event: dict[str, Any]) -> None:
    """Check the event against the stream's schema. Raises BadEvent(`schema`) that names the first mistake."""
    validator = stream.validator()
    if validator.is_valid(event):
        return
    error = next(validator.iter_errors(event))
    keyword, allowed = _rule(stream.event_schema, error.schema_path)
    raise BadEvent(
        "schema",
        error.message if len(error.message) <= 300 else f"{error.message[:300]}…",
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
