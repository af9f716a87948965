"""The ports in memory, for tests and for trying the service without servers. They keep the same promises."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from millstream.contracts.events import Scalar
from millstream.contracts.package import InputColumn
from millstream.errors import DeliveryUnknown, NotSent
from millstream.runtime.metrics import RuntimeMetrics
from millstream.runtime.publisher import Outgoing, Publisher
from millstream_serving.domain.columns import Columns, FeatureValues
from millstream_serving.errors import FeaturesUnavailable, ModelFailed, ModelRefused
from millstream_serving.ports import Features

Score = Callable[[Mapping[str, object]], float | Sequence[float]]
"""One row's probability or value, or its probabilities by class; whatever it raises is a failing graph."""


@dataclass(frozen=True)
class MemoryModel:
    """A model that is a Python function of one row."""

    score: Score
    size: int = 1_000

    def run(self, columns: Columns) -> NDArray[np.float32]:
        rows = len(next(iter(columns.values())))
        try:
            found = [self.score({name: values[row, 0] for name, values in columns.items()}) for row in range(rows)]
        except Exception as error:  # the port says ModelFailed, whatever went wrong inside
            raise ModelFailed(f"{type(error).__name__}: {error}") from error
        return np.array(found, dtype=np.float32)


@dataclass
class MemoryRuntime:
    """Graphs are names of functions."""

    graphs: dict[bytes, Score] = field(default_factory=dict)
    sizes: dict[bytes, int] = field(default_factory=dict)
    """Bytes that a graph takes, of those that are not small."""

    def load(self, raw: bytes, inputs: Sequence[InputColumn], output: str) -> MemoryModel:
        if raw not in self.graphs:
            raise ModelRefused("graph", f"no graph {raw!r}")
        return MemoryModel(self.graphs[raw], self.sizes.get(raw, 1_000))


@dataclass
class MemoryFeatures:
    """One feature a join key: `values[key, entity]`, NaN where there is none."""

    join_keys: Sequence[str]
    views: Mapping[str, str]
    values: dict[tuple[str, Scalar], float] = field(default_factory=dict)
    away: bool = False
    """Set to make the store unreachable."""
    stream: str = "flights-landed"
    """Whose events the views aggregate."""
    fences: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Of it, partition → last offset and newest known-at that were applied."""

    @property
    def streams(self) -> Mapping[str, str]:
        return dict.fromkeys(self.views, self.stream)

    async def applied(self) -> Mapping[str, Mapping[int, tuple[int, int]]]:
        return {self.stream: dict(self.fences)}

    @property
    def names(self) -> Sequence[str]:
        return [f"{key}_delays__mean" for key in self.join_keys]

    async def read(self, entities: Mapping[str, Sequence[Scalar]], as_of: NDArray[np.int64]) -> FeatureValues:
        if self.away:
            raise FeaturesUnavailable("the online store did not answer: out for a walk")
        return {
            f"{key}_delays__mean": np.array([self.values.get((key, entity), np.nan) for entity in entities[key]])
            for key in self.join_keys
        }


@dataclass
class MemoryFreshness:
    """Lags as it is told to."""

    known_until: dict[str, int] = field(default_factory=dict)
    """View → known-at of the first event that it misses."""

    async def stale(self, features: Features, asked_at: Sequence[int], bound: int) -> list[dict[str, float]]:
        return [
            {view: (one - until) / 1e6 for view, until in self.known_until.items() if one - until > bound}
            for one in asked_at
        ]

    async def close(self) -> None:
        """Nothing to let go of."""


@dataclass
class MemoryFeatureStore:
    """Services by name."""

    services: dict[str, MemoryFeatures] = field(default_factory=dict)

    async def prepare(self) -> None:
        """Nothing to read."""

    async def check(self) -> None:
        """Always there."""

    async def open(self, service: str) -> MemoryFeatures:
        if service not in self.services:
            raise ModelRefused("features", f"no FeatureService {service!r}; found: {', '.join(self.services)}")
        return self.services[service]

    async def close(self) -> None:
        """Nothing to let go of."""


class MemoryLog:
    """Puts answers into the publisher's list, at once."""

    def __init__(self, publisher: MemoryPublisher) -> None:
        self._publisher = publisher

    def put(self, loop: str, records: Sequence[Outgoing]) -> None:
        if self._publisher.away:
            raise NotSent("Kafka is out for a walk")
        self._publisher.sent += records


class MemoryPublisher(Publisher):
    """Confirms into a list, at once."""

    def __init__(self) -> None:
        metrics = RuntimeMetrics(CollectorRegistry())
        super().__init__(bootstrap="", source="millstream/serving/memory", timeout=1.0, metrics=metrics)
        self.sent: list[Outgoing] = []
        self.away = False
        """Set to confirm nothing any more."""

    async def publish_fitting(self, records: Sequence[Outgoing]) -> None:
        if self.away:
            raise DeliveryUnknown(f"Kafka did not confirm {len(records)} records")
        self.sent += records
