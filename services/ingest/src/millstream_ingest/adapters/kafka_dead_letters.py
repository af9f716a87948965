"""DeadLetterBox on Kafka: reads the newest letters of each dead-letter topic, in no group, over a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from millstream.contracts.dead_letters import Tallies
from millstream.contracts.topics import TOPICS
from millstream.errors import RetryLater
from millstream.runtime.dead_letter_log import DeadLetterLog, Span
from millstream.runtime.kafka_security import Bootstrap
from millstream_ingest.domain.counted import TopicCount

NEWEST = 5_000
"""Records of each partition: a second's work, unless each has a megabyte."""
WITHIN = 20.0
"""Seconds for all of it."""


class KafkaDeadLetters:
    def __init__(self, bootstrap: Bootstrap, streams: Collection[str]) -> None:
        self._bootstrap = bootstrap
        self._ours = {*streams, *(topic.name for topic in TOPICS)}

    async def count(self) -> Sequence[TopicCount]:
        try:
            async with asyncio.timeout(WITHIN), DeadLetterLog(self._bootstrap) as log:
                there = await log.topics()
                return [
                    await self._count(log, name, topic, group)
                    for name, (topic, group) in there.items()
                    if topic in self._ours
                ]
        except TimeoutError as error:
            raise RetryLater(f"not counted within {WITHIN:.0f} s; count them with: millstream dlq list") from error

    async def _count(self, log: DeadLetterLog, name: str, topic: str, group: str) -> TopicCount:
        whole = await log.span(name)
        newest: Span = {n: (max(first, after - NEWEST), after) for n, (first, after) in whole.items()}
        # A mark lies behind its letters: those of the newest letters are among the newest records.
        done = await log.replayed(name, newest)
        found = Tallies()
        async for letter in log.letters(name, newest):
            found.add(letter, replayed=letter.offset in done[letter.partition])
        return TopicCount(
            dead_letter_topic=name,
            topic=topic,
            group=group,
            retained=_length(whole),
            looked_at=_length(newest),
            letters=tuple(found.all()),
        )


def _length(span: Span) -> int:
    return sum(after - first for first, after in span.values())
