"""Kafka → tiles: how many events a second the features service applies, and what an event costs."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from workload import fill, project

from millstream.project import load_project
from millstream.runtime.topic_admin import ensure_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.ports import free_port
from millstream.testing.process import ManagedProcess
from millstream.testing.valkey import EmbeddedValkey
from millstream_cli.offsets import Offsets
from millstream_cli.topics import topics_of

GROUP = "features-tiles"


@dataclass(frozen=True, kw_only=True)
class Applied:
    """One run."""

    events_per_second: float
    cpu_us: dict[str, float]
    """Microseconds of CPU an event, by process."""
    event_bytes: int
    worker_mb: float


async def apply(events: int, *, two_slides: bool, headers: bool) -> Applied:
    """One worker and one Valkey on what the machine has, beside Kafka; everything is in Kafka before the worker starts."""
    with TemporaryDirectory(prefix="millstream-bench-") as name:
        root = Path(name)
        kafka = EmbeddedKafka(root / "kafka", log_dir=root / "logs")
        valkey = EmbeddedValkey(root / "valkey", None, log_dir=root / "logs")
        with kafka.running(), valkey.running():
            path = project(root / "project", two_slides=two_slides)
            await ensure_topics(kafka.bootstrap, topics_of(load_project(path), partitions=1))
            size = await fill(kafka.bootstrap, events, headers=headers)
            worker = worker_of(root, path, kafka.bootstrap, valkey.url)
            worker.launch()
            try:
                return await watch(kafka, valkey.processes, [worker], events, size)
            finally:
                worker.terminate()


def worker_of(root: Path, project: Path, kafka: str, valkey: str, number: int = 0, shards: int = 1) -> ManagedProcess:
    """A features process, not yet started, that keeps the tiles alone."""
    return ManagedProcess(
        f"features-{number}",
        [sys.executable, "-m", "millstream_features"],
        log=root / "logs" / f"features-{number}.log",
        env={
            "MILLSTREAM_KAFKA": kafka,
            "MILLSTREAM_VALKEY": valkey,
            "MILLSTREAM_SHARDS": str(shards),
            "MILLSTREAM_PROJECT": str(project),
            "MILLSTREAM_DATA": str(root / f"data-{number}"),
            "MILLSTREAM_PORT": str(free_port()),
            "MILLSTREAM_PART": "tiles",
        },
    )


async def watch(
    kafka: EmbeddedKafka,
    stores: Sequence[ManagedProcess],
    workers: Sequence[ManagedProcess],
    events: int,
    size: int,
    *,
    after: float = 0.0,
) -> Applied:
    """From the first commit (of more than the share `after` of the events) to the last: no process' start is measured."""
    processes = {"features": workers, "valkey": stores, "kafka": kafka.processes}

    def spent() -> dict[str, float]:
        return {
            name: sum(usage.cpu_seconds for one in several if (usage := one.usage()) is not None)
            for name, several in processes.items()
        }

    offsets = Offsets(kafka.bootstrap)
    await offsets.start()
    try:
        while (first := sum((await offsets.committed(GROUP)).values())) <= after * events:
            for worker in workers:
                if not worker.alive():
                    raise RuntimeError(f"a worker ended: {worker.log_tail()}")
            await asyncio.sleep(0.01)
        began, before, done = time.perf_counter(), spent(), first
        while done < events:
            await asyncio.sleep(0.02)
            done = sum((await offsets.committed(GROUP)).values())
        seconds, after = time.perf_counter() - began, spent()
    finally:
        await offsets.stop()
    count = events - first
    most = max(usage.peak_rss_bytes for worker in workers if (usage := worker.usage()) is not None)
    return Applied(
        events_per_second=round(count / seconds),
        cpu_us={name: round((after[name] - before[name]) / count * 1e6, 2) for name in after},
        event_bytes=size,
        worker_mb=round(most / 2**20),
    )
