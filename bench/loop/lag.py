"""How far drift's consumer falls behind while reports are drawn: real Kafka, real Valkey, drift as a process of its own.

A prediction counts as folded when the offset after it is committed, which is looked at every 20 ms: so the delays hold the
commit too, and are no shorter than what they stand for.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from drift import CATEGORIES, LABELS, LOOP, START, answers, model

from millstream.contracts.envelope import Envelope
from millstream.contracts.events import ModelRef, ModelState, Step
from millstream.contracts.package import MANIFEST_FILE, REFERENCE_FILE
from millstream.contracts.times import to_datetime
from millstream.contracts.topics import MODELS, PREDICTIONS, TOPICS
from millstream.runtime.packages import PackageStore
from millstream.runtime.topic_admin import ensure_topics, our_topics, stream_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.ports import free_port
from millstream.testing.process import ManagedProcess
from millstream.testing.valkey import EmbeddedValkey

RATE = 5_000
"""Predictions a second."""
PARTITIONS, TICK = 3, 0.05
SECONDS = 10
WINDOW = 5_000
REPORT_EVERY = f"{WINDOW}s"
"""The bench's questions are a second of stream time apart: a report for every window."""
STREAM = """
stream: {name}
description: {name}
key: id
id: id
time: at
schema:
  type: object
  required: [id, at]
  properties:
    id: {{type: string}}
    at: {{type: string, format: date-time}}
    delay: {{type: number}}
{fields}
"""
PROJECT = """
loop: {loop}
predict: {{on: bench-questions, features: bench_v1, inputs: [{inputs}]}}
label: {{from: {labels}, by: id, value: delay >= 20, within: 1h}}
drift: {{window: {window}{reports}}}
"""


def run(seconds: int = SECONDS) -> dict[str, Any]:
    """Delays from Kafka's word on a record to its fold, seconds; with reports and without."""
    quiet, busy = asyncio.run(_measured(seconds, reports=False)), asyncio.run(_measured(seconds, reports=True))
    return {
        "report_lag_seconds_max": busy["max"],
        "report_lag": {"wanted_per_second": RATE, "seconds": seconds, "with_reports": busy, "without": quiet},
    }


async def _measured(seconds: int, *, reports: bool) -> dict[str, float]:
    with TemporaryDirectory(prefix="millstream-bench-") as name, ExitStack() as stack:
        root = Path(name)
        kafka = stack.enter_context(EmbeddedKafka(root / "kafka", log_dir=root / "logs").running())
        valkey = stack.enter_context(EmbeddedValkey(root / "valkey", None, log_dir=root / "logs").running())
        _write_project(root / "project", reports)
        specs = our_topics(TOPICS, partitions=PARTITIONS)
        await ensure_topics(kafka.bootstrap, specs + stream_topics(LABELS, 1, timedelta(days=1), ["drift"]))
        process, url = _drift(root, kafka.bootstrap, valkey.url)
        stack.callback(process.terminate)
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, linger_ms=5)
        await producer.start()
        try:
            await _announce(producer, root / "packages")
            process.launch()
            await asyncio.to_thread(process.wait_ready)
            return await _loaded(producer, kafka.bootstrap, url, seconds, reports)
        finally:
            await producer.stop()


async def _loaded(producer: AIOKafkaProducer, kafka: str, url: str, seconds: int, reports: bool) -> dict[str, float]:
    """Send for so long, and look on."""
    sent: list[list[tuple[int, float]]] = [[] for _ in range(PARTITIONS)]
    folded: list[list[tuple[int, float]]] = [[] for _ in range(PARTITIONS)]
    looking = asyncio.create_task(_look(kafka, folded))
    try:
        pace = await _send(producer, seconds, sent)
        async with asyncio.timeout(120):
            while any(_left(a, b) for a, b in zip(sent, folded, strict=True)):  # noqa: ASYNC110 - another task's state
                await asyncio.sleep(TICK)
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    delays = np.concatenate([list(_delays(a, b)) for a, b in zip(sent, folded, strict=True)])
    return {
        "max": float(delays.max()),
        "p50": float(np.median(delays)),
        "p99": float(np.quantile(delays, 0.99)),
        "reports_made": await _made(url) if reports else 0.0,
        **pace,
    }


async def _made(url: str) -> float:
    """Reports that are made. The first is asked for by the first window and, on busy cores, drawn until after the last."""
    async with httpx.AsyncClient() as http, asyncio.timeout(180):
        while True:
            text = (await http.get(f"{url}/metrics")).text
            for line in text.splitlines():
                if line.startswith('millstream_drift_reports_total{outcome="made"}'):
                    return float(line.rpartition(" ")[2])
            await asyncio.sleep(1.0)


def _left(sent: list[tuple[int, float]], folded: list[tuple[int, float]]) -> bool:
    return not folded or folded[-1][0] <= sent[-1][0]


async def _send(producer: AIOKafkaProducer, seconds: int, sent: list[list[tuple[int, float]]]) -> dict[str, float]:
    """At a steady rate; `sent` gets the last offset of each batch and when Kafka had it. The rate that it came to,
    and how late a batch began at most."""
    each = int(RATE * TICK)
    records = [
        (one.encode(), Envelope(id=one.id, type=one.type_name, source="serving").headers())
        for one in answers(RATE * seconds)
    ]
    began, behind = time.monotonic(), 0.0
    waiting: list[asyncio.Task[None]] = []
    for number, start in enumerate(range(0, len(records), each)):
        due = began + number * TICK
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        behind = max(behind, time.monotonic() - due)
        futures = [
            await producer.send(PREDICTIONS.name, value, headers=headers, partition=number % PARTITIONS)
            for value, headers in records[start : start + each]
        ]
        waiting.append(asyncio.create_task(_confirmed(futures, sent[number % PARTITIONS])))
    await asyncio.gather(*waiting)
    took = time.monotonic() - began
    for one in sent:
        one.sort()
    return {"predictions_per_second": len(records) / took, "sender_behind_seconds_max": behind}


async def _confirmed(futures: list[Any], sent: list[tuple[int, float]]) -> None:
    offsets = [one.offset for one in await asyncio.gather(*futures)]
    sent.append((max(offsets), time.monotonic()))


async def _look(kafka: str, folded: list[list[tuple[int, float]]]) -> None:
    """What the group has committed, again and again."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, group_id="drift", enable_auto_commit=False)
    places = [TopicPartition(PREDICTIONS.name, number) for number in range(PARTITIONS)]
    consumer.assign(places)
    await consumer.start()
    try:
        while True:
            for place in places:
                offset = await consumer.committed(place)
                if offset is not None:
                    folded[place.partition].append((offset, time.monotonic()))
            await asyncio.sleep(0.02)
    finally:
        await consumer.stop()


def _delays(sent: list[tuple[int, float]], folded: list[tuple[int, float]]) -> Iterator[float]:
    """For each batch, from Kafka's word to the first look that found it committed."""
    looks = iter(folded)
    offset, at = next(looks)
    for last, confirmed in sent:
        while offset <= last:
            offset, at = next(looks)
        yield max(0.0, at - confirmed)


def _write_project(folder: Path, reports: bool) -> None:
    inputs = [f"category_{n}" for n in range(CATEGORIES)]
    fields = "\n".join(f"    {name}: {{type: string}}" for name in inputs)
    every = f", report_every: {REPORT_EVERY}" if reports else ""
    for place, text in (
        ("streams/questions.yaml", STREAM.format(name="bench-questions", fields=fields)),
        ("streams/outcomes.yaml", STREAM.format(name=LABELS, fields="")),
        (f"loops/{LOOP}.yaml", PROJECT.format(
            loop=LOOP, inputs=", ".join(inputs), labels=LABELS, window=WINDOW, reports=every
        )),
        ("features/feature_store.yaml", "project: bench\n"),
    ):  # fmt: skip
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(text)


async def _announce(producer: AIOKafkaProducer, packages: Path) -> None:
    """The bench's model, with a sample of what it learned from for the reports."""
    manifest, reference = model()
    said = answers(2_000)
    sample = {
        column.name: [one.inputs.get(column.name, one.features.get(column.name)) for one in said]
        for column in reference.columns
    }
    raw = msgspec.json.encode(msgspec.structs.replace(reference, sample=sample))
    manifest = msgspec.structs.replace(manifest, files={REFERENCE_FILE: hashlib.sha256(raw).hexdigest()})
    files = {MANIFEST_FILE: msgspec.json.encode(manifest), REFERENCE_FILE: raw}
    uri, sha256 = PackageStore(str(packages)).save("bench-1", files)
    at = to_datetime(START)
    champion = ModelRef(version="1", run="run-1", uri=uri, sha256=sha256, at=at)
    state = ModelState(
        id="state-1",
        loop=LOOP,
        revision=1,
        step=Step.CHAMPION,
        champion=champion,
        challenger=None,
        previous=None,
        reason="bench",
        at=at,
    )
    headers = Envelope(id=state.id, type=state.type_name, source="trainer").headers()
    await producer.send_and_wait(MODELS.name, state.encode(), key=LOOP.encode(), headers=headers)


def _drift(root: Path, kafka: str, valkey: str) -> tuple[ManagedProcess, str]:
    """The process, not yet started, and its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        try:
            return httpx.get(f"{url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    process = ManagedProcess(
        "drift",
        [sys.executable, "-m", "millstream_drift"],
        log=root / "logs" / "drift.log",
        env={
            "MILLSTREAM_KAFKA": kafka,
            "MILLSTREAM_VALKEY": valkey,
            "MILLSTREAM_PROJECT": str(root / "project"),
            "MILLSTREAM_PACKAGES": str(root / "packages"),
            "MILLSTREAM_DATA": str(root / "data"),
            "MILLSTREAM_PORT": str(port),
        },
        ready=ready,
        ready_within=120.0,
    )
    return process, url


if __name__ == "__main__":
    print(run())
