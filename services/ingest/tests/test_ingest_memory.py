"""Whatever strangers send, ingest keeps none of it: thousands of bad requests later its memory is what it was before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import schemathesis.specs.openapi.schemas  # noqa: F401  late imports in threads: CPython 3.11 parses two files at a time wrong

from millstream.runtime.topic_admin import TopicSpec, ensure_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.strangers import visit

from .test_ingest_client import Ingest

pytestmark = [pytest.mark.connected, pytest.mark.timeout(400)]
ROUNDS = 2
GROWTH = 8 * 2**20
"""Bytes. Two rounds send 50 MiB of bodies: a door that keeps one in six is found. Seen: 0.0 MiB."""


async def test_bad_requests_leave_no_memory_behind(
    kafka: EmbeddedKafka, tmp_path: Path, unique_name: Callable[[str], str]
) -> None:
    stream = unique_name("flights-departed")
    await ensure_topics(kafka.bootstrap, [TopicSpec(name=stream, partitions=1, retention=timedelta(days=1))])
    ingest = Ingest(tmp_path, kafka, stream)
    names = {"stream": [stream, stream, "nobody"], "loop": [stream, stream, "nobody"]}
    doors = [f"/v1/streams/{stream}/events", f"/v1/streams/{stream}/batch", f"/v1/loops/{stream}/labels", "/v1/nowhere"]

    def strangers(seed: int) -> int:
        met = visit(ingest.url, seed=seed, names=names, fat=doors)
        assert met[422] > 100, "most are refused for what they say"
        return ingest.resident_bytes()

    try:
        await asyncio.to_thread(ingest.start)
        sizes = [await asyncio.to_thread(strangers, seed) for seed in range(1 + ROUNDS)]
        print(*(f"{size / 2**20:.1f} MiB" for size in sizes))
        assert sizes[-1] - sizes[0] < GROWTH, sizes
    finally:
        await asyncio.to_thread(ingest.terminate)
