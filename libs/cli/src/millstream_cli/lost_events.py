"""Events that are in a stream's topic and not in its lake, fetched one by one where the lake has a hole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aiokafka import TopicPartition

from millstream.errors import RejectEvent, RetryLater
from millstream.project import Stream
from millstream.runtime.codecs import Codecs
from millstream.runtime.kafka_clients import Consumer
from millstream.runtime.kafka_security import Bootstrap
from millstream.runtime.records import Batch
from millstream.runtime.schema_registry import RegistrySettings
from millstream.runtime.user_events import ids_of, read_event
from millstream_cli.errors import Stuck
from millstream_tiles.join_events import ID
from millstream_tiles.keys import key_text
from millstream_tiles.recount import Event

MOST = 500
"""Offsets that are looked up: each is a request of a few milliseconds. Dead letters are among them, and are no events."""


async def lost_events(bootstrap: Bootstrap, stream: Stream, offsets: Mapping[int, Sequence[int]]) -> list[Event]:
    """The good events of `stream` at these offsets (partition -> offsets), as far as the topic still has them. Raises Stuck."""
    wanted = {TopicPartition(stream.name, p): sorted(some)[:MOST] for p, some in offsets.items()}
    if not any(wanted.values()):
        return []
    codecs = Codecs({stream.name: stream}, RegistrySettings.of_environment())
    consumer = Consumer(bootstrap, enable_auto_commit=False, auto_offset_reset="none")
    await consumer.start()
    try:
        await consumer._client.add_topic(stream.name)
        known = consumer.partitions_for_topic(stream.name) or set()
        wanted = {p: some for p, some in wanted.items() if p.partition in known}
        consumer.assign(list(wanted))
        first, after = await consumer.beginning_offsets(list(wanted)), await consumer.end_offsets(list(wanted))
        found: list[Event] = []
        for partition, some in wanted.items():
            found += await _of(
                consumer, stream, codecs, partition, [o for o in some if first[partition] <= o < after[partition]]
            )
        return found
    finally:
        await consumer.stop()
        await codecs.close()


async def _of(
    consumer: Consumer, stream: Stream, codecs: Codecs, partition: TopicPartition, offsets: Sequence[int]
) -> list[Event]:
    found, following = [], -1
    for offset in offsets:
        if offset < following:
            continue  # the record before this one was the next that there is
        consumer.seek(partition, offset)
        records = (await consumer.getmany(partition, timeout_ms=2000, max_records=1)).get(partition, [])
        if not records:
            break
        following = records[0].offset
        if following != offset:
            continue
        try:
            await codecs.prepare(Batch(stream.name, partition.partition, offset, offset, records))
            event = read_event(stream, records[0], codecs[stream.name])
        except RejectEvent:
            continue
        except RetryLater as error:
            raise Stuck(f"{stream.name} cannot be read: {error}") from error
        columns = dict(event.event) | {ID: key_text(ids_of(stream, [event])[0])}
        found.append(
            Event(
                event_time=event.time,
                known_at=event.known_at,
                partition=partition.partition,
                offset=offset,
                columns=columns,
            )
        )
    return found
