"""A Kafka record as a handler gets it, batches of them, and what becomes of one that nobody can use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from millstream.contracts.envelope import Envelope, envelope_of, origin_of
from millstream.contracts.topics import dead_letter_topic
from millstream.errors import RejectEvent
from millstream.runtime.publisher import MAX_RECORD_BYTES, Outgoing

KEPT = MAX_RECORD_BYTES // 3
"""Bytes of a value, and of key and headers together, that a cut dead letter keeps."""


class Record(Protocol):
    """A Kafka record as it lies in the topic (aiokafka's ConsumerRecord fits)."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    """Kafka's own time, milliseconds."""
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


def envelope(record: Record) -> Envelope:
    """The record's envelope. Raises RejectEvent("bad_headers")."""
    try:
        return envelope_of(record.headers)
    except ValueError as error:
        raise RejectEvent("bad_headers", str(error)) from error


def origin(record: Record) -> tuple[str, str]:
    """Id and source of the record's envelope. Raises RejectEvent("bad_headers")."""
    try:
        return origin_of(record.headers)
    except ValueError as error:
        raise RejectEvent("bad_headers", str(error)) from error


def known_at(record: Record, found: Envelope) -> int:
    """When the event could first have been known (microseconds): `ce_knownat`, else Kafka's time."""
    return found.known_at if found.known_at is not None else record.timestamp * 1000


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive records of one partition."""

    topic: str
    partition: int
    start: int
    """First offset covered; below `records[0].offset` where the log has a gap (transactions, compaction)."""
    end: int
    """Last offset covered."""
    records: Sequence[Record]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that the handler could not use: it goes to the dead letters, the others of its batch are done."""

    record: Record
    error: RejectEvent


def dead_letter(rejected: Rejected, group: str) -> Outgoing:
    """The record as it came, with what was wrong with it in headers of its own.

    One that was almost too large for Kafka leaves no room for them: it is cut, and the header `millstream-dlq-cut` says
    so; the whole one lies at the topic, partition and offset that the other headers name.
    """
    record, error = rejected.record, rejected.error
    topic = dead_letter_topic(record.topic, group)
    why = [
        ("millstream-dlq-reason", error.reason.encode()),
        ("millstream-dlq-detail", error.detail[:2000].encode("utf-8", "replace")),
        ("millstream-dlq-group", group.encode()),
        ("millstream-dlq-topic", record.topic.encode()),
        ("millstream-dlq-partition", str(record.partition).encode()),
        ("millstream-dlq-offset", str(record.offset).encode()),
        ("millstream-dlq-timestamp", str(record.timestamp).encode()),
    ]
    whole = Outgoing(topic, record.key, record.value or b"", [*record.headers, *why])
    if whole.size <= MAX_RECORD_BYTES:
        return whole
    why.append(("millstream-dlq-cut", str(whole.size).encode()))
    beside = whole.size - len(whole.value)
    if beside <= KEPT:
        return Outgoing(topic, whole.key, whole.value[:KEPT], [*record.headers, *why])
    return Outgoing(topic, None, whole.value[:KEPT], why)
