"""Drift as its own process on real servers: a project folder, a model package, records in, verdicts out."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from millstream.contracts.envelope import Envelope
from millstream.contracts.events import Event, LabelsMatured, ModelRef, ModelState, Step, WindowJudged, decode_event
from millstream.contracts.package import MANIFEST_FILE, REFERENCE_FILE, Reference
from millstream.contracts.times import to_datetime
from millstream.contracts.topics import LABELS, MODELS, PREDICTIONS, TOPICS, VERDICTS, dead_letter_topic
from millstream.runtime.packages import PackageStore
from millstream.runtime.topic_admin import TopicSpec, ensure_topics, our_topics, stream_topics
from millstream.testing.ports import free_port

from .drift_kit import JUNE, definitions, manifest, reference

LOOP = """
loop: {loop}
predict: {{on: {name}-asked, features: delay_v1, inputs: [distance, carrier]}}
label: {{from: {name}-landed, by: flight_id, value: "arr_delay >= 15", within: 24h}}
drift: {{window: 200{drift}}}
"""


def write_project(folder: Path, name: str, drift: str = "", loops: Sequence[str] = ()) -> None:
    """`drift`: more of its section, like `, psi: 0.3`. `loops`: of the same streams; else one of their `name`."""
    asked, landed = (json.dumps(one) for one in definitions(f"{name}-asked", f"{name}-landed"))  # JSON is YAML
    for place, text in (
        (f"streams/{name}-asked.yaml", asked),
        (f"streams/{name}-landed.yaml", landed),
        *((f"loops/{one}.yaml", LOOP.format(loop=one, name=name, drift=drift)) for one in loops or (name,)),
        ("features/feature_store.yaml", f"project: {name}\n"),
    ):
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def save_package(folder: Path, version: str, learned: Reference | None = None) -> ModelRef:
    raw = msgspec.json.encode(learned or reference())
    found = manifest(version, {REFERENCE_FILE: hashlib.sha256(raw).hexdigest()})
    files = {MANIFEST_FILE: msgspec.json.encode(found), REFERENCE_FILE: raw}
    uri, sha256 = PackageStore(str(folder)).save(f"model-{version}", files)
    return ModelRef(version=version, run=f"run-{version}", uri=uri, sha256=sha256, at=to_datetime(JUNE))


def announcement(loop: str, ref: ModelRef) -> ModelState:
    return ModelState(
        id=f"state-{loop}",
        loop=loop,
        revision=1,
        step=Step.CHAMPION,
        champion=ref,
        challenger=None,
        previous=None,
        reason="the first",
        at=to_datetime(JUNE),
    )


async def make_topics(bootstrap: str, name: str) -> None:
    from datetime import timedelta

    specs = our_topics(TOPICS, partitions=3)
    specs += [
        TopicSpec(name=dead_letter_topic(topic.name, "drift"), partitions=1, retention=timedelta(days=1))
        for topic in (PREDICTIONS, LABELS)
    ]
    specs += stream_topics(f"{name}-landed", 3, timedelta(days=7), ["drift"])
    await ensure_topics(bootstrap, specs)


async def send(
    bootstrap: str, records: Iterable[tuple[str, str, bytes, Envelope]], transaction: str | None = None
) -> None:
    """(topic, key, value, envelope), in order; in one transaction of that id, if there is one."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=5, transactional_id=transaction)
    await producer.start()
    try:
        if transaction is not None:
            await producer.begin_transaction()
        waiting = [
            await producer.send(topic, value, key=key.encode(), headers=envelope.headers())
            for topic, key, value, envelope in records
        ]
        await asyncio.gather(*waiting)
        if transaction is not None:
            await producer.commit_transaction()
    finally:
        await producer.stop()


async def announce(bootstrap: str, state: ModelState) -> None:
    envelope = Envelope(id=state.id, type=state.type_name, source="test")
    await send(bootstrap, [(MODELS.name, state.loop, state.encode(), envelope)])


class Verdicts:
    """Reads what one loop's drift says, repeats included."""

    def __init__(self, bootstrap: str, loop: str) -> None:
        self._bootstrap = bootstrap
        self._loop = loop
        self.all: list[Event] = []

    @property
    def effective(self) -> dict[str, Event]:
        """The first of each id, as every reader takes them."""
        found: dict[str, Event] = {}
        for event in self.all:
            assert isinstance(event, WindowJudged | LabelsMatured)
            found.setdefault(event.id, event)
        return found

    async def until(self, count: int, within: float = 100.0) -> None:
        """Read on until `count` different ones are there. Raises TimeoutError."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap)
        await consumer.start()
        self.all = []
        try:
            place = TopicPartition(VERDICTS.name, 0)
            consumer.assign([place])
            await consumer.seek_to_beginning(place)
            async with asyncio.timeout(within):
                while len(self.effective) < count:
                    record = await consumer.getone()
                    if record.key != self._loop.encode():
                        continue
                    kind = dict(record.headers)["ce_type"].decode()
                    event = decode_event(kind, record.value)
                    assert event is not None
                    self.all.append(event)
        finally:
            await consumer.stop()


class Process:
    """One `python -m millstream_drift`."""

    def __init__(self, child: asyncio.subprocess.Process, address: str) -> None:
        self._child = child
        self.http = httpx.AsyncClient(base_url=address, timeout=30.0)

    async def ready(self, within: float = 100.0) -> None:
        await self.shows("/readyz", '"ready":true', within)

    async def shows(self, path: str, text: str, within: float = 100.0) -> str:
        """The body of `path` as soon as `text` is in it. Raises TimeoutError, AssertionError when the process ended."""
        async with asyncio.timeout(within):
            while True:
                try:
                    body = (await self.http.get(path)).text
                    if text in body:
                        return body
                except httpx.TransportError:
                    assert self._child.returncode is None, "drift ended"
                await asyncio.sleep(0.05)

    async def metric(self, name: str) -> float:
        """Sum over all labels."""
        text = (await self.http.get("/metrics")).text
        lines = [line for line in text.splitlines() if line.startswith((name + " ", name + "{"))]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    async def kill(self) -> None:
        self._child.kill()
        await self._child.wait()

    async def stop(self) -> int:
        self._child.terminate()
        return await self._child.wait()


@asynccontextmanager
async def drift(**settings: Any) -> AsyncIterator[Process]:
    """A running process; whatever is left of it at the end is killed."""
    port = free_port()
    environment = {f"MILLSTREAM_{name.upper()}": str(value) for name, value in settings.items()}
    environment |= {"MILLSTREAM_PORT": str(port), "MILLSTREAM_SESSION_TIMEOUT_MS": "6000"}
    child = await asyncio.create_subprocess_exec(sys.executable, "-m", "millstream_drift", env=os.environ | environment)
    process = Process(child, f"http://127.0.0.1:{port}")
    try:
        yield process
    finally:
        await process.http.aclose()
        if child.returncode is None:
            await process.kill()
