"""Publishing to Kafka: idempotent, acks=all, and a bounded wait after which the answer is "unknown"."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.partitioner import DefaultPartitioner

from millstream.contracts.envelope import Envelope, Headers
from millstream.contracts.events import Event
from millstream.contracts.times import now
from millstream.errors import DeliveryUnknown, RejectEvent
from millstream.runtime.metrics import RuntimeMetrics
from millstream.runtime.tracing import current_traceparent

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 1024 * 1024
"""Kafka's own default limit for a record batch."""
MAX_RECORD_BYTES = MAX_REQUEST_BYTES - 4096
"""What is left of it for one record, as `Outgoing.size` counts; the request and the batch around it need some, too."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One record on its way out."""

    topic: str
    key: bytes | None
    value: bytes
    headers: Headers

    @property
    def size(self) -> int:
        """Bytes in a batch, at most: key, value and headers with their lengths."""
        return len(self.value) + len(self.key or b"") + sum(len(n) + len(v) + 10 for n, v in self.headers) + 40


class Publisher:
    """Sends records and returns when every in-sync replica has them. One per process; safe for concurrent use."""

    def __init__(self, *, bootstrap: str, source: str, timeout: float, metrics: RuntimeMetrics) -> None:
        self._bootstrap = bootstrap
        self._source = source
        self._timeout = timeout
        self._metrics = metrics
        self._producer: AIOKafkaProducer | None = None
        self._partitioner = DefaultPartitioner()

    @property
    def source(self) -> str:
        """`ce_source` of what this process says."""
        return self._source

    async def start(self) -> None:
        """Connect. Raises KafkaError when Kafka is not there; the caller tries again."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
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
        self._producer = producer

    async def stop(self) -> None:
        if self._producer is not None:
            producer, self._producer = self._producer, None
            await producer.stop()

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
        Raises RejectEvent("too_large") when a record exceeds Kafka's limit; nothing of this call is sent then.
        """
        if not records:
            return
        producer = self._producer
        if producer is None:
            raise DeliveryUnknown("Kafka is not connected yet")
        for record in records:
            if record.size > MAX_RECORD_BYTES:
                raise RejectEvent("too_large", f"a record of {record.size} bytes; Kafka takes {MAX_RECORD_BYTES}")
        try:
            async with asyncio.timeout(self._timeout):
                await self._send(producer, records)
        except (TimeoutError, KafkaError) as error:
            for topic in {record.topic for record in records}:
                self._metrics.publish_unknown.labels(topic).inc()
            if isinstance(error, MessageSizeTooLargeError):
                raise RejectEvent("too_large", str(error)) from error
            raise DeliveryUnknown(
                f"Kafka did not confirm {len(records)} records within {self._timeout:.0f} s: {error or 'timeout'}"
            ) from error
        for topic, count in Counter(record.topic for record in records).items():
            self._metrics.published.labels(topic).inc(count)

    async def _send(self, producer: AIOKafkaProducer, records: Iterable[Outgoing]) -> None:
        # Batches by partition cost a quarter of the same records sent one by one: most of `send` is per call.
        partitions: dict[str, list[int]] = {}
        by_partition: dict[tuple[str, int], list[Outgoing]] = {}
        for record in records:
            if record.topic not in partitions:
                partitions[record.topic] = sorted(await producer.partitions_for(record.topic))
            chosen = self._partition(partitions[record.topic], record)
            by_partition.setdefault((record.topic, chosen), []).append(record)
        confirmations = []
        for (topic, partition), group in by_partition.items():
            batch = producer.create_batch()
            for record in group:
                added = batch.append(key=record.key, value=record.value, timestamp=None, headers=record.headers)
                if added is None:
                    confirmations.append(await producer.send_batch(batch, topic, partition=partition))
                    batch = producer.create_batch()
                    if batch.append(key=record.key, value=record.value, timestamp=None, headers=record.headers) is None:
                        raise MessageSizeTooLargeError(f"one record of {len(record.value)} bytes does not fit a batch")
            confirmations.append(await producer.send_batch(batch, topic, partition=partition))
        await asyncio.gather(*confirmations)

    def _partition(self, partitions: list[int], record: Outgoing) -> int:
        if len(partitions) == 1 or record.key is None:
            return partitions[0]
        return int(self._partitioner(record.key, partitions, partitions))
