"""What the runtime's tests on a real Kafka need: fresh topics, records in and out, services that run for a while."""

from __future__ import annotations

import asyncio
import inspect
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from millstream.contracts.topics import dead_letter_topic
from millstream.runtime.delivery import Batch, Record, Rejected, Retry
from millstream.runtime.service import Service
from millstream.runtime.settings import ServiceSettings
from millstream.runtime.topic_admin import TopicSpec, ensure_topics

HASTY = Retry(first=0.01, ceiling=0.05, patience=0.2)
"""Patience for tests: what takes half a minute in production takes a fifth of a second."""


def service(bootstrap: str, **settings: Any) -> Service:
    """A service without doorways. Its session is a service's own: it beats every second, and outlives a machine that stands
    still for some."""
    chosen: dict[str, Any] = {"kafka": bootstrap, "instance": "test"} | settings
    return Service("test", ServiceSettings(**chosen), title="test")


@asynccontextmanager
async def running(first: Service, *others: Service) -> AsyncIterator[None]:
    """Start and stop services as their server does."""
    async with first.app.router.lifespan_context(first.app):
        if others:
            async with running(*others):
                yield
        else:
            yield


async def until(condition: Callable[[], object], within: float = 40.0) -> None:
    """Wait until `condition()` holds; it looks at another task's or library's state. Raises TimeoutError."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


DAY = timedelta(days=1)


async def new_topic(bootstrap: str, *groups: str, partitions: int = 1, retention: timedelta | None = DAY) -> str:
    """A topic of its own for one test, with the dead letters of `groups`."""
    name = f"flights-{uuid.uuid4().hex[:8]}"
    dead = [TopicSpec(name=dead_letter_topic(name, g), partitions=1, retention=DAY) for g in groups]
    await ensure_topics(bootstrap, [TopicSpec(name=name, partitions=partitions, retention=retention), *dead])
    return name


Sent = tuple[bytes | None, bytes, list[tuple[str, bytes]]]
"""Key, value, headers."""


def flight(number: int, *headers: tuple[str, bytes]) -> Sent:
    return b"N%d" % number, b'{"flight": %d}' % number, list(headers)


async def produce(bootstrap: str, topic: str, *records: Sent, partition: int = 0) -> None:
    """Write records as any stranger would: raw bytes, in order."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", max_request_size=2 * 1024 * 1024)
    await producer.start()
    try:
        for key, value, headers in records:
            await producer.send_and_wait(topic, value, key=key, partition=partition, headers=headers)
    finally:
        await producer.stop()


async def read(bootstrap: str, topic: str, count: int, within: float = 30.0) -> list[Any]:
    """The first `count` records of a topic. Raises TimeoutError when there are fewer."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        async with asyncio.timeout(within):
            return [await consumer.getone() for _ in range(count)]
    finally:
        await consumer.stop()


async def length(bootstrap: str, topic: str, partition: int = 0) -> int:
    """Records that the topic's partition has got so far."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        where = TopicPartition(topic, partition)
        return int((await consumer.end_offsets([where]))[where])
    finally:
        await consumer.stop()


async def committed(bootstrap: str, group: str, topic: str, partition: int = 0) -> int:
    """Where the group would go on; 0 as well where it has not committed."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        found = await admin.list_consumer_group_offsets(group)
    finally:
        await admin.close()
    position = found.get(TopicPartition(topic, partition))
    return 0 if position is None else max(0, int(position.offset))


class Ledger:
    """A handler that writes down what it was given, and does what the test asks with certain values."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.records: list[Record] = []
        self.on: dict[bytes, Callable[[Record], object]] = {}
        """Value → what to do with that record; may raise, or return an awaitable, or a Rejected."""

    @property
    def values(self) -> list[bytes]:
        """Of every record that was handled, in order, repeats included."""
        return [record.value or b"" for record in self.records]

    async def __call__(self, batch: Batch) -> Sequence[Rejected]:
        self.batches.append(batch)
        rejected: list[Rejected] = []
        for record in batch.records:
            asked = self.on.get(record.value or b"")
            said = asked(record) if asked else None
            if inspect.isawaitable(said):
                said = await said
            if isinstance(said, Rejected):
                rejected.append(said)
        self.records += batch.records
        return rejected
