"""Counts dead letters for whoever asks over HTTP: rarely and bounded, for each count reads them from Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from millstream.contracts.times import SECOND, to_rfc3339
from millstream.errors import RetryLater
from millstream_ingest.domain.counted import Counted
from millstream_ingest.ports import DeadLetterBox

FRESH = 10 * SECOND
"""Microseconds that a count is shown for: a dashboard that asks every second costs Kafka six reads a minute."""


class Census:
    """One count at a time; who asks meanwhile gets the same."""

    def __init__(self, box: DeadLetterBox, clock: Callable[[], int]) -> None:
        self._box = box
        self._clock = clock
        self._lock = asyncio.Lock()
        self._last: Counted | RetryLater | None = None
        self._looked_at = 0

    async def counted(self) -> Counted:
        """At most FRESH old. Raises RetryLater."""
        async with self._lock:
            if self._last is None or self._clock() - self._looked_at > FRESH:
                try:
                    topics = await self._box.count()
                    self._last = Counted.of(topics, to_rfc3339(self._clock()))
                except (
                    RetryLater
                ) as error:  # remembered too: who asks every second must not queue up behind a Kafka that hangs
                    self._last = error
                self._looked_at = self._clock()
            if isinstance(self._last, RetryLater):
                raise self._last
            return self._last
