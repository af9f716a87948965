"""Two dispatchers alive at once, as two processes on a real Kafka: the one that started last writes, the other stops."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer
from prometheus_client import CollectorRegistry

from millstream.contracts.events import (
    Event,
    Finding,
    ModelState,
    Outcome,
    RetrainDecided,
    RolloutMoved,
    TrainingFinished,
    TrainingStarted,
)
from millstream.contracts.topics import MODELS, RETRAIN, TRAINING, VERDICTS
from millstream.runtime.metrics import RuntimeMetrics
from millstream.runtime.publisher import Publisher
from millstream.runtime.topic_admin import TopicSpec, ensure_topics
from millstream.testing.ports import free_port
from millstream_trainer.settings import Settings

from .test_trainer_kafka import said, settings

__all__ = ["settings"]

pytestmark = pytest.mark.connected


class Dispatcher:
    """`python -m millstream_trainer`, as a supervisor runs it."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log

    async def ready(self) -> None:
        async with httpx.AsyncClient(base_url=self.url) as client, asyncio.timeout(60):
            while True:
                try:
                    if (await client.get("/readyz")).status_code == 200:
                        return
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.1)


@asynccontextmanager
async def dispatcher(settings: Settings, folder: Path, name: str) -> AsyncIterator[Dispatcher]:
    port = free_port()
    chosen = settings.model_dump(mode="json", exclude_unset=True) | {"port": port, "instance": name}
    environment = {f"MILLSTREAM_{key.upper()}": str(value) for key, value in chosen.items()}
    log = folder / f"{name}.log"
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "millstream_trainer", env=os.environ | environment, stdout=out, stderr=out
        )
    try:
        yield Dispatcher(process, f"http://127.0.0.1:{port}", log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def voice(settings: Settings) -> AsyncIterator[Publisher]:
    made = Publisher(bootstrap=settings.kafka, source="tests", timeout=10, metrics=RuntimeMetrics(CollectorRegistry()))
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def decided(settings: Settings, *requests: str) -> list[RetrainDecided]:
    """All decisions, once these requests are among them."""
    async with asyncio.timeout(60):
        while True:
            found = [event for event in await said(settings, TRAINING.name) if isinstance(event, RetrainDecided)]
            if {event.request for event in found} >= set(requests):
                return found
            await asyncio.sleep(0.2)


@pytest.mark.timeout(400)
async def test_the_trainer_that_started_last_writes_and_the_other_stops_and_says_why(
    settings: Settings, tides: Any, tmp_path: Path
) -> None:
    async with voice(settings) as publisher, dispatcher(settings, tmp_path, "first") as first:
        await first.ready()
        wish = tides.wish("one")
        await publisher.publish([publisher.outgoing(RETRAIN.name, wish, id=wish.id, key="tides")])
        await decided(settings, "one")
        async with dispatcher(settings, tmp_path, "second") as second:
            await second.ready()
            # Each holds one of the two partitions, so one of these comes to the first.
            wish, verdict = tides.wish("two"), tides.judged(20, Finding.BROKEN_DATA)
            await publisher.publish(
                [
                    publisher.outgoing(RETRAIN.name, wish, id=wish.id, key="tides"),
                    publisher.outgoing(VERDICTS.name, verdict, id=verdict.id, key="tides"),
                ]
            )
            found = await decided(settings, "one", "two", verdict.id)
            async with asyncio.timeout(60):
                assert await first.process.wait() == 2, first.log.read_text()
            assert "another millstream-trainer has started on this Kafka" in first.log.read_text()
            assert second.process.returncode is None
            assert sorted(event.request for event in found) == sorted(["one", "two", verdict.id])


@pytest.mark.timeout(900)
async def test_a_run_under_way_at_a_dispatcher_that_is_shut_out_is_neither_lost_nor_told_twice(
    settings: Settings, tides: Any, tmp_path: Path, harbour: Path, ships: Any, fill_lake: Any
) -> None:
    """Both train it, and wait for the same lake; only the one that started last may say what came of it."""
    patient = settings.model_copy(update={"lake_patience": 300.0})
    positions = fill_lake(str(tmp_path / "later"), harbour, ships)
    await _say_nothing_so_often(settings, positions)
    async with voice(settings) as publisher, dispatcher(patient, tmp_path, "first") as first:
        await first.ready()
        enough = tides.matured(61, matured=2790)
        await publisher.publish([publisher.outgoing(VERDICTS.name, enough, id=enough.id, key="tides")])
        await _until(settings, lambda told: len(_of(told, TrainingStarted)) == 1)
        async with dispatcher(patient, tmp_path, "second") as second:
            await _until(settings, lambda told: len(_of(told, TrainingStarted)) == 2)
            assert first.process.returncode is None, "it has had nothing to say yet"
            fill_lake(settings.lake, harbour, ships)
            async with asyncio.timeout(300):
                assert await first.process.wait() == 2, first.log.read_text()
                # The end of a run is told last, after the step that came of it.
                journal = await _until(settings, lambda told: len(_of(told, TrainingFinished)) == 1)
            assert second.process.returncode is None
    (decision,), (ended,), (moved,) = (_of(journal, kind) for kind in (RetrainDecided, TrainingFinished, RolloutMoved))
    assert [started.attempt for started in _of(journal, TrainingStarted)] == [1, 2]
    assert (ended.outcome, ended.attempt, ended.run) == (Outcome.PROMOTED, 2, decision.run)
    assert moved.model is not None
    assert moved.model.uri.endswith("-2"), "the package of the second attempt"
    (state,) = _of(await said(settings, MODELS.name), ModelState)
    assert (state.revision, state.champion) == (1, moved.model)


def _of(told: list[Event], kind: type[Any]) -> list[Any]:
    return [event for event in told if isinstance(event, kind)]


async def _until(settings: Settings, holds: Callable[[list[Event]], bool]) -> list[Event]:
    """The journal, once that holds of it."""
    async with asyncio.timeout(300):
        while not holds(told := await said(settings, TRAINING.name)):  # noqa: ASYNC110  the journal is elsewhere
            await asyncio.sleep(0.2)
        return told


async def _say_nothing_so_often(settings: Settings, positions: dict[str, dict[int, int]]) -> None:
    """Streams as long as the lake will be: what they hold a run waits for."""
    specs = [TopicSpec(name=name, partitions=1, retention=None) for name in positions]
    await ensure_topics(settings.kafka, specs)
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka, linger_ms=20)
    await producer.start()
    try:
        for name, ends in positions.items():
            for _ in range(ends[0] + 1):
                await producer.send(name, b"{}", key=b"a ship", partition=0)
        await producer.flush()
    finally:
        await producer.stop()
