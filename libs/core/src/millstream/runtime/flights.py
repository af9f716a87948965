"""Carries records to Kafka in few requests: what many callers send while one is under way leaves together in the next."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Coroutine, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol, cast

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.producer.message_accumulator import BatchBuilder

from millstream.contracts.envelope import Headers
from millstream.runtime import murmur2

FLIGHT_BYTES = 1024 * 1024
"""Values of one partition in one flight. Building that many records takes some milliseconds; the rest is next."""
OVERDUE = 1.0
"""Seconds after which a flight does not hold up its broker's other partitions any more: Kafka confirms in milliseconds, and a
partition that lacks replicas may take for ever."""
REMEMBERED_KEYS = 65_536
"""Keys whose partition is remembered: the hash is Python, and a stream's keys come again. About 10 MB when full."""
MANY = 48
"""Records of one call from which on their keys are hashed at once, where all have one length, as ids have."""


class Parcel(Protocol):
    """One record on its way out."""

    @property
    def topic(self) -> str: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes: ...
    @property
    def headers(self) -> Headers: ...


class Delivery:
    """Records that one caller handed over; `done` is set when Kafka has confirmed all of them."""

    __slots__ = ("_clock", "departed", "done", "left", "open")

    def __init__(self, loop: asyncio.AbstractEventLoop, within: float) -> None:
        self.done: asyncio.Future[None] = loop.create_future()
        self._clock = loop.call_later(within, self._expire)  # a third of what asyncio.timeout costs
        self.left = 0
        """Batches, under way or waiting, that hold some of them."""
        self.departed = False
        """Whether any of them may be in Kafka."""
        self.open: dict[TopicPartition, int] | None = None
        """The same as `left` by partition; None where there is one alone, which is how most of them are."""

    def boarded(self, partition: TopicPartition, batches: int) -> None:
        """`batches` more of its batches are for `partition`; fewer where it is negative."""
        self.left += batches
        if self.open is not None:
            self.open[partition] += batches

    def landed(self, partition: TopicPartition, error: BaseException | None) -> None:
        """One of its batches is confirmed, or is not."""
        self.left -= 1
        if self.open is not None and error is None:
            self.open[partition] -= 1
        if self.left and error is None:
            return
        self._clock.cancel()
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)

    def _expire(self) -> None:
        if not self.done.done():
            self.done.set_exception(TimeoutError())


class _Load(NamedTuple):
    """Some of one delivery's records, all for one partition."""

    delivery: Delivery
    records: list[Parcel]


class _Batch(NamedTuple):
    builder: BatchBuilder
    riders: list[Delivery]


class Flights:
    """One flight per broker at a time, as the producer below has it; with it goes all that waits for that broker.

    Order is kept per partition: what waits leaves in the order in which it came, and when all that left before has landed,
    wherever the partition is led by then. Used from one event loop only.
    """

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[TopicPartition, deque[_Load]] = {}
        self._flying: set[int | None] = set()
        self._aloft: set[TopicPartition] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._due = False

    def board(self, records: Sequence[Parcel], partitions: dict[str, list[int]], within: float) -> Delivery:
        """Take `records` along; `partitions` has those of each of their topics.

        What has not left when `done` is over (after `within` seconds, or cancelled) stays behind.
        """
        delivery = Delivery(self._loop, within)
        loads: defaultdict[TopicPartition, list[Parcel]] = defaultdict(list)
        for record, chosen in zip(records, _chosen(records, partitions), strict=True):
            loads[chosen].append(record)
        delivery.left = len(loads)
        if len(loads) > 1:
            delivery.open = dict.fromkeys(loads, 1)
        for chosen, load in loads.items():
            if (queue := self._waiting.get(chosen)) is None:
                queue = self._waiting[chosen] = deque()
            while queue and queue[0].delivery.done.done():
                queue.popleft()  # given up: while Kafka stalls nothing departs, and what waits must not pile up
            queue.append(_Load(delivery, load))
        if not self._due:
            # Not at once: whoever else is ready to send in this turn of the loop comes along.
            self._due = True
            self._loop.call_soon(self._depart)
        return delivery

    def confirmed(
        self, delivery: Delivery, records: Sequence[Parcel], partitions: dict[str, list[int]]
    ) -> frozenset[int]:
        """Of a delivery that failed, the places of the `records` that Kafka has confirmed: those of whole partitions."""
        if delivery.open is None:
            return frozenset()
        chosen = enumerate(_chosen(records, partitions))
        return frozenset(place for place, partition in chosen if not delivery.open[partition])

    def _depart(self) -> None:
        self._due = False
        flights: dict[int | None, list[TopicPartition]] = {}
        for partition in self._waiting:
            broker = self._producer.client.cluster.leader_for_partition(partition)
            if partition not in self._aloft and broker not in self._flying:
                flights.setdefault(broker, []).append(partition)
        for broker, leaving in flights.items():
            loads = {partition: built for partition in leaving if (built := self._built(partition))}
            if loads:
                self._flying.add(broker)
                self._aloft.update(loads)
                # Each begins before the producer looks: their first batches leave in one request.
                carried = [self._beside(self._carry(partition, batches)) for partition, batches in loads.items()]
                self._beside(self._fly(broker, carried))

    def _beside(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _built(self, partition: TopicPartition) -> list[_Batch]:
        """What leaves for `partition` now, in batches of the producer's size."""
        queue, size = self._waiting[partition], 0
        batches: list[_Batch] = []
        batch: _Batch | None = None
        while queue and size < FLIGHT_BYTES:
            delivery, records = queue.popleft()
            if delivery.done.done():
                continue  # its caller has given up and was told that nothing, or not all, was sent
            delivery.departed = True
            for record in records:
                size += len(record.value)
                if batch is None or not _append(batch.builder, record):
                    batch = _Batch(self._producer.create_batch(), [])
                    batches.append(batch)
                    if not _append(batch.builder, record):
                        # It has a batch to itself and is too large all the same.
                        delivery.landed(partition, MessageSizeTooLargeError(f"one record of {len(record.value)} bytes"))
                        break
                if not batch.riders or batch.riders[-1] is not delivery:
                    batch.riders.append(delivery)
                    delivery.boarded(partition, 1)
            delivery.boarded(partition, -1)
        if not queue:
            del self._waiting[partition]
        return batches

    async def _fly(self, broker: int | None, carried: Sequence[asyncio.Task[None]]) -> None:
        try:
            await asyncio.wait(carried, timeout=OVERDUE)
        finally:
            self._flying.discard(broker)
            self._go_on()

    async def _carry(self, partition: TopicPartition, batches: Sequence[_Batch]) -> None:
        """All that leaves for `partition`; the producer sends one batch of it at a time."""
        try:
            landings = [await self._send(partition, batch) for batch in batches]
            if waits := [landing for landing in landings if landing is not None]:
                await asyncio.wait(waits)
        finally:
            self._aloft.discard(partition)
            if partition in self._waiting:
                self._go_on()

    def _go_on(self) -> None:
        if self._waiting and not self._due:
            self._depart()

    async def _send(self, partition: TopicPartition, batch: _Batch) -> asyncio.Future[None] | None:
        try:
            landing: asyncio.Future[None] = await self._producer.send_batch(
                batch.builder, partition.topic, partition=partition.partition
            )
        except KafkaError as error:
            for delivery in batch.riders:
                delivery.landed(partition, error)
            return None

        def confirmed(done: asyncio.Future[None]) -> None:
            error = done.exception() if not done.cancelled() else KafkaError("the producer was stopped")
            for delivery in batch.riders:
                delivery.landed(partition, error)

        landing.add_done_callback(confirmed)
        return landing


def _append(builder: BatchBuilder, record: Parcel) -> bool:
    added = builder.append(timestamp=None, key=record.key, value=record.value, headers=record.headers)
    return added is not None


def _chosen(records: Sequence[Parcel], partitions: dict[str, list[int]]) -> list[TopicPartition]:
    """Where each of `records` goes."""
    if len(records) < MANY:
        return [TopicPartition(one.topic, _partition(partitions[one.topic], one.key)) for one in records]
    known = {topic: [TopicPartition(topic, one) for one in some] for topic, some in partitions.items()}
    if all(len(some) == 1 for some in known.values()):
        return [known[record.topic][0] for record in records]
    return [
        (some := known[record.topic])[hashed % len(some)]
        for record, hashed in zip(records, _hashes([record.key for record in records]), strict=True)
    ]


def _hashes(keys: Sequence[bytes | None]) -> Iterable[int]:
    size = len(keys[0] or b"")
    if size and size % 4 == 0 and all([key is not None and len(key) == size for key in keys]):
        return murmur2.of_many(cast("Sequence[bytes]", keys))
    return [0 if key is None else _hash(key) for key in keys]


def _partition(partitions: list[int], key: bytes | None) -> int:
    """As Kafka's own clients choose it: records of one key go to one partition, whoever writes them."""
    if len(partitions) == 1 or key is None:
        return partitions[0]
    return partitions[_hash(key) % len(partitions)]


_hash = lru_cache(maxsize=REMEMBERED_KEYS)(murmur2.of)
