"""Sends dead letters back to where they came from, once: each is marked when Kafka has it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from aiokafka.errors import KafkaError

from millstream.contracts.dead_letters import DeadLetter, Mark
from millstream.contracts.envelope import Headers
from millstream.contracts.times import to_rfc3339
from millstream.contracts.topics import dead_letter_topic
from millstream.runtime.dead_letter_log import DeadLetterLog, Tick
from millstream.runtime.kafka_clients import Producer, does_not_answer
from millstream.runtime.kafka_security import Bootstrap
from millstream_cli.dlq import Wanted
from millstream_cli.errors import Stuck

TOGETHER = 200
"""Letters between two marks: as many are sent a second time, at most, when a replay is killed."""
WITHIN = 30.0
"""Seconds for Kafka to confirm them; a broker that goes away stalls acks for up to 12."""
MOST_BYTES = 1024 * 1024
"""Kafka's default limit for one request, which a letter was within."""

Send = Callable[[Sequence[DeadLetter]], Awaitable[None]]


class Replayed(msgspec.Struct, kw_only=True):
    """What came of a replay."""

    sent: int = 0
    """Or would be, in a dry run."""
    before: int = 0
    """Were replayed already, and were left alone."""
    cut: int = 0
    """Are not kept whole; the record itself lies, or lay, where the letter says."""


class Replayer:
    """Writes to Kafka under one connection. An async context manager; entered only by who means it."""

    def __init__(self, bootstrap: Bootstrap) -> None:
        self._bootstrap = bootstrap
        self._producer = Producer(
            bootstrap,
            acks="all",
            enable_idempotence=True,
            max_request_size=MOST_BYTES,
            linger_ms=5,
        )

    async def __aenter__(self) -> Replayer:
        try:
            await self._producer.start()
        except KafkaError as error:
            await self._producer.stop()
            raise Stuck(f"{does_not_answer(self._bootstrap, error)}; nothing was replayed") from error
        except BaseException:  # then nobody leaves what was not entered
            await self._producer.stop()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._producer.stop()

    async def send(self, found: Sequence[DeadLetter]) -> None:
        """Letters of one dead-letter topic, then their marks. Raises Stuck."""
        try:
            async with asyncio.timeout(WITHIN):
                await asyncio.gather(*[await self._back(letter) for letter in found])
                for partition in sorted({letter.partition for letter in found}):
                    offsets = tuple(letter.offset for letter in found if letter.partition == partition)
                    value, headers = Mark(partition=partition, offsets=offsets).record()
                    topic = found[0].dead_letter_topic
                    await self._producer.send_and_wait(topic, value, partition=partition, headers=headers)
        except (KafkaError, TimeoutError) as error:
            raise Stuck(
                f"Kafka did not confirm {len(found)} letters: {error or 'timeout'}; some may be back in their topic. "
                "Run it again: they have the ids they had"
            ) from error

    async def _back(self, letter: DeadLetter) -> asyncio.Future[object]:
        there = await self._producer.partitions_for(letter.topic)
        future: asyncio.Future[object] = await self._producer.send(
            letter.topic,
            letter.value,
            key=letter.key,
            # Where it was, among those of its key.
            partition=letter.source_partition if letter.source_partition in there else None,
            headers=_as_known(letter),
        )
        return future


def _as_known(letter: DeadLetter) -> Headers:
    """As it came, and known when it was: by today's time it would be late. Not with Kafka's own time of then, after which the
    topic's retention might take it before anybody has read it."""
    if any(name == "ce_knownat" for name, _ in letter.headers):
        return letter.headers
    return [*letter.headers, ("ce_knownat", to_rfc3339(letter.source_timestamp * 1000).encode())]


async def replay(
    log: DeadLetterLog,
    topics: Sequence[str],
    wanted: Wanted,
    send: Send | None,
    tick: Tick,
) -> dict[str, Replayed]:
    """What is there now, by dead-letter topic; `send` None is a dry run. Raises Stuck, RetryLater."""
    totals: dict[str, Replayed] = {}
    for topic in topics:
        total = totals[topic] = Replayed()
        # Fixed before the first is sent: what fails again becomes a new letter, behind this end.
        span = await log.span(topic)
        done = await log.replayed(topic, span, tick)
        waiting: list[DeadLetter] = []
        async for letter in log.letters(topic, span, tick):
            if not wanted.takes(letter) or topic != dead_letter_topic(letter.topic, letter.group):
                continue  # it says that it is of another topic: a stranger's way into that one, maybe
            if letter.offset in done[letter.partition]:
                total.before += 1
            elif letter.cut:
                total.cut += 1
            else:
                total.sent += 1
                waiting.append(letter)
            if len(waiting) == TOGETHER:
                await _flush(send, waiting)
        await _flush(send, waiting)
    return totals


async def _flush(send: Send | None, waiting: list[DeadLetter]) -> None:
    if waiting and send is not None:
        await send(waiting)
    waiting.clear()
