"""What a loop's own topics say, as a list: read whole from Kafka, or from the file that a demo leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from millstream.contracts.envelope import Headers, envelope_of
from millstream.contracts.events import EVENTS, Event, decode_event
from millstream.contracts.topics import MODELS, REPLICAS, RETRAIN, SKEW, TRAINING, VERDICTS
from millstream.runtime.kafka_clients import Consumer
from millstream.runtime.kafka_security import Bootstrap
from millstream_cli.errors import CommandFailed, Stuck

TOPICS = tuple(topic.name for topic in (VERDICTS, RETRAIN, TRAINING, MODELS, SKEW, REPLICAS))

READ_WITHIN = 120.0
"""Seconds to read them: thousands of records a year of stream time."""

_TYPES = {event.type_name: event for event in EVENTS}


@dataclass(frozen=True, slots=True)
class Told:
    """One event of the story."""

    id: str
    caused_by: str | None
    event: Event

    @property
    def loop(self) -> str:
        return str(getattr(self.event, "loop", ""))


def told_of(headers: Headers, value: bytes | None) -> Told | None:
    """One record; None for somebody else's in our topic (the services dead-letter it) and for what a newer release says."""
    try:
        envelope = envelope_of(headers)
        event = decode_event(envelope.type, value or b"")
    except (ValueError, RecursionError):
        return None
    return None if event is None else Told(envelope.id, envelope.causation_id, event)


def in_order(topics: Iterable[Sequence[ConsumerRecord]]) -> list[ConsumerRecord]:
    """Records of several topics in the order in which they were said, by Kafka's times; of one topic always by its offsets.

    Where the times are the same the topic that was named first comes first.
    """
    placed: list[tuple[int, ConsumerRecord]] = []
    for records in topics:
        said = 0
        for record in records:
            said = max(said, record.timestamp)
            placed.append((said, record))
    return [record for _, record in sorted(placed, key=lambda one: one[0])]


async def read_journal(bootstrap: Bootstrap) -> list[Told]:
    """Everything in the topics now, each id once, in the order in which it was said. Raises Stuck."""
    consumer = Consumer(bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    try:
        async with asyncio.timeout(READ_WITHIN):
            await consumer.start()
            return await _read(consumer)
    except (TimeoutError, KafkaError) as error:
        raise Stuck(f"the loops' topics could not be read from Kafka at {bootstrap}: {error!r}") from error
    finally:
        await consumer.stop()


async def _read(consumer: Consumer) -> list[Told]:
    there = await consumer.topics()
    partitions = [
        TopicPartition(topic, n)
        for topic in TOPICS  # one that is missing has nothing to say: an older mill has no replicas' topic
        if topic in there
        for n in sorted(consumer.partitions_for_topic(topic) or {0})
    ]
    consumer.assign(partitions)
    await consumer.seek_to_beginning(*partitions)
    ends = await consumer.end_offsets(partitions)
    read: dict[TopicPartition, list[ConsumerRecord]] = {partition: [] for partition in partitions}
    while any([await consumer.position(p) < end for p, end in ends.items()]):
        for partition, records in (await consumer.getmany(timeout_ms=200)).items():
            read[partition] += records
    found: dict[str, Told] = {}
    for record in in_order(read.values()):
        told = told_of(record.headers, record.value)
        if told is not None:
            found.setdefault(told.id, told)
    return list(found.values())


def read_file(path: Path) -> list[Told]:
    """What `write_file` wrote. Raises CommandFailed, naming the line that is none of ours."""
    if not path.is_file():
        raise CommandFailed(f"{path}: no such file; name one that a demo wrote, like out/journal.jsonl")
    found: dict[str, Told] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                told = _row(path, number, line)
                found.setdefault(told.id, told)
    return list(found.values())


def _row(path: Path, number: int, line: bytes) -> Told:
    try:
        return told_in(msgspec.json.decode(line, type=dict[str, Any]))
    except (ValueError, KeyError, RecursionError) as error:
        raise CommandFailed(
            f"{path}:{number}: {error}; a line is one event as JSON, with its type, id and caused_by, as in out/journal.jsonl"
        ) from error


def write_file(path: Path, told: Iterable[Told]) -> None:
    """One event a line, as JSON."""
    with path.open("wb") as file:
        for one in told:
            file.write(msgspec.json.encode(row_of(one)) + b"\n")


def told_in(row: Mapping[str, Any]) -> Told:
    """What `row_of` made a row. Raises ValueError, KeyError."""
    return Told(str(row["id"]), row.get("caused_by"), msgspec.convert(row, _TYPES[row["type"]]))


def row_of(told: Told) -> dict[str, Any]:
    """An event as a row: its id, its cause, its type, and what it says."""
    body: dict[str, Any] = msgspec.to_builtins(told.event)
    return {"id": told.id, "caused_by": told.caused_by, "type": told.event.type_name} | body
