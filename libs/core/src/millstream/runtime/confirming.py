"""Batches whose outcome is on its way to Kafka: the next is handled meanwhile, and nothing is committed before it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition

from millstream.runtime.records import Rejected

LAST_WORD = 2.0
"""Seconds that a rebalance waits for Kafka to confirm what came of the batch before: the group stands still meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Confirming:
    """What a handler returns whose work is done when Kafka has what came of it. One batch at most is on its way beside the
    one in hand: with more, more would come twice after a failure, and a core is busy with two.

    Where Kafka does not confirm, the batch and the one behind it are read and handled again. Some of what came of the second
    may be in Kafka before the first then: ids tell what came twice.
    """

    sent: Awaitable[None]
    """Raises what `Publisher.publish` raises."""
    rejected: Sequence[Rejected] = ()


@dataclass(frozen=True, kw_only=True)
class Handled:
    """What came of one poll, by partition."""

    starts: Mapping[TopicPartition, int]
    """Where each batch begins."""
    ends: Mapping[TopicPartition, int]
    """Where the next one does."""
    counts: Mapping[TopicPartition, int]
    """Records."""
    confirming: Sequence[Confirming]


class Wake:
    """The one poll that is handled and not committed yet. Used by the task that polls."""

    def __init__(self, finish: Callable[[Any, Handled], Coroutine[Any, Any, bool]]) -> None:
        """`finish` waits, buries and commits, and says whether it did; it raises nothing."""
        self._finish = finish
        self._poll: Handled | None = None
        self._task: asyncio.Task[bool] | None = None

    @property
    def over(self) -> bool:
        """Whether something was on its way, and is no more."""
        return self._task is not None and self._task.done()

    def begin(self, consumer: Any, handled: Handled) -> None:
        self._poll = handled
        self._task = asyncio.create_task(self._finish(consumer, handled))

    async def settled(self) -> Handled | None:
        """Waits for what is on its way. What has to be read again; None where there was nothing, or all is well."""
        task, poll = self._task, self._poll
        if task is None or poll is None:
            return None
        well = await task
        self._task = self._poll = None
        return None if well else poll

    async def wait(self, seconds: float) -> None:
        """For a stop: what is not confirmed by then is read again by whoever comes next."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=seconds)
