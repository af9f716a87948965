"""What happens to questions while the online store does not answer: they fail, wait, or go without, as their loop says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from millstream.contracts.events import Scalar
from millstream.project.loop import Loop
from millstream_serving.domain.circuit import Circuit
from millstream_serving.domain.columns import FeatureValues
from millstream_serving.domain.question import Question
from millstream_serving.errors import FeaturesUnavailable
from millstream_serving.handlers.freshness_gate import PATIENCE
from millstream_serving.metrics import ServingMetrics
from millstream_serving.ports import Features

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
        self._watched: dict[int, _Watched] = {}
        """By the features object, of which there is one for each FeatureService."""

    def watched(self, loop: str, services: Sequence[Features]) -> Sequence[Features]:
        """`services` as `loop` reads them: one that can do without waits for none longer than SLOW."""
        if self._loops[loop].predict.store_away == "refuse":
            return services
        return [self._watched.setdefault(id(one), _Watched(one, self._soon)) for one in services]

    async def ask(self, question: Question, rows: int, read: Callable[[], Awaitable[T]]) -> T | None:
        """What `read` finds, with `watched` features, for `question` and the `rows` - 1 others of its run; None where they are
        asked without.

        Raises FeaturesUnavailable, and what else `read` raises: only the store is done without, so a Kafka that is slow to say
        how fresh it is is waited for, as by any loop.
        """
        if self._loops[question.loop].predict.store_away == "refuse":
            return await read()
        try:
            if not self._circuit.may(self._stopwatch()):
                raise FeaturesUnavailable("the online store does not answer; it is asked once a second")
            return await read()
        except FeaturesUnavailable:
            if question.transport == "kafka" and self._is_young():
                raise
            self._metrics.featureless.labels(question.loop, question.transport).inc(rows)
            return None

    async def _soon(self, asked: Awaitable[T]) -> T:
        reading = asyncio.ensure_future(asked)
        reading.add_done_callback(lambda done: done.cancelled() or done.exception())  # if nobody waits any more
        # Not cancelled: it ends by its own limit, and its connection stays whole.
        await asyncio.wait({reading}, timeout=SLOW)
        try:
            if not reading.done():
                raise FeaturesUnavailable(f"the online store did not answer within {SLOW} s")
            found = reading.result()
        except FeaturesUnavailable:
            self._circuit.failed(self._stopwatch())
            raise
        self._circuit.answered()
        return found

    def _is_young(self) -> bool:
        since = self._circuit.since
        return since is None or self._stopwatch() - since < PATIENCE


class _Watched:
    """`ports.Features` whose questions to the store go through `soon`."""

    def __init__(self, features: Features, soon: Callable[[Awaitable[Any]], Awaitable[Any]]) -> None:
        self._features = features
        self._soon = soon

    @property
    def join_keys(self) -> Sequence[str]:
        return self._features.join_keys

    @property
    def names(self) -> Sequence[str]:
        return self._features.names

    @property
    def views(self) -> Mapping[str, str]:
        return self._features.views

    @property
    def streams(self) -> Mapping[str, str]:
        return self._features.streams

    async def applied(self) -> Mapping[str, Mapping[int, tuple[int, int]]]:
        found: Mapping[str, Mapping[int, tuple[int, int]]] = await self._soon(self._features.applied())
        return found

    async def read(self, entities: Mapping[str, Sequence[Scalar]], as_of: NDArray[np.int64]) -> FeatureValues:
        found: FeatureValues = await self._soon(self._features.read(entities, as_of))
        return found
