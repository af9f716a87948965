"""The prediction log: a bounded buffer that Kafka empties in batches, so that an answer waits for nobody."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from millstream.errors import DeliveryUnknown, NotSent, RejectEvent
from millstream.project.loop import Loop
from millstream.runtime.publisher import Outgoing, Publisher
from millstream_serving.metrics import ServingMetrics

log = logging.getLogger(__name__)

MOST_BYTES = 32 * 1024 * 1024
"""Of answers that Kafka has not confirmed: two seconds of the fastest loop of one core."""
OVERDUE = 1.0
"""Seconds that Kafka takes to confirm at most, before loops with `unlogged: refuse` answer nobody: it takes milliseconds, so
a replica that is killed takes the answers of so long with it, and no more."""
FLIGHT_BYTES = 2 * 1024 * 1024
"""Sent at once: what a broker confirms in some milliseconds. The rest is next."""
LINGER = 0.01
"""Seconds that answers gather before they go: nobody waits for them, and a request to Kafka costs as much as ten rows."""
AGAIN = 0.5
"""Seconds until what Kafka did not confirm is sent again."""


class KafkaLog:
    """`ports.AnswerLog` on the publisher. `run` beside everything else, `drain` at the stop."""

    def __init__(
        self,
        publisher: Publisher,
        *,
        loops: Mapping[str, Loop],
        metrics: ServingMetrics,
        most_bytes: int = MOST_BYTES,
        linger: float = LINGER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publisher = publisher
        self._loops = loops
        self._metrics = metrics
        self._most_bytes = most_bytes
        self._linger = linger
        self._clock = clock
        self._waiting: deque[tuple[str, list[Outgoing], int]] = deque()
        self._flying: list[tuple[str, list[Outgoing], int]] = []
        self._bytes = 0
        """Of both."""
        self._left = 0.0
        """When the flight under way began."""
        self._news = asyncio.Event()
        metrics.log_bytes.set_function(lambda: self._bytes)

    def put(self, loop: str, records: Sequence[Outgoing]) -> None:
        if not records:
            return
        size = sum([len(record.value) for record in records])
        full = self._bytes > 0 and self._bytes + size > self._most_bytes  # one request alone goes, however large
        late = bool(self._flying) and self._clock() - self._left > OVERDUE
        refuses = self._loops[loop].predict.unlogged == "refuse"
        if refuses and (full or late):
            why = (
                f"{self._bytes} bytes of answers wait for Kafka" if full else "Kafka has confirmed nothing for a second"
            )
            raise NotSent(
                f"the answer cannot go on record, so it is not given: {why}; see predict.unlogged of the loop"
            )
        if full:
            self._metrics.unlogged.labels(loop).inc(len(records))
            return
        self._waiting.append((loop, list(records), size))
        self._bytes += size
        self._news.set()

    async def run(self) -> None:
        """Send what waits, until cancelled."""
        while True:
            if not self._flying:
                await self._news.wait()
                await asyncio.sleep(self._linger)
            try:
                self._take()
                await self._send()
            except DeliveryUnknown as error:
                log.warning("answers are not on record yet: %s", error)
                await asyncio.sleep(AGAIN)

    async def drain(self) -> None:
        """What is left goes, or is counted as lost. A flight that `run` was cancelled in goes again: its ids are the same."""
        try:
            while self._flying or self._waiting:
                self._take()
                await self._send()
        except DeliveryUnknown as error:
            lost = Counter[str]()
            for loop, records, _ in (*self._flying, *self._waiting):
                lost[loop] += len(records)
            for loop, count in lost.items():
                self._metrics.unlogged.labels(loop).inc(count)
            log.error("%d answers are on no record: %s", lost.total(), error)

    def _take(self) -> None:
        """The next flight: what is left of the last, and what waits. A partition that fails holds up no other."""
        size = sum(size for _, _, size in self._flying)
        if not self._flying:
            self._left = self._clock()
        while self._waiting and size < FLIGHT_BYTES:
            self._flying.append(self._waiting.popleft())
            size += self._flying[-1][2]
        if not self._waiting:
            self._news.clear()

    async def _send(self) -> None:
        """The flight, confirmed. Raises DeliveryUnknown: it is still to go."""
        if not self._flying:
            return
        try:
            await self._publisher.publish_fitting([record for _, records, _ in self._flying for record in records])
        except RejectEvent as error:
            # The recorder has weighed them, so a broker has a smaller limit than its topic's owner knows.
            log.error("answers are on no record: %s", error)
            for loop, records, _ in self._flying:
                self._metrics.unlogged.labels(loop).inc(len(records))
        except DeliveryUnknown as error:
            self._keep(error.confirmed)
            raise
        self._bytes -= sum(size for _, _, size in self._flying)
        self._flying = []

    def _keep(self, confirmed: frozenset[int]) -> None:
        """Of the flight what is not confirmed: that alone goes again."""
        if not confirmed:
            return
        flown, self._flying, first = self._flying, [], 0
        for loop, records, _ in flown:
            left = [record for place, record in enumerate(records, first) if place not in confirmed]
            first += len(records)
            if left:
                self._flying.append((loop, left, sum([len(record.value) for record in left])))
        self._bytes += sum(size for _, _, size in self._flying) - sum(size for _, _, size in flown)
