"""Characters of drift's tests: a loop `flight-delay`, two models of it, flights that ask and land."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
from prometheus_client import CollectorRegistry

from millstream.codecs.codec import JSON
from millstream.contracts.envelope import Envelope
from millstream.contracts.events import Event, LabelsMatured, PredictionServed, QuestionUnanswered, WindowJudged
from millstream.contracts.package import InputColumn, Manifest, Reference
from millstream.contracts.times import HOUR, from_rfc3339, to_datetime
from millstream.contracts.topics import LABELS, PREDICTIONS
from millstream.project import Loop, Stream
from millstream.runtime.delivery import Batch
from millstream.runtime.health import Health
from millstream.testing import models
from millstream_drift.adapters.kafka_events import KafkaEvents
from millstream_drift.adapters.memory import (
    MemoryComparisons,
    MemoryLog,
    MemoryModels,
    MemoryReports,
    MemorySnapshots,
    MemorySpeaker,
)
from millstream_drift.app import rules_of
from millstream_drift.domain.baseline import Baseline, baseline_of
from millstream_drift.handlers import Judging
from millstream_drift.metrics import DriftMetrics

JUNE = from_rfc3339("2013-06-01T00:00:00Z")
LOOP = "flight-delay"
LANDED = "flights-landed"
CARRIERS = ["UA", "B6", "EV", "DL"]
PARTITIONS = 3


def definition(name: str, time: str, **properties: Any) -> dict[str, Any]:
    """A stream of flights as a project has it, with these properties beside id and time."""
    fields = {"flight_id": {"type": "string"}, time: {"type": "string", "format": "date-time"}, **properties}
    schema = {"type": "object", "required": ["flight_id", time], "properties": fields}
    return {"stream": name, "description": name, "key": "flight_id", "id": "flight_id", "time": time, "schema": schema}


def definitions(asked: str, landed: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two streams of every story."""
    return (
        definition(
            asked,
            "asked_at",
            distance={"type": "integer"},
            carrier={"type": "string"},
            remark={"type": "string"},
            echo={"type": "array", "items": {"type": "number"}},
        ),
        definition(landed, "landed_at", arr_delay={"type": ["number", "null"]}),
    )


def streams() -> dict[str, Stream]:
    both = definitions("flights-scheduled", LANDED)
    return {one["stream"]: Stream.model_validate(one) for one in both}


def loop(
    gate: dict[str, Any] | None = None,
    rollout: dict[str, Any] | None = None,
    label: dict[str, Any] | None = None,
    task: str = "binary",
    **drift: Any,
) -> Loop:
    told = {"from": LANDED, "by": "flight_id", "value": "arr_delay >= 15", "within": "24h"}
    return Loop.model_validate(
        {
            "loop": LOOP,
            "predict": {"on": "flights-scheduled", "features": "delay_v1", "inputs": ["distance", "carrier"]},
            "label": told | (label or {}),
            "model": {"task": task},
            "gate": gate or {},
            "rollout": rollout or {},
            "drift": {"window": 200, **drift},
        }
    )


def reference(loss: float = 0.56) -> Reference:
    deciles = [float(np.round(x, 3)) for x in np.quantile(np.arange(1000), np.linspace(0.1, 0.9, 9))]
    return models.reference(
        [
            models.number("distance", deciles, importance=0.3),
            models.category("carrier", CARRIERS, importance=0.2),
            models.number("origin__mean_1h", deciles, importance=0.5, missing=0.1),
        ],
        models.number("probability", [0.1, 0.2, 0.3, 0.4], importance=1.0),
        holdout_loss=loss,
        holdout_loss_std=0.3,
        sample={
            "distance": [float(x) for x in range(0, 1000, 4)],
            "carrier": [CARRIERS[x % 4] for x in range(250)],
            "origin__mean_1h": [None if x % 10 == 0 else float(x * 4) for x in range(250)],
        },
    )


def manifest(version: str, files: dict[str, str] | None = None) -> Manifest:
    inputs = [
        InputColumn(name="distance", source="input", type="number"),
        InputColumn(name="carrier", source="input", type="category"),
        InputColumn(name="origin__mean_1h", source="feature", type="number"),
    ]
    return models.manifest(
        LOOP, inputs, version=version, at=JUNE, label="arr_delay >= 15", feature_service="delay_v1", files=files or {}
    )


def baseline(version: str = "1", loss: float = 0.56) -> Baseline:
    return baseline_of(manifest(version), reference(loss))


@dataclass
class KafkaRecord:
    """A record as the client hands it over."""

    topic: str
    partition: int
    offset: int
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    timestamp: int = 1_800_000_000_000
    key: bytes | None = None


@dataclass
class World:
    """Generates flights hour by hour; what it did last is what drift should notice."""

    seed: int = 7
    version: str = "1"
    stretch: float = 1.0
    """Features are multiplied by it: 1 is as in training."""
    nulls: float = 0.1
    """Share of flights whose feature is null."""
    carrier: str | None = None
    """Every flight is of this carrier."""
    skill: float = 1.0
    """1: outcomes follow the answers; -1: they contradict them."""
    flights: int = 0
    said: list[tuple[str, Event | dict[str, Any], int]] = field(default_factory=list)
    """(topic, event, known-at)."""

    def hours(self, start: int, hours: int, each: int = 40, labels: bool = True) -> World:
        """`each` flights ask at the start of every hour and land 3 hours later."""
        rng = np.random.default_rng([self.seed, start // HOUR % 1_000_000, self.flights])
        for hour in range(hours):
            asked_at = start + hour * HOUR
            for _ in range(each):
                self.flights += 1
                self._flight(rng, f"flight-{self.flights}", asked_at, labels)
        return self

    def _flight(self, rng: np.random.Generator, id: str, asked_at: int, labels: bool) -> None:
        probability = float(np.round(rng.uniform(0.02, 0.5), 4))
        mean: float | None = float(np.round(rng.uniform(0, 1000) * self.stretch, 2))
        if rng.random() < self.nulls:
            mean = None
        event = prediction(
            id,
            asked_at,
            version=self.version,
            probability=probability,
            inputs={"distance": int(rng.integers(0, 1000)), "carrier": self.carrier or str(rng.choice(CARRIERS))},
            features={"origin__mean_1h": mean},
        )
        self.said.append((PREDICTIONS.name, event, asked_at))
        if labels:
            chance = probability if self.skill > 0 else 1 - probability
            self.said.append(
                (LANDED, landing(id, asked_at + 3 * HOUR, late=rng.random() < chance), asked_at + 3 * HOUR)
            )


def prediction(id: str, asked_at: int, **more: Any) -> PredictionServed:
    fields: dict[str, Any] = {
        "id": f"prediction-{id}",
        "loop": LOOP,
        "question": id,
        "key": id,
        "asked_at": to_datetime(asked_at),
        "version": "1",
        "variant": "champion",
        "transport": "kafka",
        "entities": {},
        "inputs": {"distance": 500, "carrier": "UA"},
        "features": {"origin__mean_1h": 500.0},
        "timings_ms": {},
    }
    return PredictionServed(**fields | {"output": {"probability": more.pop("probability", 0.2)}} | more)


def unanswered(id: str, asked_at: int) -> QuestionUnanswered:
    return QuestionUnanswered(
        id=f"prediction-{id}",
        loop=LOOP,
        question=id,
        key=id,
        asked_at=to_datetime(asked_at),
        reason="no_model",
        transport="kafka",
    )


def landing(id: str, at: int, late: bool | None = True) -> dict[str, Any]:
    delay = None if late is None else 40 if late else -5
    return {"flight_id": id, "landed_at": to_datetime(at - HOUR // 2).isoformat(), "arr_delay": delay}


@dataclass
class Topics:
    """The topics as Kafka keeps them: partitioned by key, append only."""

    records: dict[tuple[str, int], list[KafkaRecord]] = field(
        default_factory=lambda: {(t, p): [] for t in (PREDICTIONS.name, LABELS.name, LANDED) for p in range(PARTITIONS)}
    )

    def add(self, said: Iterable[tuple[str, Event | dict[str, Any], int]]) -> Topics:
        for topic, event, known_at in said:
            if isinstance(event, Event):
                key, value = event.key, event.encode()  # type: ignore[attr-defined]
                envelope = Envelope(id=event.id, type=event.type_name, source="test")  # type: ignore[attr-defined]
            else:
                key, value = event["flight_id"], msgspec.json.encode(event)
                envelope = Envelope(id=f"landing-{key}", type=topic, source="test", known_at=known_at)
            self.raw(topic, key, value, envelope.headers())
        return self

    def raw(self, topic: str, key: str, value: bytes, headers: Sequence[tuple[str, bytes]]) -> KafkaRecord:
        partition = int(hashlib.md5(key.encode(), usedforsecurity=False).hexdigest(), 16) % PARTITIONS
        log = self.records[topic, partition]
        log.append(KafkaRecord(topic, partition, len(log), value, headers))
        return log[-1]

    def bounds(self) -> dict[tuple[str, int], tuple[int, int]]:
        return {place: (0, len(log)) for place, log in self.records.items()}


class Desk:
    """One drift process on memory adapters."""

    def __init__(self, topics: Topics, snapshots: MemorySnapshots | None = None, **drift: Any) -> None:
        self.topics = topics
        self.loops = {LOOP: loop(**drift)}
        self.models, self.reports, self.speaker = MemoryModels(), MemoryReports(), MemorySpeaker()
        self.comparisons = MemoryComparisons()
        self.snapshots = snapshots or MemorySnapshots()
        self.registry = CollectorRegistry()
        self.metrics = DriftMetrics(self.registry)
        self.health = Health(60)
        self.log = MemoryLog(topics.bounds())
        self.clock = 0.0
        self.models.known[LOOP, "1"] = baseline("1")
        self.reader = KafkaEvents(
            loops=self.loops,
            streams=streams(),
            codecs=dict.fromkeys(streams(), JSON),
            models=self.models,
            metrics=self.metrics,
            clock=lambda: self.clock,
            patience=60.0,
        )
        self.judging = Judging(
            rules={LOOP: rules_of(self.loops[LOOP])},
            reader=self.reader,
            models=self.models,
            snapshots=self.snapshots,
            speaker=self.speaker,
            reports=self.reports,
            comparisons=self.comparisons,
            health=self.health,
            metrics=self.metrics,
        )
        self.judging.log = self.log
        self.next: dict[tuple[str, int], int] = {}

    async def start(self) -> Desk:
        self.log.known = self.topics.bounds()
        self.next = await self.judging.assigned(sorted(self.topics.records))
        return self

    async def read(self, place: tuple[str, int], most: int = 10_000) -> list[Any]:
        """Hand over the next `most` records of one partition, as a poll does."""
        self.log.known = self.topics.bounds()
        start = self.next[place]
        records = self.topics.records[place][start : start + most]
        if not records:
            return []
        rejected = await self.judging(Batch(*place, start, records[-1].offset, records))
        self.next[place] = self.log.done[place] = records[-1].offset + 1
        return list(rejected)

    async def read_all(self, most: int = 10_000, seed: int | None = None) -> Desk:
        """Poll until everything is read, partitions in turn or (with a seed) in any order and any size."""
        rng = np.random.default_rng(seed)
        places = sorted(self.topics.records)
        while left := [place for place in places if self.next[place] < len(self.topics.records[place])]:
            if seed is None:
                for place in left:
                    await self.read(place, most)
            else:
                await self.read(left[int(rng.integers(len(left)))], int(rng.integers(1, most)))
        return self

    @property
    def verdicts(self) -> list[WindowJudged]:
        return [event for event in self.speaker.said if isinstance(event, WindowJudged)]

    @property
    def matured(self) -> list[LabelsMatured]:
        return [event for event in self.speaker.said if isinstance(event, LabelsMatured)]


def day(number: int) -> int:
    """Start of a day of June 2013, from 1."""
    return JUNE + timedelta(days=number - 1) // timedelta(microseconds=1)
