"""Deletes dead letters for good, and says beforehand what is lost with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.errors import KafkaError

from millstream.contracts.dead_letters import Tallies, Tally, letter_of
from millstream.runtime.dead_letter_log import DeadLetterLog, Tick
from millstream.runtime.kafka_clients import Admin
from millstream.runtime.kafka_security import Bootstrap
from millstream_cli.errors import Stuck


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What a drop takes."""

    upto: dict[TopicPartition, int]
    """The first offset that stays."""
    lost: list[Tally]

    @property
    def letters(self) -> int:
        return sum(one.letters for one in self.lost)

    @property
    def never_replayed(self) -> int:
        return sum(one.letters - one.replayed for one in self.lost)


async def loss(log: DeadLetterLog, topics: Sequence[str], until: int | None, tick: Tick) -> Loss:
    """All letters there are, or those up to the first one that is younger than `until` (microseconds).

    Kafka deletes from the beginning of a partition to an offset, and nothing else: not by reason, not the young before the old.
    """
    upto: dict[TopicPartition, int] = {}
    found = Tallies()
    for topic in topics:
        span = await log.span(topic)
        done = await log.replayed(topic, span, tick)
        for partition, (_, after) in span.items():
            upto[TopicPartition(topic, partition)] = after
        young: set[int] = set()
        async for record in log.records(topic, span):
            tick(1)
            if record.partition in young:
                continue
            if until is not None and record.timestamp * 1000 >= until:
                young.add(record.partition)
                upto[TopicPartition(topic, record.partition)] = record.offset
            elif (letter := letter_of(record)) is not None:
                found.add(letter, replayed=letter.offset in done[letter.partition])
    return Loss(upto=upto, lost=found.all())


async def drop(bootstrap: Bootstrap, upto: dict[TopicPartition, int]) -> None:
    """Delete what lies before these offsets. Twice is harmless. Raises Stuck."""
    admin = Admin(bootstrap)
    try:
        await admin.start()
        await admin.delete_records({partition: RecordsToDelete(offset) for partition, offset in upto.items()})
    except KafkaError as error:
        raise Stuck(
            f"Kafka at {bootstrap} did not delete them all: {error!r}; look with: millstream dlq list"
        ) from error
    finally:
        await admin.close()
