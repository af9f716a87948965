"""How soon an event can be read: Kafka → tiles → reader, at a steady rate, by events that are looked for one by one."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

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
LONGEST = 60.0
"""Seconds after which an event that cannot be read is a failure of the measurement; the worker's start is among them."""


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
    lookout = _Lookout(reader)
    try:
        # The first event is waited for as long as the worker's start takes.
        await lookout.expect(await _send(producer, 1, "LOOK"))
        began = time.perf_counter()
        sent = number = measured_from = 0
        while (elapsed := time.perf_counter() - began) < WARM_UP + seconds:
            if elapsed >= WARM_UP and not measured_from:
                measured_from, first = sent, time.perf_counter()
                lookout.found.clear()
            due = int(rate * elapsed) - sent
            if due > 0:
                lookout.watch(await _send(producer, due, f"LOOK{number}"))
                sent += due
                number += 1
            await asyncio.sleep(max(0.0, (number + 1) * BEAT - (time.perf_counter() - began)))
        span = time.perf_counter() - first
        await lookout.all_seen()
    finally:
        lookout.close()
        await producer.stop()
    confirmed, given = (sorted(1_000 * took for took in one) for one in zip(*lookout.found, strict=True))
    return Fresh(
        ms_p50=round(statistics.median(confirmed), 1),
        ms_p99=round(confirmed[int(len(confirmed) * 0.99)], 1),
        from_send_ms_p50=round(statistics.median(given), 1),
        from_send_ms_p99=round(given[int(len(given) * 0.99)], 1),
        events=len(lookout.found),
        events_per_second=round((sent - measured_from) / span),
    )


@dataclass(kw_only=True)
class _Sent:
    """An event by an aircraft that nobody else is."""

    aircraft: str
    given: float
    """When the producer had it."""
    confirmed: float | None = None
    """When Kafka said that it has it."""


class _Lookout:
    """Looks for all events that were not seen yet, in one read a millisecond, however many they are."""

    def __init__(self, reader: WindowReader) -> None:
        self._reader = reader
        self._missing: dict[str, _Sent] = {}
        self.found: list[tuple[float, float]] = []
        """Of each event the seconds from Kafka's word, and from the send, until it was counted."""
        self._looking = asyncio.create_task(self._look())

    def watch(self, one: _Sent) -> None:
        self._missing[one.aircraft] = one

    async def expect(self, one: _Sent) -> None:
        """Wait for it."""
        self.watch(one)
        await self.all_seen()

    async def all_seen(self) -> None:
        """Raises TimeoutError."""
        async with asyncio.timeout(LONGEST):
            while self._missing:
                if self._looking.done():
                    self._looking.result()
                await asyncio.sleep(BEAT)

    def close(self) -> None:
        self._looking.cancel()

    async def _look(self) -> None:
        while True:
            if asked := list(self._missing):
                (counts,) = await self._reader.read_async(
                    [("by_aircraft", {"aircraft": asked})], time.time_ns() // 1_000
                )
                now = time.perf_counter()
                for aircraft, count in zip(asked, counts["count_1h"].tolist(), strict=True):
                    if count:
                        one = self._missing.pop(aircraft)
                        # Kafka may hand an event on before its producer has heard the word.
                        self.found.append((now - (one.confirmed or now), now - one.given))
            await asyncio.sleep(LOOK)


async def _send(producer: AIOKafkaProducer, count: int, aircraft: str) -> _Sent:
    """Send `count` departures, the last by `aircraft`."""
    batch, now = producer.create_batch(), time.time()
    for one in range(count):
        at, key, value = departure(now, aircraft=aircraft if one == count - 1 else None)
        while batch.append(key=key, value=value, timestamp=at) is None:  # full: the loop was late, and much is due
            await producer.send_batch(batch, STREAM, partition=0)
            batch = producer.create_batch()
    sent = _Sent(aircraft=aircraft, given=time.perf_counter())

    def confirm(_: object) -> None:
        sent.confirmed = time.perf_counter()

    (await producer.send_batch(batch, STREAM, partition=0)).add_done_callback(confirm)
    return sent
