"""What drift's judging costs: stage one by itself, and the whole path from a record's bytes to verdicts."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from prometheus_client import CollectorRegistry

from millstream.codecs.codec import JSON
from millstream.contracts.envelope import Envelope
from millstream.contracts.events import PredictionServed, WindowKind
from millstream.contracts.package import InputColumn, Manifest, Reference
from millstream.contracts.times import SECOND, from_rfc3339, to_datetime
from millstream.contracts.topics import PREDICTIONS
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
from millstream_drift.domain.baseline import baseline_of
from millstream_drift.domain.judge import judge
from millstream_drift.domain.memory import Memory
from millstream_drift.domain.windows import Window
from millstream_drift.handlers import Judging
from millstream_drift.metrics import DriftMetrics

NUMBERS, CATEGORIES = 14, 6
"""Columns of either kind: 20 in all, in the proportion of the flights."""
CARRIERS = ["UA", "B6", "EV", "DL", "AA", "MQ", "US", "9E", "WN", "VX"]
LOOP, LABELS = "bench", "bench-outcomes"
START = from_rfc3339("2013-06-01T00:00:00Z")
BATCH = 500
"""Records a poll, as the consumer asks for."""


@dataclass
class Heard:
    """A record as the client hands it over."""

    topic: str
    partition: int
    offset: int
    value: bytes
    headers: Sequence[tuple[str, bytes]]
    timestamp: int = 1_800_000_000_000
    key: bytes | None = None


def run(predictions: int = 100_000, runs: int = 3) -> dict[str, float]:
    """Rates on one core: rows and answers by CPU time, the best of `runs`."""
    return {
        "drift_rows_per_second": max(_stage_one() for _ in range(runs)),
        "drift_predictions_per_second": max(asyncio.run(_path(predictions, labels=False)) for _ in range(runs)),
        "drift_labelled_predictions_per_second": max(asyncio.run(_path(predictions, labels=True)) for _ in range(runs)),
    }


def _stage_one(rows: int = 5_000, windows: int = 40) -> float:
    """Windows of 20 columns compared with their reference, rows a second of CPU time."""
    baseline, rules, memory = baseline_of(*model()), rules_of(bench_loop()), Memory()
    found = [(one.output, one.producer, *baseline.row(one.inputs, one.features)) for one in answers(rows)]
    window = Window("1", WindowKind.INPUTS, 0, rows=found, start=START, end=START)
    began = time.process_time()
    for _ in range(windows):
        judge(window, START, baseline, rules, memory)
    return rows * windows / (time.process_time() - began)


async def _path(predictions: int, labels: bool) -> float:
    """Records in Kafka's form through reader, fold, windows and verdicts; predictions a second of CPU time."""
    said = answers(predictions)
    records = {PREDICTIONS.name: [record(n, one) for n, one in enumerate(said)]}
    records[LABELS] = [_label(n, one) for n, one in enumerate(said)] if labels else []
    del said
    return predictions / await judged(records, {LOOP: bench_loop()})


async def judged(
    records: Mapping[str, Sequence[Heard]], loops: Mapping[str, Loop], mine: Sequence[str] | None = None
) -> float:
    """CPU seconds in which a replica that has `mine` of the `loops` (all) reads every record, and judges what is its own."""
    mine = list(loops) if mine is None else mine
    known, metrics, speaker = MemoryModels(), DriftMetrics(CollectorRegistry()), MemorySpeaker()
    known.known = {(name, "1"): baseline_of(*model()) for name in loops}
    reader = KafkaEvents(
        loops=loops,
        streams={LABELS: bench_stream()},
        codecs={LABELS: JSON},
        models=known,
        metrics=metrics,
        clock=time.monotonic,
        patience=60.0,
        mine=mine,
    )
    judging = Judging(
        rules={name: rules_of(loops[name]) for name in mine},
        reader=reader,
        models=known,
        snapshots=MemorySnapshots(),
        speaker=speaker,
        reports=MemoryReports(),
        comparisons=MemoryComparisons(),
        health=Health(60),
        metrics=metrics,
    )
    judging.log = MemoryLog({(topic, 0): (0, len(log)) for topic, log in records.items()})
    await judging.assigned([(topic, 0) for topic in records])
    gc.collect()
    gc.freeze()  # the records that wait here would be in Kafka, not in this process
    began = time.process_time()
    for start in range(0, max(map(len, records.values())), BATCH):
        for topic, log in records.items():
            batch = log[start : start + BATCH]
            if batch:
                rejected = await judging(Batch(topic, 0, start, batch[-1].offset, batch))
                assert not rejected, rejected[0]
    spent = time.process_time() - began
    gc.unfreeze()
    found = {event.loop for event in speaker.said if event.type_name.startswith("millstream.window")}
    assert found == set(mine), f"windows of {sorted(found)} were judged"
    return spent


def record(offset: int, event: PredictionServed) -> Heard:
    envelope = Envelope(id=event.id, type=event.type_name, source="serving")
    return Heard(PREDICTIONS.name, 0, offset, event.encode(), envelope.headers())


def _label(offset: int, event: PredictionServed) -> Heard:
    known_at = START + offset * SECOND + 600 * SECOND
    envelope = Envelope(id=f"landing-{event.key}", type=LABELS, source="bench", known_at=known_at)
    told = {"id": event.key, "at": to_datetime(known_at).isoformat(), "delay": float(offset % 40)}
    return Heard(LABELS, 0, offset, msgspec.json.encode(told), envelope.headers())


def answers(count: int) -> list[PredictionServed]:
    """One question a second, as training had them: twenty columns with some nulls."""
    rng = np.random.default_rng(7)
    numbers, nulls = rng.random((count, NUMBERS)), rng.random((count, NUMBERS)) < 0.05
    carriers = rng.integers(0, len(CARRIERS), (count, CATEGORIES))
    probabilities = rng.random(count)
    return [
        PredictionServed(
            id=f"prediction-{n}",
            loop=LOOP,
            question=f"question-{n}",
            key=f"flight-{n}",
            asked_at=to_datetime(START + n * SECOND),
            version="1",
            variant="champion",
            transport="kafka",
            entities={"tailnum": f"N{n % 4000}"},
            inputs={f"category_{c}": CARRIERS[carriers[n, c]] for c in range(CATEGORIES)},
            features={f"view__n{c}": None if nulls[n, c] else float(numbers[n, c]) for c in range(NUMBERS)},
            output={"probability": float(probabilities[n])},
            timings_ms={"read": 0.4, "model": 0.2, "total": 0.9},
            producer="urn:desk",
        )
        for n in range(count)
    ]


def model() -> tuple[Manifest, Reference]:
    """What the package of the bench's model says."""
    deciles = [n / 10 for n in range(1, 10)]
    numbers = [models.number(f"view__n{c}", deciles, importance=0.05, missing=0.05) for c in range(NUMBERS)]
    categories = [models.category(f"category_{c}", CARRIERS, importance=0.05) for c in range(CATEGORIES)]
    inputs = [
        *(InputColumn(name=one.name, source="feature", type="number") for one in numbers),
        *(InputColumn(name=one.name, source="input", type="category") for one in categories),
    ]
    answer = models.number("probability", deciles, importance=0.0)
    return models.manifest(LOOP, inputs, at=START), models.reference([*numbers, *categories], answer)


def bench_loop() -> Loop:
    inputs = [f"category_{c}" for c in range(CATEGORIES)]
    return Loop.model_validate(
        {
            "loop": LOOP,
            "predict": {"on": "bench-questions", "features": "bench_v1", "inputs": inputs},
            "label": {"from": LABELS, "by": "id", "value": "delay >= 20", "within": "1h"},
        }
    )


def bench_stream() -> Stream:
    properties = {"id": {"type": "string"}, "at": {"type": "string", "format": "date-time"}}
    schema = {"type": "object", "properties": properties | {"delay": {"type": "number"}}, "required": ["id", "at"]}
    return Stream.model_validate(
        {"stream": LABELS, "description": LABELS, "key": "id", "id": "id", "time": "at", "schema": schema}
    )


if __name__ == "__main__":
    print(run())
