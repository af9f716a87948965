"""Compares what the online store has applied with what lies in Kafka: the fences of the one, the records of the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from millstream.contracts.times import now
from millstream.runtime.waiting_records import WaitingRecords
from millstream_serving.domain.freshness import Look, Place
from millstream_serving.ports import Features

LOOK_EVERY = 0.1
"""Seconds that a look serves for, a tenth of the shortest bound that a loop can have. So questions cost ten looks a second
(1 to 3 ms each), however many there are."""


class KafkaFreshness:
    """`ports.Freshness`. Two looks may be under way at once; that costs milliseconds, and a lock would queue the questions."""

    def __init__(
        self,
        waiting: WaitingRecords,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], int] = now,
    ) -> None:
        self._waiting = waiting
        self._clock = clock
        self._wall = wall
        self._looks: dict[int, tuple[float, Look]] = {}
        """By the features object: there is one for each FeatureService."""

    async def stale(self, features: Features, asked_at: Sequence[int], bound: int) -> list[dict[str, float]]:
        if not features.streams:
            return [{} for _ in asked_at]
        newest = max(asked_at)
        taken, look = self._looks.get(id(features), (0.0, None))
        if look is None or self._clock() - taken > LOOK_EVERY or not look.holds_for(newest, bound):
            began = self._clock()
            look = await self._look(features, newest - bound)
            self._looks[id(features)] = began, look
        # Lag only grows with the time of the question, so where the newest is current all are.
        if not look.stale(features.streams, newest, bound):
            return [{} for _ in asked_at]
        return [look.stale(features.streams, one, bound) for one in asked_at]

    async def close(self) -> None:
        await self._waiting.close()

    async def _look(self, features: Features, since: int) -> Look:
        """Kafka is asked only about partitions whose stream time is before `since`."""
        wall = self._wall()
        applied = await features.applied()
        fences = {(stream, p): fence for stream, held in applied.items() for p, fence in held.items()}
        current = {place for place, (_, stream_time) in fences.items() if stream_time >= since}
        offsets = {place: offset for place, (offset, _) in fences.items()}
        waits = await self._waiting.of(sorted(set(features.streams.values())), offsets, enough=current)
        places = [Place(stream=stream, stream_time=fences[stream, p][1], asked=False) for stream, p in current]
        places += [
            Place(stream=stream, stream_time=fences.get((stream, p), (-1, 0))[1], waits_since=known)
            for (stream, p), known in waits.items()
        ]
        return Look(wall=wall, places=places)
