"""A dead letter as it lies in its topic: the record as it came, with what was wrong with it in headers of its own.

Beside the letters lie marks, which say what was sent back to where it came from: whoever replays twice reads them first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from millstream.contracts.envelope import Headers
from millstream.contracts.times import to_rfc3339

PREFIX = "millstream-dlq-"
REPLAYED = f"{PREFIX}replayed"
"""Header of a mark; its value is the version of the mark's body."""


class Kept(Protocol):
    """A record of a dead-letter topic (aiokafka's ConsumerRecord fits)."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A record that a consumer group could not use."""

    dead_letter_topic: str
    partition: int
    """Of the dead-letter topic, as is the offset."""
    offset: int
    buried_at: int
    """When it became a dead letter, microseconds."""
    topic: str
    """Where it came from, as do the next three."""
    source_partition: int
    source_offset: int
    source_timestamp: int
    """Kafka's own time, milliseconds: the known-at of an event that does not say one."""
    group: str
    """Who could not use it."""
    reason: str
    detail: str
    cut: bool
    """It was too large to be kept whole; what lies at its source is."""
    key: bytes | None
    value: bytes
    headers: Headers
    """As it came."""

    @property
    def id(self) -> str:
        """`ce_id`; empty where it has none that can be read."""
        return self._said("ce_id")

    @property
    def producer(self) -> str:
        """`ce_source`; empty where nobody said it, as Kafka itself knows no producers."""
        return self._said("ce_source")

    def _said(self, header: str) -> str:
        return next((value.decode("utf-8", "replace") for name, value in self.headers if name == header), "")


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Dead letters of one partition that were sent back to where they came from."""

    partition: int
    offsets: tuple[int, ...]

    def record(self) -> tuple[bytes, Headers]:
        """Value and headers of the mark in the letters' own topic."""
        return msgspec.json.encode(self), [(REPLAYED, b"1")]


class Tally(msgspec.Struct, kw_only=True):
    """Letters of one topic, group and reason."""

    topic: str
    group: str
    reason: str
    letters: int = 0
    replayed: int = 0
    first: str = ""
    last: str = ""
    """When the first and the last of them became dead letters."""
    example: str = ""
    """What was wrong with the last one."""


class Tallies:
    """Counts letters by topic, group and reason."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], Tally] = {}

    def add(self, letter: DeadLetter, *, replayed: bool) -> None:
        name = letter.topic, letter.group, letter.reason
        one = self._found.setdefault(name, Tally(topic=name[0], group=name[1], reason=name[2]))
        at = to_rfc3339(letter.buried_at)
        one.letters += 1
        one.replayed += replayed
        one.first = min(one.first or at, at)
        if at >= one.last:
            one.last, one.example = at, letter.detail

    def all(self) -> list[Tally]:
        """The newest last."""
        return sorted(self._found.values(), key=lambda one: one.last)


_MARK = msgspec.json.Decoder(Mark)


def letter_of(record: Kept) -> DeadLetter | None:
    """The dead letter in `record`; None for a mark, and for what is neither."""
    # The last of a name is ours: a letter that was replayed, or a stranger's record, may have brought others of it.
    why = {name[len(PREFIX) :]: value for name, value in record.headers if name.startswith(PREFIX)}
    try:
        return DeadLetter(
            dead_letter_topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            buried_at=record.timestamp * 1000,
            topic=why["topic"].decode(),
            source_partition=int(why["partition"]),
            source_offset=int(why["offset"]),
            source_timestamp=int(why["timestamp"]),
            group=why["group"].decode(),
            reason=why["reason"].decode(),
            detail=why["detail"].decode("utf-8", "replace"),
            cut="cut" in why,
            key=record.key,
            value=record.value or b"",
            headers=came_with(record.headers),
        )
    except (KeyError, ValueError):
        return None


def mark_of(record: Kept) -> Mark | None:
    """The mark in `record`. A dead letter is none, whatever headers it came with."""
    names = [name for name, _ in record.headers]
    if REPLAYED not in names or f"{PREFIX}reason" in names:
        return None
    try:
        return _MARK.decode(record.value or b"")
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None


def came_with(headers: Iterable[tuple[str, bytes]]) -> Headers:
    """Without what was said about the dead letter."""
    return [(name, value) for name, value in headers if not name.startswith(PREFIX)]


def source_of(dead_letter_topic: str, topics: Iterable[str]) -> tuple[str, str] | None:
    """(topic, group) of a dead-letter topic, by the topics there are; None for a name that is none, or of no topic.

    Both halves may have dashes: the longest topic that fits is meant.
    """
    if not dead_letter_topic.endswith("-dlq"):
        return None
    fitting = [t for t in topics if dead_letter_topic.startswith(f"{t}-") and len(dead_letter_topic) > len(t) + 5]
    if not fitting:
        return None
    topic = max(fitting, key=len)
    return topic, dead_letter_topic[len(topic) + 1 : -len("-dlq")]
