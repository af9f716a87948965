"""What happens to questions while the online store does not answer: they fail, wait, or go without, as their loop says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from millstream.project.loop import Loop
from millstream_serving.domain.circuit import Circuit
from millstream_serving.domain.question import Question
from millstream_serving.errors import FeaturesBehind, FeaturesUnavailable, StaleFeatures
from millstream_serving.handlers.freshness_gate import HTTP_PATIENCE, PATIENCE
from millstream_serving.metrics import ServingMetrics

T = TypeVar("T")

SLOW = 0.5
"""Seconds after which a store is as good as away, where the loop can do without: hundreds of times what a read takes, a tenth
of what callers wait."""
AGAIN = 1.0
"""Seconds until it is asked again: one question a second finds out, all others lose no time."""


class StoreGate:
    """The gate of all loops; they share one store."""

    def __init__(self, *, loops: Mapping[str, Loop], metrics: ServingMetrics, stopwatch: Callable[[], float]) -> None:
        self._loops = loops
        self._metrics = metrics
        self._stopwatch = stopwatch
        self._circuit = Circuit(most=1, rest=AGAIN)

    async def ask(self, question: Question, rows: int, read: Callable[[], Awaitable[T]]) -> T | None:
        """What `read` finds for `question` and the `rows` - 1 others of its run; None where they are asked without.

        Raises FeaturesUnavailable, and what else `read` raises.
        """
        if self._loops[question.loop].predict.store_away == "refuse":
            return await read()
        try:
            if not self._circuit.may(self._stopwatch()):
                raise FeaturesUnavailable("the online store does not answer; it is asked once a second")
            return await self._soon(question, read)
        except FeaturesUnavailable:
            if question.transport == "kafka" and self._is_young():
                raise
            self._metrics.featureless.labels(question.loop, question.transport).inc(rows)
            return None

    async def _soon(self, question: Question, read: Callable[[], Awaitable[T]]) -> T:
        waits = self._loops[question.loop].predict.freshness.when_stale == "wait" and question.transport == "http"
        reading = asyncio.ensure_future(read())
        reading.add_done_callback(lambda done: done.cancelled() or done.exception())  # if nobody waits any more
        # Not cancelled: it ends by its own limit, and its connection stays whole.
        await asyncio.wait({reading}, timeout=SLOW + (HTTP_PATIENCE if waits else 0.0))
        try:
            if not reading.done():
                raise FeaturesUnavailable(f"the online store did not answer within {SLOW} s")
            found = reading.result()
        except FeaturesUnavailable:
            self._circuit.failed(self._stopwatch())
            raise
        except (FeaturesBehind, StaleFeatures):
            self._circuit.answered()
            raise
        self._circuit.answered()
        return found

    def _is_young(self) -> bool:
        since = self._circuit.since
        return since is None or self._stopwatch() - since < PATIENCE
