"""Batches whose outcome is on its way to Kafka or a store: the next is handled meanwhile, and nothing is committed before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition

from millstream.runtime.records import Record, Rejected

LAST_WORD = 2.0
"""Seconds that a rebalance waits for Kafka to confirm what came of the batch before: the group stands still meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Confirming:
    """What a handler returns whose work is done when Kafka, or a store, has what came of it. One batch at most is on its way
    beside the one in hand: with more, more would come twice after a failure, and a core is busy with two.

    Where it does not get there, the batch and the one behind it are read and handled again. Some of what came of the second
    may be in Kafka before the first then: ids tell what came twice. A store that must have them in order is for the handler
    to ask in order.
    """

    sent: Awaitable[None]
    """Raises RetryLater, Rewind, or anything else, as a handler does."""
    rejected: Sequence[Rejected] = ()


@dataclass(kw_only=True)
class Handled:
    """What came of one poll, by partition."""

    starts: dict[TopicPartition, int] = field(default_factory=dict)
    """Where each batch begins."""
    ends: dict[TopicPartition, int] = field(default_factory=dict)
    """Where the next one does."""
    counts: dict[TopicPartition, int] = field(default_factory=dict)
    """Records."""
    confirming: dict[TopicPartition, Confirming] = field(default_factory=dict)
    """What is on its way."""
    back: dict[TopicPartition, int] = field(default_factory=dict)
    """From where a store that is behind wants to be told again."""

    def add(self, partition: TopicPartition, records: Sequence[Record], following: int) -> None:
        self.starts[partition] = records[0].offset
        self.ends[partition] = following
        self.counts[partition] = len(records)


class Wake:
    """The one poll that is handled and not committed yet. Used by the task that polls."""

    def __init__(
        self, finish: Callable[[Any, Handled], Coroutine[Any, Any, Mapping[TopicPartition, int] | None]]
    ) -> None:
        """`finish` waits, buries and commits; where it could not, it says from where to read again. It raises nothing."""
        self._finish = finish
        self._task: asyncio.Task[Mapping[TopicPartition, int] | None] | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way, and what was has been looked at."""
        return self._task is None

    @property
    def over(self) -> bool:
        """Whether something was on its way, and is no more."""
        return self._task is not None and self._task.done()

    def begin(self, consumer: Any, handled: Handled) -> None:
        self._task = asyncio.create_task(self._finish(consumer, handled))

    async def settled(self) -> Mapping[TopicPartition, int] | None:
        """Waits for what is on its way. From where to read again; None where there was nothing, or all is well."""
        if self._task is None:
            return None
        again = await self._task
        self._task = None
        return again

    async def wait(self, seconds: float) -> None:
        """For a stop: what is not confirmed by then is read again by whoever comes next."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=seconds)
