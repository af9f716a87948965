"""A user's event as it lies in Kafka, decoded and held to its stream's contract: the same for every service that hears it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from millstream.codecs.codec import JSON, Codec
from millstream.contracts.envelope import Envelope, identity_of, known_at_of
from millstream.contracts.json_text import DEEPEST, pointer
from millstream.contracts.times import MINUTE, from_rfc3339, now, parse_rfc3339, to_rfc3339
from millstream.errors import BadSetup, RejectEvent
from millstream.project.event_schema import words_of
from millstream.project.stream import Stream
from millstream.runtime.records import Batch, Record, Rejected, envelope

MAX_AHEAD = 5 * MINUTE
"""An event time further ahead of its known-at is a broken clock, and one such event would freeze a key's newest tile. So is
a known-at further ahead of the clock here: nobody knows it yet, and one such event would be every reader's stream time."""


class UserEvent(msgspec.Struct, frozen=True, gc=False):
    """One good event."""

    record: Record
    event: dict[str, Any]
    time: int
    """Event time, microseconds."""
    known_at: int
    """When it could first have been known, microseconds; never before the event time."""

    @property
    def envelope(self) -> Envelope:
        """The whole envelope, read when asked for: most who hear an event need only its known-at. Raises RejectEvent."""
        return envelope(self.record)


def read_event(stream: Stream, record: Record, codec: Codec | None = None) -> UserEvent:
    """Decode and check one record. A JSON stream needs no `codec`; of another it has been prepared for the record.

    Raises RejectEvent: bad_headers, bad_json, invalid_utf8, too_deep, schema, invalid_time, too_early; of a registry's
    formats bad_frame, unknown_schema, wrong_schema, bad_value.
    """
    codec = codec or _json(stream)
    try:
        said = known_at_of(record.headers)
    except ValueError as error:
        raise RejectEvent("bad_headers", str(error)) from error
    event = codec.decode(record.value)
    validator = stream.validator()
    try:
        # Most events have no fault: only one that has is gone through again, to name it.
        fault = None if validator.is_valid(event) else next(iter(validator.iter_errors(event)))
    except (ValueError, RecursionError) as error:
        raise RejectEvent("schema", f"nested too deeply to check: {error}") from error
    if fault is not None:
        where = pointer(fault.instance_path) or "/"
        raise RejectEvent("schema", f"{where}: {words_of(fault, 500)}")
    time = stream.time_of(event)
    known = record.timestamp * 1000 if said is None else said
    if known > now() + MAX_AHEAD:
        whose = "Kafka's timestamp" if said is None else "ce_knownat"
        raise RejectEvent(
            "too_early", f"{whose} is more than 5 minutes ahead of the clock here; nobody can know it yet"
        )
    if time > known + MAX_AHEAD:
        raise RejectEvent(
            "too_early",
            f"{stream.time} {to_rfc3339(time)} is more than 5 minutes ahead of {to_rfc3339(known)}, when it was known",
        )
    return UserEvent(record, event, time, max(known, time))


def read_batch(stream: Stream, batch: Batch, codec: Codec | None = None) -> tuple[list[UserEvent], list[Rejected]]:
    """The good events of a batch, in order, and the records that cannot be used: `read_event` for each of them."""
    good: list[UserEvent] = []
    bad: list[Rejected] = []
    codec = codec or _json(stream)
    if codec is not JSON:
        for record in batch.records:
            try:
                good.append(read_event(stream, record, codec))
            except RejectEvent as error:
                bad.append(Rejected(record, error))
        return good, bad
    is_valid, time_field, latest = stream.validator().is_valid, stream.time, now() + MAX_AHEAD
    for record in batch.records:
        # The way of a good event, written out, since the calls cost more than the work. Whatever is odd goes the long way.
        try:
            raw = record.value
            event = _decode(raw)  # type: ignore[arg-type]
            if raw.count(b"[") + raw.count(b"{") > DEEPEST or not is_valid(event):  # type: ignore[union-attr]
                raise ValueError
            time = parse_rfc3339(event[time_field])
            known = record.timestamp * 1000
            for name, said in record.headers:
                if name == "ce_knownat":
                    known = from_rfc3339(said.decode())
                    break
            if time > known + MAX_AHEAD or known > latest:
                raise ValueError
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError):
            try:
                good.append(read_event(stream, record, codec))
            except RejectEvent as error:
                bad.append(Rejected(record, error))
        else:
            good.append(UserEvent(record, event, time, known if known > time else time))
    return good, bad


def ids_of(stream: Stream, events: Sequence[UserEvent]) -> list[Any]:
    """What each event is known by: the stream's id field; where it has none, the CloudEvent's source and id. None: nothing."""
    if stream.id is None:
        return [identity_of(one.record.headers) for one in events]
    return [one.event.get(stream.id) for one in events]


def _json(stream: Stream) -> Codec:
    if stream.format != "json":
        raise BadSetup(f"stream {stream.name} is in {stream.format}, and whoever reads it was given no codec")
    return JSON


_decode = msgspec.json.Decoder().decode
