"""A replay goes on where the mill is, as its topics say."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta

import pytest
from aiokafka import AIOKafkaProducer

from millstream.contracts.times import to_rfc3339
from millstream.runtime.topic_admin import TopicSpec, ensure_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream_cli.resume import last_known_at

pytestmark = pytest.mark.connected
SECOND = 1_000_000


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
