"""How each service gets on, from Kafka itself: what its groups committed, and what is left for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from millstream.runtime.kafka_security import Bootstrap
from millstream_cli.offsets import Offsets

GROUPS: dict[str, tuple[str, ...]] = {
    "features": ("features-tiles", "features-lake"),
    "serving": ("serving",),
    "drift": ("drift",),
    "trainer": ("trainer",),
}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One service at one moment."""

    rate: float
    """Records a second since the last reading: for ingest, written to the project's streams; else committed by its (first)
    group, so that what two groups of a service read counts once; of drift by all of its shares, each of which reads it."""
    lag: int
    """Records in its topics that its groups have yet to commit."""


class Meters:
    """Samples the services once a second while a replay runs."""

    def __init__(self, bootstrap: Bootstrap, streams: Sequence[str]) -> None:
        self._offsets = Offsets(bootstrap)
        self._streams = list(streams)
        self._before: dict[str, tuple[float, int]] = {}
        self.readings: dict[str, Reading] = {}

    async def run(self) -> None:
        """Sample until cancelled."""
        await self._offsets.start()
        try:
            while True:
                await self.sample()
                await asyncio.sleep(1.0)
        finally:
            await self._offsets.stop()

    async def once(self) -> None:
        """One sample, without rates."""
        await self._offsets.start()
        try:
            await self.sample()
        finally:
            await self._offsets.stop()

    async def sample(self) -> None:
        written = sum((await self._offsets.ends(self._streams)).values())
        self._note("ingest", written, 0)
        for service, groups in GROUPS.items():
            done = lag = 0
            for group in await self._offsets.shares(service) if service == "drift" else groups:
                committed = await self._offsets.committed(group)
                ends = await self._offsets.ends(sorted({p.topic for p in committed}))
                done += sum(committed.values()) if service == "drift" or group == groups[0] else 0
                lag += sum(max(0, end - committed.get(p, 0)) for p, end in ends.items())
            self._note(service, done, lag)

    def _note(self, service: str, total: int, lag: int) -> None:
        now = time.monotonic()
        then, before = self._before.get(service, (now - 1.0, total))
        self._before[service] = (now, total)
        self.readings[service] = Reading(rate=(total - before) / max(1e-6, now - then), lag=lag)
