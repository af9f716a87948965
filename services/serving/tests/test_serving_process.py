"""Serving as it is deployed: its own process with Feast, Valkey and Kafka."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from millstream.contracts.topics import MODELS, PREDICTIONS, REPLICAS
from millstream.runtime.topic_admin import ensure_topics, our_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.ports import free_port
from millstream.testing.valkey import EmbeddedValkey

pytestmark = [pytest.mark.connected, pytest.mark.timeout(300)]
FLIGHTS = Path(__file__).parents[3] / "examples" / "flights"


async def said(url: str, wanted: Callable[[httpx.Response], bool]) -> httpx.Response:
    """The first answer of /readyz that is as `wanted`."""
    async with httpx.AsyncClient() as http, asyncio.timeout(100):
        while True:
            try:
                answer = await http.get(f"{url}/readyz")
                if wanted(answer):
                    return answer
            except httpx.TransportError:
                pass  # it still imports
            await asyncio.sleep(0.1)


async def test_valkey_away_at_the_start_is_named_and_waited_for(
    kafka: EmbeddedKafka, valkey: EmbeddedValkey, valkey_url: str, tmp_path: Path
) -> None:
    await ensure_topics(kafka.bootstrap, our_topics([MODELS, PREDICTIONS, REPLICAS], partitions=1))
    port = free_port()
    environment = {
        "MILLSTREAM_KAFKA": kafka.bootstrap,
        "MILLSTREAM_VALKEY": valkey_url,
        "MILLSTREAM_PROJECT": str(FLIGHTS),
        "MILLSTREAM_PACKAGES": str(tmp_path / "packages"),
        "MILLSTREAM_DATA": str(tmp_path / "data"),
        "MILLSTREAM_PORT": str(port),
    }
    valkey.stop()
    child = None
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "millstream_serving",
            env=os.environ | environment,
            stderr=asyncio.subprocess.DEVNULL,
        )
        url = f"http://127.0.0.1:{port}"
        answer = await said(url, lambda answer: "Valkey does not answer, check MILLSTREAM_VALKEY" in answer.text)
        assert answer.status_code == 503
        await asyncio.to_thread(valkey.start)
        await said(url, lambda answer: "Valkey" not in answer.text)
        child.terminate()
        assert await asyncio.wait_for(child.wait(), 60) == 0
    finally:
        if child is not None and child.returncode is None:
            child.kill()
            await child.wait()
        if not valkey.processes[0].alive():
            await asyncio.to_thread(valkey.start)
