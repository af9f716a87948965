"""Publishing to Kafka: idempotent, acks=all, and a bounded wait after which the answer is "unknown"."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
from aiokafka.errors import (
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    KafkaError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
)

from millstream.contracts.envelope import Envelope, Headers
from millstream.contracts.events import Event
from millstream.contracts.times import now
from millstream.errors import DeliveryUnknown, NotSent, RejectEvent
from millstream.runtime.flights import Flights
from millstream.runtime.kafka_clients import Producer
from millstream.runtime.kafka_security import Bootstrap
from millstream.runtime.metrics import RuntimeMetrics
from millstream.runtime.tracing import current_traceparent

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 1024 * 1024
"""Kafka's own default limit for a record batch."""
MAX_RECORD_BYTES = MAX_REQUEST_BYTES - 4096
"""What is left of it for one record, as `Outgoing.size` counts; the request and the batch around it need some, too."""

STOP = 5.0
"""Seconds for what is still on its way when a service stops; whoever sent it has been told by then that nobody knows."""


BEGIN_AGAIN = 1.0
"""Seconds between two tries to have a new producer."""
LOST_COUNT = (OutOfOrderSequenceNumber, InvalidProducerEpoch, InvalidProducerIdMapping, ProducerFenced)
"""What Kafka says to a producer whose records it takes no more: it counts on from a number that Kafka never saw (the client
gives up a batch whose partition has no leader, and counts it all the same), or Kafka has forgotten who it is. Such a client
never recovers by itself."""


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """One record on its way out."""

    topic: str
    key: bytes | None
    value: bytes
    headers: Headers

    @property
    def size(self) -> int:
        """Bytes in a batch, at most: key, value and headers with their lengths."""
        size = len(self.value) + len(self.key or b"") + 40
        for name, value in self.headers:  # a sum() of a generator costs twice as much
            size += len(name) + len(value) + 10
        return size


class Publisher:
    """Sends records and returns when every in-sync replica has them. One per process; safe for concurrent use."""

    def __init__(self, *, bootstrap: Bootstrap, source: str, timeout: float, metrics: RuntimeMetrics) -> None:
        self._bootstrap = bootstrap
        self._source = source
        self._timeout = timeout
        self._metrics = metrics
        self._producer: Producer | None = None
        self._flights: Flights | None = None
        self._renewing: asyncio.Task[None] | None = None

    @property
    def source(self) -> str:
        """`ce_source` of what this process says."""
        return self._source

    async def start(self) -> None:
        """Connect. Raises KafkaError when Kafka is not there; the caller tries again."""
        producer = Producer(
            self._bootstrap,
            acks="all",
            enable_idempotence=True,
            # Batches of our own making are sent as they are; 256 KiB holds a poll's worth and stays under the limit.
            max_batch_size=256 * 1024,
            max_request_size=MAX_REQUEST_BYTES,
            linger_ms=0,
            request_timeout_ms=10_000,
        )
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        self._producer, self._flights = producer, Flights(producer)

    async def stop(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        if self._producer is not None:
            producer, self._producer = self._producer, None
            await _leave(producer)

    @property
    def started(self) -> bool:
        return self._producer is not None

    def outgoing(self, topic: str, event: Event, *, id: str, key: str, caused_by: str | None = None) -> Outgoing:
        """One of our own events, wrapped for its topic."""
        envelope = Envelope(
            id=id,
            type=event.type_name,
            source=self._source,
            time=now(),
            causation_id=caused_by,
            traceparent=current_traceparent(),
        )
        return Outgoing(topic, key.encode(), event.encode(), envelope.headers())

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Send and wait for all. Order is kept per (topic, key).

        Raises DeliveryUnknown when Kafka did not confirm in time: some records may be there; ids make a repeat harmless.
        Its `confirmed` says which are; its kind NotSent says that none is.
        Raises RejectEvent("too_large") when a record exceeds Kafka's limit; nothing of this call is sent then.
        """
        for record in records:
            if record.size > MAX_RECORD_BYTES:
                raise RejectEvent("too_large", f"a record of {record.size} bytes; Kafka takes {MAX_RECORD_BYTES}")
        await self.publish_fitting(records)

    async def publish_fitting(self, records: Sequence[Outgoing]) -> None:
        """`publish` for who has seen to it that each record is small enough: to weigh them is a tenth of ingest's work."""
        if not records:
            return
        producer, flights = self._producer, self._flights
        if producer is None or flights is None:
            raise NotSent("Kafka is not connected yet")
        topics = Counter([record.topic for record in records]) if len(records) > 1 else {records[0].topic: 1}
        delivery = None
        try:
            partitions = {topic: await self._partitions(producer, topic) for topic in topics}
            delivery = flights.board(records, partitions, self._timeout)
            await delivery.done
        except (TimeoutError, KafkaError) as error:
            for topic in topics:
                self._metrics.publish_unknown.labels(topic).inc()
            if isinstance(error, LOST_COUNT) or _has_ended(producer):
                self._renew(producer, error)
            if isinstance(error, MessageSizeTooLargeError):
                raise RejectEvent("too_large", str(error)) from error
            waited = f"Kafka did not confirm {len(records)} records within {self._timeout:.0f} s"
            if delivery is None or not delivery.departed:
                raise NotSent(f"{waited}, and none of them was sent: {error or 'timeout'}") from error
            confirmed = flights.confirmed(delivery, records, partitions)
            raise DeliveryUnknown(f"{waited}: {error or 'timeout'}", confirmed=confirmed) from error
        for topic, count in topics.items():
            self._metrics.published.labels(topic).inc(count)

    def _renew(self, broken: Producer, why: Exception) -> None:
        """Go on with another producer. What the broken one has not sent, its callers send again, as after any failure."""
        if self._producer is broken:
            log.error("Kafka takes nothing more of this producer, a new one follows: %s", why)
            self._producer = self._flights = None
            self._renewing = asyncio.create_task(self._begin_again(broken))

    async def _begin_again(self, broken: Producer) -> None:
        broken._message_accumulator.fail_all(KafkaError("this producer is given up"))
        hear_out(broken)
        await _leave(broken)
        while self._producer is None:
            try:
                await self.start()
            except KafkaError as error:
                log.warning("no new producer yet: %s", error)
                await asyncio.sleep(BEGIN_AGAIN)

    async def _partitions(self, producer: Producer, topic: str) -> list[int]:
        known = producer.client.cluster.partitions_for_topic(topic)
        if not known:
            async with asyncio.timeout(self._timeout):
                known = await producer.partitions_for(topic)
        return sorted(known)


def hear_out(producer: Producer, *more: asyncio.Future[Any]) -> None:
    """Ask the futures that aiokafka tells of an end and nobody waits for: Python would log each as an error never retrieved,
    with a traceback, whenever it happens to collect it."""
    batches = [batch for of_partition in producer._message_accumulator._batches.values() for batch in of_partition]
    for told in (*more, *(batch._drain_waiter for batch in batches)):
        if told.done() and not told.cancelled():
            told.exception()


def _has_ended(producer: Producer) -> bool:
    """Whether the client's own task has stumbled: nothing is sent any more, and nobody is told."""
    sender = producer._sender.sender_task
    return sender is not None and sender.done()


async def _leave(producer: Producer) -> None:
    try:
        # It waits for what is on its way, and for a Kafka that is frozen that is for ever.
        async with asyncio.timeout(STOP):
            await producer.stop()
    except TimeoutError:
        log.warning("Kafka did not take leave within %.0f s; what it has not confirmed may be lost", STOP)
        await _cut(producer)


async def _cut(producer: Producer) -> None:
    """Close what is open without asking Kafka."""
    sender = producer._sender.sender_task
    if sender is not None:
        sender.cancel()
        await asyncio.wait([sender], timeout=1.0)
    with suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            await producer.client.close()
