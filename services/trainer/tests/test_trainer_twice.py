"""Two dispatchers alive at once, as two processes on a real Kafka: the one that started last writes, the other stops."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from millstream.contracts.events import Finding, RetrainDecided
from millstream.contracts.topics import RETRAIN, TRAINING, VERDICTS
from millstream.runtime.metrics import RuntimeMetrics
from millstream.runtime.publisher import Publisher
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
