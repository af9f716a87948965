"""Commits to Kafka of one consumer: one that fails is made again, for no later one may come."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

log = logging.getLogger(__name__)


class Commits:
    """What Kafka has yet to hear of. Raises nothing: at worst records are handled once more."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._owed: dict[TopicPartition, int] = {}

    async def make(self, consumer: Any, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit `offsets`, each that of the record that comes next, and with them what failed before."""
        wanted, self._owed = self._owed | dict(offsets), {}
        if not wanted:
            return
        try:
            await consumer.commit(wanted)
        except (CommitFailedError, IllegalStateError) as error:
            # The partitions moved while we worked. The new owner repeats the batch; the handler's fence makes it harmless.
            log.info("commit refused, the partitions moved: %s", error, extra={"group": self._group})
        except KafkaError as error:
            log.warning("commit failed, and is made again: %s", error, extra={"group": self._group})
            self._owed = wanted | self._owed

    async def again(self, consumer: Any) -> None:
        """Make those that failed once more. A stream that falls silent would show work that nobody has to do for ever."""
        if self._owed:
            await self.make(consumer, {})

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """These are not ours any more, or read from elsewhere."""
        for partition in partitions:
            self._owed.pop(partition, None)
