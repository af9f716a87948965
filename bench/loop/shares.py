"""What a second replica of drift is worth: eight loops as one share, and as two that each read all predictions (ADR 32).

CPU time of the path from a record's bytes to verdicts, without Kafka's client: with a core each, two replicas do as much more
as one share costs over the dearer of two. They are measured in turn, so that what else the machine does falls on both.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Sequence
from typing import Any

import msgspec
from drift import BATCH, LABELS, Heard, answers, bench_loop, bench_stream, model, record
from prometheus_client import CollectorRegistry

from millstream.codecs.codec import JSON
from millstream.contracts.topics import PREDICTIONS
from millstream.project import Loop
from millstream.runtime.delivery import Batch
from millstream.runtime.health import Health
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
from millstream_drift.handlers import Judging
from millstream_drift.metrics import DriftMetrics
from millstream_drift.subscribers import shares

LOOPS = 8
"""As many as a mill has that needs a second replica: one loop is never more than one."""


def run(predictions: int = 80_000, runs: int = 3) -> dict[str, Any]:
    """The median run of `runs`: predictions a second of CPU time for one share, and for two side by side."""
    names = [f"loop-{number}" for number in range(LOOPS)]
    loops = {name: bench_loop().model_copy(update={"loop": name}) for name in names}
    said = [
        record(n, msgspec.structs.replace(one, loop=names[n % LOOPS])) for n, one in enumerate(answers(predictions))
    ]
    gc.collect()
    gc.freeze()  # the records that wait here would be in Kafka, not in this process
    found = []
    for _ in range(runs):
        whole, dealt = (
            [asyncio.run(_judged(said, loops, mine)) for mine in shares(names, count).values()] for count in (1, 2)
        )
        found.append((whole[0] / max(dealt), whole[0], max(dealt)))
    ratio, one, two = sorted(found)[runs // 2]
    return {
        "loops": LOOPS,
        "one_share_per_second": round(predictions / one),
        "two_shares_per_second": round(predictions / two),
        "two_to_one": round(ratio, 2),
        "two_to_one_runs": [round(each, 2) for each, *_ in found],
    }


async def _judged(said: Sequence[Heard], loops: dict[str, Loop], mine: Sequence[str]) -> float:
    """CPU seconds in which a replica with these loops reads all that was said, and judges what is theirs."""
    models, metrics, speaker = MemoryModels(), DriftMetrics(CollectorRegistry()), MemorySpeaker()
    models.known = {(name, "1"): baseline_of(*model()) for name in loops}
    reader = KafkaEvents(
        loops=loops,
        streams={LABELS: bench_stream()},
        codecs={LABELS: JSON},
        models=models,
        metrics=metrics,
        clock=time.monotonic,
        patience=60.0,
        mine=mine,
    )
    judging = Judging(
        rules={name: rules_of(loops[name]) for name in mine},
        reader=reader,
        models=models,
        snapshots=MemorySnapshots(),
        speaker=speaker,
        reports=MemoryReports(),
        comparisons=MemoryComparisons(),
        health=Health(60),
        metrics=metrics,
    )
    place = (PREDICTIONS.name, 0)
    judging.log = MemoryLog({place: (0, len(said)), (LABELS, 0): (0, 0)})
    await judging.assigned([place, (LABELS, 0)])
    began = time.process_time()
    for start in range(0, len(said), BATCH):
        batch = said[start : start + BATCH]
        rejected = await judging(Batch(*place, start, batch[-1].offset, batch))
        assert not rejected, rejected[0]
    spent = time.process_time() - began
    judged = {event.loop for event in speaker.said if event.type_name.startswith("millstream.window")}
    assert judged == set(mine), f"windows of {sorted(judged)} were judged"
    return spent


if __name__ == "__main__":
    print(run())
