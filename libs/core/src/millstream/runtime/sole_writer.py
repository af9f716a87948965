"""Publishing as the only one of a name: whoever starts under it later shuts the one before out, for good."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from aiokafka.errors import KafkaError, ProducerFenced

from millstream.errors import DeliveryUnknown, RejectEvent, ShutOut, WriterLost
from millstream.runtime.kafka_clients import Producer
from millstream.runtime.kafka_security import Bootstrap
from millstream.runtime.metrics import RuntimeMetrics
from millstream.runtime.publisher import MAX_RECORD_BYTES, MAX_REQUEST_BYTES, Outgoing, hear_out

log = logging.getLogger(__name__)

OPEN_FOR = 15 * 60 * 1000
"""Milliseconds until Kafka ends a transaction by itself and shuts its writer out: Kafka's own maximum. A broker that is away,
or a process that is paused for minutes, is no second writer."""

LAST_MOMENT = 2.0
"""Seconds that a stopping writer gives each of: what is under way, its abort, and its goodbye."""


class SoleWriter:
    """Sends records in Kafka transactions under one transactional id, whose epoch is the fence: `start` raises it, and Kafka
    refuses every earlier epoch from then on. So start it before the topics are read that it writes: nothing is added behind
    the reader's back.

    Transactions leave a marker behind their records, at an offset that no reader is ever given. Readers of every isolation
    level may be used: a record of a transaction that was aborted is one that was "unknown", as with `Publisher`.
    """

    def __init__(self, *, bootstrap: Bootstrap, name: str, timeout: float, metrics: RuntimeMetrics) -> None:
        self._bootstrap = bootstrap
        self._name = name
        self._timeout = timeout
        self._metrics = metrics
        self._producer: Producer | None = None
        self._turn = asyncio.Lock()
        self._under_way: asyncio.Task[None] | None = None
        """The transaction that nobody has seen the end of: it goes on when its caller has given up waiting. One that is cut
        in the middle could only be followed by a new epoch, which may shut out a successor that we know nothing of."""
        self._ended: ShutOut | WriterLost | None = None

    async def start(self) -> None:
        """Shut out whoever wrote under this name. Raises KafkaError or TimeoutError when Kafka is not there; try again."""
        producer = Producer(
            self._bootstrap,
            acks="all",
            transactional_id=self._name,
            transaction_timeout_ms=OPEN_FOR,
            max_request_size=MAX_REQUEST_BYTES,
            linger_ms=0,
            request_timeout_ms=10_000,
        )
        try:
            async with asyncio.timeout(self._timeout):
                await producer.start()
        except BaseException:
            await producer.stop()
            raise
        self._producer = producer

    async def stop(self) -> None:
        """Leave; what is under way is given up after a moment, and Kafka ends it when the successor starts."""
        producer, self._producer = self._producer, None
        if self._under_way is not None:
            await asyncio.wait({self._under_way}, timeout=LAST_MOMENT)
            self._under_way.cancel()  # out of sending, into aborting
            await asyncio.wait({self._under_way}, timeout=LAST_MOMENT)
            self._under_way.cancel()  # out of aborting, which waits for Kafka however long it is away
            await asyncio.gather(self._under_way, return_exceptions=True)
        if producer is not None:
            with suppress(TimeoutError, KafkaError):
                async with asyncio.timeout(LAST_MOMENT):
                    await producer.stop()

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Send all of them in one transaction and wait until every in-sync replica has them.

        Raises DeliveryUnknown when Kafka did not confirm in time: they may be there; ids make a repeat harmless.
        Raises RejectEvent("too_large"); nothing is sent then. Raises ShutOut when another writer of this name has started, and
        WriterLost when Kafka has forgotten the name: from then on nothing is written, whatever is called.
        """
        for record in records:
            if record.size > MAX_RECORD_BYTES:
                raise RejectEvent("too_large", f"a record of {record.size} bytes; Kafka takes {MAX_RECORD_BYTES}")
        async with self._turn:
            try:
                async with asyncio.timeout(self._timeout):
                    await self._in_turn(records)
            except (TimeoutError, KafkaError) as error:
                for topic in {record.topic for record in records}:
                    self._metrics.publish_unknown.labels(topic).inc()
                raise DeliveryUnknown(
                    f"Kafka did not confirm {len(records)} records within {self._timeout:.0f} s: {error or 'timeout'}"
                ) from error
        for topic, count in Counter(record.topic for record in records).items():
            self._metrics.published.labels(topic).inc(count)

    async def _in_turn(self, records: Sequence[Outgoing]) -> None:
        if self._under_way is not None:
            with suppress(KafkaError):  # it was unknown to its caller, who says it again
                await asyncio.shield(self._under_way)
            self._under_way = None
        if self._ended is not None:
            raise self._ended
        if self._producer is None:
            raise DeliveryUnknown("Kafka is not connected yet")
        self._under_way = asyncio.create_task(self._transaction(self._producer, records))
        await asyncio.shield(self._under_way)
        self._under_way = None

    async def _transaction(self, producer: Producer, records: Sequence[Outgoing]) -> None:
        try:
            async with producer.transaction():
                sent = [await producer.send(r.topic, key=r.key, value=r.value, headers=r.headers) for r in records]
                await asyncio.gather(*sent)
        except ProducerFenced as error:
            hear_out(producer, producer._txn_manager._transaction_waiter)
            self._ended = ShutOut(
                f"another {self._name} has started on this Kafka and writes now, or this one stood still for "
                f"{OPEN_FOR // 60_000} minutes in the middle of a record; one writes at a time: stop one of the two"
            )
            raise self._ended from error
        except KafkaError as error:
            if not producer._txn_manager.is_fatal_error():
                raise
            hear_out(producer, producer._txn_manager._transaction_waiter)
            self._ended = WriterLost(
                f"Kafka does not take records of {self._name} any more ({error!r}); it forgets a writer that has been silent "
                "for a week (transactional.id.expiration.ms). Starting again mends that"
            )
            raise self._ended from error
