"""Watches whether features keeps up with what is accepted, and says so to producers where somebody asked for that."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from millstream.errors import Refusal, RetryLater
from millstream_ingest.metrics import IngestMetrics
from millstream_ingest.ports import Backlog

log = logging.getLogger(__name__)

LOOK_EVERY = 1.0
"""Seconds. A lag that is worth refusing for is of tens of seconds."""
COME_BACK = 5
"""Seconds that a producer is told. Nobody knows how long features takes; a look at each of them is enough."""


class LagWatch:
    """`longest`: seconds that a record may wait; None looks at nothing, and refuses nothing."""

    def __init__(self, backlog: Backlog | None, longest: float | None, metrics: IngestMetrics) -> None:
        self._backlog = backlog
        self._longest = longest
        self._metrics = metrics
        self._behind: Mapping[str, int] = {}

    def check(self, stream: str) -> None:
        """Raises Refusal(`downstream_lag`)."""
        if (left := self._behind.get(stream)) is not None:
            text = f"features is over {self._longest:g} s behind with {stream} ({left} events wait); try again in {COME_BACK} s"
            raise Refusal("downstream_lag", text, retry_after=COME_BACK)

    async def run(self) -> None:
        """Look, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY)

    async def look(self) -> None:
        """Once. What Kafka does not say refuses nothing: the watch must not be what stops a producer."""
        if self._backlog is None or self._longest is None:
            return
        before = self._behind
        try:
            self._behind = await self._backlog.behind(self._longest)
        except RetryLater as error:
            self._behind = {}
            self._metrics.lag_unknown.inc()
            log.warning("nobody knows how far features is, so everything is accepted: %s", error)
        for stream in before.keys() - self._behind.keys():
            self._metrics.behind.labels(stream).set(0)
        for stream in self._behind:
            self._metrics.behind.labels(stream).set(1)
