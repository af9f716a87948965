"""How soon an event can be read: Kafka → tiles → reader, at a steady rate, by events that are looked for one by one."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aiokafka import AIOKafkaProducer
from workload import STREAM, departure, project

from millstream.project import load_project
from millstream.runtime.topic_admin import ensure_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.ports import free_port
from millstream.testing.process import ManagedProcess
from millstream.testing.valkey import EmbeddedValkey
from millstream_cli.topics import topics_of
from millstream_tiles import open_store, views_of
from millstream_tiles.reader import WindowReader

BEAT = 0.01
"""Seconds between two sends: a hundred events each at 10,000 a second, of which the last is looked for."""
WARM_UP = 5.0
"""Seconds that are not measured: the worker's first batches, and Kafka's."""
LOOK = 0.001
"""Seconds between two looks for one event."""
LONGEST = 10.0
"""Seconds after which an event that cannot be read is a failure of the measurement."""


@dataclass(frozen=True, kw_only=True)
class Fresh:
    """One run. Milliseconds from the moment at which Kafka confirmed an event until a reader saw it counted."""

    ms_p50: float
    ms_p99: float
    from_send_ms_p50: float
    """The same from the moment at which the producer was given it."""
    from_send_ms_p99: float
    events: int
    """Of which the time was taken."""
    events_per_second: float
    """Sent while they were."""


async def freshness(*, rate: int = 10_000, seconds: float = 20.0) -> Fresh:
    """One worker, one Valkey and Kafka beside the producer and the reader, on what the machine has."""
    with TemporaryDirectory(prefix="millstream-bench-") as name:
        root = Path(name)
        kafka = EmbeddedKafka(root / "kafka", log_dir=root / "logs")
        valkey = EmbeddedValkey(root / "valkey", None, log_dir=root / "logs")
        with kafka.running(), valkey.running():
            path = project(root / "project", two_slides=False)
            await ensure_topics(kafka.bootstrap, topics_of(load_project(path), partitions=1))
            views = views_of(open_store(path / "features"))
            port = free_port()
            worker = ManagedProcess(
                "features",
                [sys.executable, "-m", "millstream_features"],
                log=root / "logs" / "features.log",
                env={
                    "MILLSTREAM_KAFKA": kafka.bootstrap,
                    "MILLSTREAM_VALKEY": valkey.url,
                    "MILLSTREAM_PROJECT": str(path),
                    "MILLSTREAM_DATA": str(root / "data"),
                    "MILLSTREAM_PORT": str(port),
                    "MILLSTREAM_PART": "tiles",
                },
            )
            worker.launch()
            reader = WindowReader(valkey.url, "millstream", views)
            try:
                return await _measure(kafka.bootstrap, reader, rate, seconds)
            except TimeoutError as error:
                raise RuntimeError(f"an event could not be read within {LONGEST} s:\n{worker.log_tail()}") from error
            finally:
                await reader.aclose()
                worker.terminate()


async def _measure(bootstrap: str, reader: WindowReader, rate: int, seconds: float) -> Fresh:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks=1, max_batch_size=256 * 1024)
    await producer.start()
    looking: set[asyncio.Task[tuple[float, float]]] = set()
    number = sent = 0
    try:
        # The first event is waited for as long as the worker's start takes.
        await asyncio.wait_for(_look(producer, reader, await _send(producer, 1, -1)), 60)
        began = time.perf_counter()
        measured_from = 0
        while (elapsed := time.perf_counter() - began) < WARM_UP + seconds:
            if elapsed >= WARM_UP and not measured_from:
                measured_from, looking = sent, set()
                first = time.perf_counter()
            due = int(rate * elapsed) - sent
            if due > 0:
                marked = await _send(producer, due, number)
                sent += due
                number += 1
                looking.add(asyncio.create_task(asyncio.wait_for(_look(producer, reader, marked), LONGEST)))
            await asyncio.sleep(max(0.0, (number + 1) * BEAT - (time.perf_counter() - began)))
        span = time.perf_counter() - first
        found = await asyncio.gather(*looking)
    finally:
        await producer.stop()
    confirmed, given = (sorted(1_000 * took for took in one) for one in zip(*found, strict=True))
    return Fresh(
        ms_p50=round(statistics.median(confirmed), 1),
        ms_p99=round(confirmed[int(len(confirmed) * 0.99)], 1),
        from_send_ms_p50=round(statistics.median(given), 1),
        from_send_ms_p99=round(given[int(len(given) * 0.99)], 1),
        events=len(found),
        events_per_second=round((sent - measured_from) / span),
    )


async def _send(producer: AIOKafkaProducer, count: int, number: int) -> tuple[str, float, asyncio.Future[Any]]:
    """Send `count` departures, the last by an aircraft that nobody else is; (its name, when, Kafka's word)."""
    batch, now, marked = producer.create_batch(), time.time(), f"LOOK{number}"
    for one in range(count):
        at, key, value = departure(now, aircraft=marked if one == count - 1 else None)
        batch.append(key=key, value=value, timestamp=at)
    given = time.perf_counter()
    return marked, given, await producer.send_batch(batch, STREAM, partition=0)


async def _look(
    producer: AIOKafkaProducer, reader: WindowReader, marked: tuple[str, float, asyncio.Future[Any]]
) -> tuple[float, float]:
    """Seconds from Kafka's word, and from the send, until the event is counted."""
    aircraft, given, word = marked
    await word
    confirmed = time.perf_counter()
    while True:
        (found,) = await reader.read_async([("by_aircraft", {"aircraft": [aircraft]})], time.time_ns() // 1_000)
        if found["count_1h"][0]:
            break
        await asyncio.sleep(LOOK)
    now = time.perf_counter()
    return now - confirmed, now - given
