"""Reads dead-letter topics from Kafka, between fixed offsets and in no consumer group: who looks moves nobody's position."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Self

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from millstream.contracts.dead_letters import DeadLetter, letter_of, mark_of, source_of
from millstream.errors import RetryLater
from millstream.runtime.kafka_clients import Consumer, does_not_answer
from millstream.runtime.kafka_security import Bootstrap
from millstream.runtime.topic_bounds import TopicBounds

WITHIN = 15.0
"""Seconds for one answer of Kafka; a broker that goes away stalls for up to 12."""
AT_ONCE = 500
"""Records of one poll: with a megabyte a partition fetched at once the memory stays at some megabytes."""

Tick = Callable[[int], None]
"""Told how many records were read."""

Span = Mapping[int, tuple[int, int]]
"""Partition → (first offset, offset after the last)."""


class DeadLetterLog:
    """One connection, one reader at a time. An async context manager. Everything raises RetryLater while Kafka is away."""

    def __init__(self, bootstrap: Bootstrap) -> None:
        self._bootstrap = bootstrap
        self._consumer = Consumer(bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
        self._bounds = TopicBounds(bootstrap)

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(WITHIN):
                await self._consumer.start()
        except (KafkaError, TimeoutError, OSError) as error:
            await self._consumer.stop()
            raise self._away(error) from error
        except BaseException:  # then nobody leaves what was not entered
            await self._consumer.stop()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._bounds.close()
        await self._consumer.stop()

    async def topics(self) -> dict[str, tuple[str, str]]:
        """Each dead-letter topic with the (topic, group) whose letters it has."""
        there = set(await self._asked(self._consumer.topics()))
        sources = [name for name in there if not name.endswith("-dlq")]
        found = {name: source_of(name, sources) for name in sorted(there)}
        return {name: source for name, source in found.items() if source is not None}

    async def span(self, topic: str) -> Span:
        """What is there now."""
        bounds = await self._bounds.of([topic])
        return {partition: ends for (_, partition), ends in bounds.items()}

    async def replayed(self, topic: str, span: Span, tick: Tick = lambda count: None) -> dict[int, set[int]]:
        """What the marks say: partition → offsets of letters that were sent back, some 50 bytes each."""
        done: dict[int, set[int]] = {partition: set() for partition in span}
        async for record in self.records(topic, span):
            tick(1)
            if (mark := mark_of(record)) is not None:
                done.setdefault(mark.partition, set()).update(mark.offsets)
        return done

    async def letters(self, topic: str, span: Span, tick: Tick = lambda count: None) -> AsyncIterator[DeadLetter]:
        """In order."""
        async for record in self.records(topic, span):
            tick(1)
            if (letter := letter_of(record)) is not None:
                yield letter

    async def records(self, topic: str, span: Span) -> AsyncIterator[Any]:
        """Every record of `span`, in the order of each partition."""
        left = {TopicPartition(topic, n): after for n, (first, after) in span.items() if first < after}
        self._consumer.assign(list(left))
        for partition in left:
            self._consumer.seek(partition, span[partition.partition][0])
        quiet_since = asyncio.get_running_loop().time()
        while left:
            found = await self._asked(self._consumer.getmany(timeout_ms=200, max_records=AT_ONCE))
            for partition, records in found.items():
                for record in records:
                    if partition in left and record.offset < left[partition]:
                        yield record
            now = asyncio.get_running_loop().time()
            if found:
                quiet_since = now
            elif now - quiet_since > WITHIN:
                raise self._away("no more records come")
            # By position, for the last offsets of a partition may be a transaction's, which never come as records.
            for partition, after in list(left.items()):
                if await self._asked(self._consumer.position(partition)) >= after:
                    del left[partition]
                    self._consumer.pause(partition)

    async def _asked(self, question: Any) -> Any:
        try:
            async with asyncio.timeout(WITHIN):
                return await question
        except (KafkaError, TimeoutError, OSError) as error:
            raise self._away(error) from error

    def _away(self, why: object) -> RetryLater:
        return RetryLater(does_not_answer(self._bootstrap, why))
