"""How far a consumer is with each of its partitions: what the store has said, what was handed over, and what is done."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from aiokafka import TopicPartition


class Positions:
    """Of one assignment. Offsets name the record that comes next."""

    def __init__(self) -> None:
        self.sought: dict[TopicPartition, int] = {}
        """Where the store has said that partitions start."""
        self.next: dict[TopicPartition, int] = {}
        """Where the next batch of each begins; what came before it is done, or on its way."""
        self._done: dict[TopicPartition, int] = {}

    def done(self, ends: Mapping[TopicPartition, int]) -> None:
        """All before these is where it belongs."""
        self._done.update(ends)

    def known(self) -> dict[TopicPartition, int]:
        """Up to where (not included) the store has, or had, what came of each partition, as far as is known."""
        return self.sought | self._done

    def sent_back(self, partition: TopicPartition) -> None:
        """It is read from elsewhere: nothing is known of it until something is done again."""
        self.next.pop(partition, None)
        self._done.pop(partition, None)

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        for partition in partitions:
            self.sent_back(partition)
