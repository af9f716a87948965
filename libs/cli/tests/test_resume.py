"""A replay goes on where the mill is, as its topics say."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from millstream.contracts.times import to_rfc3339
from millstream.runtime.topic_admin import TopicSpec, ensure_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream_cli.resume import _times, last_known_at

SECOND = 1_000_000


def record(topic: str, value: bytes, **headers: str) -> Any:
    return SimpleNamespace(topic=topic, value=value, headers=[(name, text.encode()) for name, text in headers.items()])


def test_an_answer_is_of_the_time_of_asking_and_a_strangers_record_of_none() -> None:
    records = [
        record("millstream-predictions", b'{"asked_at":"1970-01-01T00:00:30Z","question":"q"}', ce_id="1"),
        record("millstream-predictions", b"not json"),
        record("flights-scheduled", b"{}", ce_knownat="1970-01-01T00:00:10Z"),
        record("flights-scheduled", b"{}", ce_knownat="noon"),
        record("flights-scheduled", b'{"asked_at":"1970-01-01T00:00:50Z"}'),
    ]
    assert list(_times(records)) == [30 * SECOND, 10 * SECOND]


@pytest.mark.connected
def test_the_latest_of_all_partitions_counts(kafka: EmbeddedKafka) -> None:
    topics = [f"{name}-{uuid.uuid4().hex[:8]}" for name in ("asked", "landed", "empty")]

    async def fill_and_ask() -> tuple[int | None, int | None]:
        await ensure_topics(
            kafka.bootstrap, [TopicSpec(name=t, partitions=2, retention=timedelta(days=1)) for t in topics]
        )
        nothing = await last_known_at(kafka.bootstrap, topics)
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
        await producer.start()
        try:
            for topic, partition, seconds in ((0, 0, 5), (0, 1, 70), (0, 1, 80), (1, 0, 60), (1, 0, 75)):
                headers = [("ce_knownat", to_rfc3339(seconds * SECOND).encode())]
                await producer.send_and_wait(topics[topic], b"{}", partition=partition, headers=headers)
            # Somebody else's record without a header says nothing about time.
            await producer.send_and_wait(topics[1], b"{}", partition=1)
        finally:
            await producer.stop()
        return nothing, await last_known_at(kafka.bootstrap, topics)

    assert asyncio.run(fill_and_ask()) == (None, 80 * SECOND)
