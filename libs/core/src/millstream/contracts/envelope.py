"""CloudEvents 1.0 in Kafka binary mode: what travels in a record's headers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from millstream.contracts.times import from_rfc3339, to_rfc3339

Headers = list[tuple[str, bytes]]

INGEST = "millstream/ingest"
"""`ce_source` of user events whose producer does not name itself. Of every replica the same: a retry may reach another."""
_OWN_ID = 64
"""Bytes. Ids that ingest derives have 32."""

_SAME_FOR_ALL: Headers = [("ce_specversion", b"1.0"), ("content-type", b"application/json")]


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """Who said what, when, and because of what."""

    id: str
    type: str
    source: str
    time: int | None = None
    """When it was said (microseconds); producers may leave it out."""
    known_at: int | None = None
    """`ce_knownat`: when it could first have been known. A replay sets it to its simulated clock; else Kafka's time holds."""
    causation_id: str | None = None
    """Id of the event that caused this one: `millstream why` follows these."""
    traceparent: str | None = None

    def headers(self) -> Headers:
        found: Headers = [
            *_SAME_FOR_ALL,
            ("ce_id", self.id.encode()),
            ("ce_type", self.type.encode()),
            ("ce_source", self.source.encode()),
        ]
        if self.time is not None:
            found.append(("ce_time", to_rfc3339(self.time).encode()))
        if self.known_at is not None:
            found.append(("ce_knownat", to_rfc3339(self.known_at).encode()))
        if self.causation_id is not None:
            found.append(("ce_causationid", self.causation_id.encode()))
        if self.traceparent is not None:
            found.append(("traceparent", self.traceparent.encode()))
        return found


class Stamp:
    """Envelopes of one type and source: what they share is encoded once, because ingest writes tens of thousands a second."""

    def __init__(self, type: str, source: str) -> None:
        self._same: Headers = [*_SAME_FOR_ALL, ("ce_type", type.encode()), ("ce_source", source.encode())]

    def headers(
        self, id: bytes, time: str, known_at: int | None, traceparent: str | None, caused_by: bytes | None = None
    ) -> Headers:
        """What `Envelope.headers` gives, in another order; `time` as `to_rfc3339` writes it."""
        found = [*self._same, ("ce_id", id), ("ce_time", time.encode())]
        if known_at is not None:
            found.append(("ce_knownat", to_rfc3339(known_at).encode()))
        if caused_by is not None:
            found.append(("ce_causationid", caused_by))
        if traceparent is not None:
            found.append(("traceparent", traceparent.encode()))
        return found


def envelope_of(headers: Iterable[tuple[str, bytes]]) -> Envelope:
    """Read the envelope of a record; strangers may write anything, so what is missing becomes empty or None.

    Raises ValueError where a header that is there cannot be read (not UTF-8, a time that is no time).
    """
    found: dict[str, str] = {}
    for name, value in headers:
        if name.startswith("ce_") or name == "traceparent":
            try:
                found[name] = value.decode()
            except UnicodeDecodeError as error:
                raise ValueError(f"header {name} is not UTF-8") from error
    try:
        said, known = found.get("ce_time"), found.get("ce_knownat")
        return Envelope(
            id=found.get("ce_id", ""),
            type=found.get("ce_type", ""),
            source=found.get("ce_source", ""),
            time=from_rfc3339(said) if said else None,
            known_at=from_rfc3339(known) if known else None,
            causation_id=found.get("ce_causationid"),
            traceparent=found.get("traceparent"),
        )
    except ValueError as error:
        raise ValueError(f"header ce_time or ce_knownat: {error}") from error


def origin_of(headers: Iterable[tuple[str, bytes]]) -> tuple[str, str]:
    """`ce_id` and `ce_source` alone, for who reads tens of thousands a second. Raises ValueError where `envelope_of` does."""
    id = source = ""
    for name, value in headers:
        if not name.startswith("ce_") and name != "traceparent":
            continue
        try:
            said = value.decode()
            if name == "ce_id":
                id = said
            elif name == "ce_source":
                source = said
            elif said and name in ("ce_time", "ce_knownat"):
                from_rfc3339(said)
        except UnicodeDecodeError as error:
            raise ValueError(f"header {name} is not UTF-8") from error
        except ValueError as error:
            raise ValueError(f"header ce_time or ce_knownat: {error}") from error
    return id, source


def identity_of(headers: Iterable[tuple[str, bytes]]) -> str | None:
    """What tells a record's event from every other, where the stream has no id field; None without a `ce_id`.

    An id is one of its source's own (CloudEvents 1.0, 3.1.1), so both are in it, in 32 characters; what ingest derives from an
    event's content stays as it is.
    """
    id, source = b"", b""
    for name, value in headers:
        if name == "ce_id":
            id = value
        elif name == "ce_source":
            source = value
    if not id:
        return None
    if source == _INGEST and len(id) <= _OWN_ID:
        return id.decode("utf-8", "replace")
    return hashlib.sha256(source + b"\x1f" + id).hexdigest()[:32]


_INGEST = INGEST.encode()


def known_at_of(headers: Iterable[tuple[str, bytes]]) -> int | None:
    """`ce_knownat` alone (microseconds), for readers that need nothing else of the envelope. Raises ValueError."""
    for name, value in headers:
        if name == "ce_knownat":
            try:
                return from_rfc3339(value.decode())
            except ValueError as error:
                raise ValueError(f"header ce_knownat: {error}") from error
    return None


def derived_id(*parts: str) -> str:
    """An id that is the same for the same cause: a repeat of the work repeats the id, and the reader drops it."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]
