"""Delivery from Kafka: raw bytes, at least once, explicit commits, bounded retries, dead letters before the commit.

Every subscriber of every service goes through here (a test says so). What the client libraries do by default loses or
loops on records: see `docs/adr/0002-delivery.md`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import ConsumerStoppedError, IllegalStateError, KafkaError
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaMessage

from millstream.errors import RetryLater
from millstream.runtime import membership
from millstream.runtime.commits import Commits
from millstream.runtime.confirming import LAST_WORD, Confirming, Handled, Wake
from millstream.runtime.consuming import options
from millstream.runtime.handling import AT_ONCE, PATIENT, Assigned, Gulp, Handler, Hold, Retry, Rewind
from millstream.runtime.health import Health, Progress
from millstream.runtime.metrics import RuntimeMetrics
from millstream.runtime.positions import Positions
from millstream.runtime.publisher import Publisher
from millstream.runtime.raw_records import wait_for_records
from millstream.runtime.records import Batch, Record, Rejected, dead_letter, envelope
from millstream.runtime.settings import ServiceSettings
from millstream.runtime.topic_bounds import Bounds, TopicBounds
from millstream.runtime.traced_batch import batch_span
from millstream.runtime.whole_group import Share, buried_by

log = logging.getLogger(__name__)


class Subscription(ConsumerRebalanceListener):  # type: ignore[misc]
    """One consumer of one group. FastStream polls; what happens with a poll is decided here."""

    def __init__(
        self,
        *,
        topics: Sequence[str],
        group: str,
        handler: Handler,
        publisher: Publisher,
        metrics: RuntimeMetrics,
        health: Health,
        stop_process: Callable[[BaseException], None],
        retry: Retry = PATIENT,
        assigned: Assigned | None = None,
        gulp: Gulp = AT_ONCE,
        share: Share | None = None,
    ) -> None:
        self.topics = tuple(topics)
        self.group = group
        self._share = share
        self._handler = handler
        self._publisher = publisher
        self._metrics = metrics
        self._health = health
        self._stop_process = stop_process
        self._retry = retry
        self._assigned = assigned
        self._gulp = gulp
        self._positions = Positions()
        self._commits = Commits(group)
        self._draining = False
        self._wake = Wake(self._finish)
        self._failures = 0  # polls in a row of which Kafka did not confirm what came of them
        self._settled = asyncio.Event()
        """The store has said where the assigned partitions start."""
        if assigned is None:
            self._settled.set()
        self._starting: asyncio.Task[None] | None = None
        self._progress = Progress(f"{group} on {', '.join(self.topics)}")
        self._condition = f"partitions of {group if share else ', '.join(self.topics)}"
        self._subscriber: Any = None
        self._bounds: TopicBounds | None = None
        health.watch(self._progress)
        health.waiting_for(self._condition, f"group {group} has no partitions assigned yet")

    def attach(self, broker: KafkaBroker, settings: ServiceSettings, bounds: TopicBounds) -> None:
        """Declare the subscriber."""
        self._bounds = bounds
        self._subscriber = broker.subscriber(
            *self.topics,
            **options(settings, self.group, self._gulp, self._share),
            listener=self,
        )
        self._subscriber(self._poll)
        # The library's own poll, having waited 200 ms in vain, sleeps for as long again; records lie there meanwhile.
        self._subscriber.get_msg = partial(self._wait_for_records, most=settings.fetch_max_records)

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        # What Kafka confirms by then is committed while these are still ours, and nobody does it again.
        await self._wake.wait(LAST_WORD)
        self._positions.forget(revoked)
        self._commits.forget(revoked)
        for moved in revoked:  # not removed: Prometheus' client cannot, of workers with one folder of metrics
            self._metrics.lag.labels(moved.topic, str(moved.partition), self.group).set(0)
        self._progress.revoked()
        self._positions.sought = {}
        if self._assigned is not None:
            self._settled.clear()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        # A batch that was in hand while its partition moved has written down an end of its own: it is void here.
        self._positions.forget(assigned)
        try:
            if self._assigned is not None:
                await self._settle(assigned)
        except Exception as error:  # the client itself would read on from where Kafka thinks
            log.critical("stopping: no start for new partitions", exc_info=error, extra={"group": self.group})
            self._stop_process(error)
            return
        if assigned and not self._draining:
            self._starting = asyncio.create_task(self._commit_start(sorted(assigned)))
        else:
            self._health.met(self._condition)

    async def _settle(self, assigned: set[TopicPartition]) -> None:
        """Start each partition where the store says. Returns without an answer when the process stops meanwhile."""
        assert self._assigned is not None
        attempt, starts = 0, dict[tuple[str, int], int]()
        while assigned or self._share:
            try:
                starts = await self._assigned(sorted((p.topic, p.partition) for p in assigned))
                break
            except RetryLater as error:
                if self._draining:
                    return
                self._health.waiting_for(self._condition, str(error))
                log.warning("waiting before the first record: %s", error, extra={"group": self.group})
                await asyncio.sleep(self._retry.delay(attempt))
                attempt += 1
        self._positions.sought = {TopicPartition(*partition): offset for partition, offset in starts.items()}
        for (topic, partition), offset in starts.items():
            log.info("starting at the store's own position", extra={"topic": topic, "offset": offset})
            self._subscriber.consumer.seek(TopicPartition(topic, partition), offset)
        self._settled.set()

    async def _commit_start(self, partitions: Sequence[TopicPartition]) -> None:
        """Commit where a new group begins, and where the store is ahead of Kafka: the lag that KEDA sees is work to do.
        Ready is who has done so: a replay asks Kafka what a group of ready processes hears, and waits for that alone."""
        consumer = self._subscriber.consumer
        try:
            known = {p: await consumer.committed(p) for p in partitions}
            starts = await consumer.beginning_offsets([p for p, offset in known.items() if offset is None])
            sought = self._positions.sought
            starts |= {p: offset for p, offset in sought.items() if p in known and offset > (known[p] or 0)}
            # A batch that was handled meanwhile commits itself, as soon as Kafka has what came of it.
            await self._commits.make(
                consumer, {p: start for p, start in starts.items() if p not in self._positions.next}
            )
        except (KafkaError, IllegalStateError, ConsumerStoppedError) as error:
            log.info("no initial commit: %s", error, extra={"group": self.group})
        finally:
            self._health.met(self._condition)

    async def bounds(self) -> Bounds:
        """(first offset, offset after the last) of every partition of the topics, as Kafka says now; assigned or not.

        For handlers whose result depends on having read everything there is. Raises RetryLater.
        """
        if self._bounds is None:
            raise RetryLater("Kafka is not connected yet")
        return await self._bounds.of(self.topics)

    async def positions(self) -> dict[tuple[str, int], int]:
        """Where each assigned partition is read on, a poll in hand included. Raises RetryLater.

        Ahead of the last record's offset where transaction markers follow it: those are never handed over.
        """
        consumer = self._subscriber.consumer if self._subscriber is not None else None
        if consumer is None:
            raise RetryLater("Kafka is not connected yet")
        try:
            async with asyncio.timeout(10):
                return {(p.topic, p.partition): await consumer.position(p) for p in consumer.assignment()}
        except (KafkaError, TimeoutError) as error:
            raise RetryLater(f"the partitions are moving: {error or 'timeout'}") from error

    def handled(self) -> dict[tuple[str, int], int]:
        """Up to where (not included) the store has, or had, what came of each assigned partition, as far as is known."""
        return {(p.topic, p.partition): offset for p, offset in self._positions.known().items()}

    def rewind(self, starts: Mapping[tuple[str, int], int]) -> None:
        """Read these partitions again from there: the store has lost what came of them. A batch in hand goes on."""
        for (topic, partition), offset in starts.items():
            log.warning("rewinding: the store has lost what it had", extra={"topic": topic, "offset": offset})
            self._positions.sought.pop(TopicPartition(topic, partition), None)
            self._seek(self._subscriber.consumer, TopicPartition(topic, partition), offset)

    async def drain(self, timeout: float) -> None:
        """Stop taking new polls. FastStream waits for the poll in hand (bounded) and leaves the group."""
        self._draining = True
        self._settled.set()
        if self._starting is not None:
            self._starting.cancel()
        await self._wake.wait(timeout)
        if self._bounds is not None:
            await self._bounds.close()

    async def _poll(self, message: KafkaMessage) -> None:
        if self._draining or self._health.fatal is not None:
            return
        raw = message.raw_message
        records = raw if isinstance(raw, tuple) else (raw,)
        grouped: dict[TopicPartition, list[Record]] = {}
        for record in records:
            grouped.setdefault(TopicPartition(record.topic, record.partition), []).append(record)
        if not self._settled.is_set():
            # The client hands out records before the store has said where to start: read them again then.
            await self._settled.wait()
            for partition in grouped.keys() - self._positions.sought.keys():
                self._seek(message.consumer, partition, grouped[partition][0].offset)
            return
        starts = {partition: found[0].offset for partition, found in grouped.items()}
        if self._wake.over and await self._read_again(message.consumer, starts):
            return
        handled = Handled()
        try:
            for partition, found in grouped.items():
                end = await self._handle(message.consumer, partition, found, handled)
                if end is not None:
                    handled.add(partition, found, end + 1)
                    self._positions.next[partition] = end + 1
        except Exception as error:  # noqa: BLE001  (one we do not know: stop before a record is skipped)
            self._fail(error)
            return
        if await self._read_again(message.consumer, handled.starts | handled.back):
            await asyncio.gather(*(one.sent for one in handled.confirming.values()), return_exceptions=True)
            return
        self._wake.begin(message.consumer, handled)
        if self._draining or not handled.confirming:
            await self._read_again(message.consumer, {})

    async def _wait_for_records(self, consumer: Any, *, most: int) -> tuple[Record, ...]:
        if (
            self._health.fatal is not None
        ):  # the library asks again at once, and who stops the process would never get a turn
            await asyncio.sleep(1.0)
            return ()
        try:
            if self._wake.over:
                await self._read_again(consumer, {})
            if self._wake.idle:
                await self._commits.again(consumer)
            membership.check(consumer)
            return await wait_for_records(consumer, most=most)
        except Exception as error:  # the library would start this again for ever, and nothing were read
            if isinstance(error, KafkaError | ConsumerStoppedError) and membership.keep(consumer):
                raise
            self._fail(error)
            return ()

    async def _read_again(self, consumer: Any, beside: Mapping[TopicPartition, int]) -> bool:
        """Whether what came of the poll before is not where it belongs: it is read again then, and so is what is `beside` it.
        Of a partition that is in both from the earlier offset: what is there already is harmless."""
        failed = await self._wake.settled()
        if failed is None:
            return False
        for partition in failed.keys() | beside.keys():
            self._seek(consumer, partition, min(one[partition] for one in (failed, beside) if partition in one))
        if not self._draining:
            await asyncio.sleep(self._retry.delay(self._failures))
        self._failures += 1
        return True

    async def _finish(self, consumer: Any, handled: Handled) -> Mapping[TopicPartition, int] | None:
        """Waits until what came of a poll is there, and commits it. Else where it is to be read again."""
        try:
            sent = await asyncio.gather(*(one.sent for one in handled.confirming.values()), return_exceptions=True)
            for partition, error in zip(handled.confirming, sent, strict=True):
                if isinstance(error, Rewind):
                    self._sent_back(handled, partition, error)
            for error in filter(None, sent):
                raise error
            for one in handled.confirming.values():
                await self._bury(one.rejected)
            self._positions.done(handled.ends)
            await self._commits.make(consumer, handled.ends)
            for partition, following in handled.ends.items():
                self._measure(consumer, partition, following, handled.counts[partition])
        except RetryLater as error:
            for topic in {partition.topic for partition in handled.ends}:
                self._metrics.retries.labels(topic, self.group).inc()
            log.warning("reading again: %s", error, extra={"group": self.group})
            return handled.starts | handled.back
        except Rewind:
            return handled.starts | handled.back
        except Exception as error:  # noqa: BLE001  (as above)
            self._fail(error)
            return handled.starts
        self._failures = 0
        return None

    def _fail(self, error: Exception) -> None:
        log.critical("stopping: a batch cannot be handled", exc_info=error, extra={"group": self.group})
        self._stop_process(error)

    async def _handle(
        self,
        consumer: Any,
        partition: TopicPartition,
        records: list[Record],
        handled: Handled,
    ) -> int | None:
        """Handle one partition's records; the last offset that is done, or None when they are to be read again."""
        first = records[0].offset
        start = self._positions.next.get(partition, first)
        batch = Batch(partition.topic, partition.partition, min(start, first), records[-1].offset, records)
        clock = asyncio.get_running_loop().time
        began, attempt = clock(), 0
        while True:
            try:
                with (
                    self._metrics.batch_seconds.labels(partition.topic, self.group).time(),
                    batch_span(self.group, batch),
                ):
                    found = await self._handler(batch)
                if isinstance(found, Confirming):
                    handled.confirming[partition] = found
                else:
                    await self._bury(found or ())
                return batch.end
            except Rewind as back:
                self._sent_back(handled, partition, back)
                self._seek(consumer, partition, back.offset)
                return None
            except Hold as why:
                log.error("held back: %s", why, extra={"topic": batch.topic, "offset": first})
                self._hold(consumer, partition, first)
                return None
            except RetryLater as error:
                self._metrics.retries.labels(partition.topic, self.group).inc()
                waited = clock() - began
                log.warning("trying again: %s", error, extra={"topic": batch.topic, "attempt": attempt})
                if waited > self._retry.patience or self._draining:
                    self._seek(consumer, partition, first)
                    return None
                await asyncio.sleep(self._retry.delay(attempt))
                attempt += 1

    def _sent_back(self, handled: Handled, partition: TopicPartition, back: Rewind) -> None:
        log.warning("rewinding: the store is behind", extra={"topic": partition.topic, "offset": back.offset})
        handled.back[partition] = back.offset

    def _seek(self, consumer: Any, partition: TopicPartition, offset: int) -> None:
        self._positions.sent_back(partition)
        self._commits.forget([partition])
        with suppress(IllegalStateError):  # it moved meanwhile
            consumer.seek(partition, offset)

    def _hold(self, consumer: Any, partition: TopicPartition, offset: int) -> None:
        self._seek(consumer, partition, offset)
        self._progress.held(partition.topic, partition.partition)
        with suppress(IllegalStateError):  # it moved meanwhile
            consumer.pause(partition)

    async def _bury(self, rejected: Sequence[Rejected]) -> None:
        """Dead letters are confirmed before the commit, so that none is lost between the two."""
        if not rejected:
            return
        await self._publisher.publish([dead_letter(one, buried_by(self._share, self.group)) for one in rejected])
        for one in rejected:
            self._metrics.dead_letters.labels(one.record.topic, self.group, one.error.reason).inc()
            told = {"topic": one.record.topic, "offset": one.record.offset, "detail": one.error.detail[:300]}
            log.warning("dead letter: %s", one.error.reason, extra=told)

    def _measure(self, consumer: Any, partition: TopicPartition, following: int, handled: int) -> None:
        self._metrics.consumed.labels(partition.topic, self.group).inc(handled)
        if partition not in consumer.assignment():  # it moved meanwhile
            return
        lag = max(0, (consumer.highwater(partition) or 0) - following)
        self._progress.saw(partition.topic, partition.partition, lag)
        self._metrics.lag.labels(partition.topic, str(partition.partition), self.group).set(lag)


__all__ = [
    "AT_ONCE",
    "PATIENT",
    "Assigned",
    "Batch",
    "Gulp",
    "Handler",
    "Hold",
    "Record",
    "Rejected",
    "Retry",
    "Rewind",
    "Subscription",
    "envelope",
]
