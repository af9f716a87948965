"""What waits behind an offset on a real Kafka: the first record's known-at, and no record where none is."""

from __future__ import annotations

import pytest
from aiokafka import AIOKafkaProducer

from millstream.contracts.times import from_rfc3339
from millstream.errors import RetryLater
from millstream.runtime import waiting_records
from millstream.runtime.waiting_records import WaitingRecords
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.ports import free_port

from .runtime_kit import flight, new_topic, produce

NOON = from_rfc3339("2013-06-01T12:00:00Z")


async def test_the_first_record_that_was_not_read_says_since_when_it_waits(kafka: EmbeddedKafka) -> None:
    topic = await new_topic(kafka.bootstrap, partitions=3)
    waiting = WaitingRecords(kafka.bootstrap)
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all", transactional_id=topic)
    await producer.start()
    try:
        assert await waiting.of([topic], {}) == {(topic, 0): None, (topic, 1): None, (topic, 2): None}
        async with producer.transaction():
            for minute, headers in (
                (0, []),
                (1, [("ce_knownat", b"2013-06-01T12:30:00Z")]),
                (2, [("ce_knownat", b"x")]),
            ):
                stamp = (NOON // 1000) + minute * 60_000
                await producer.send_and_wait(topic, b"{}", partition=0, timestamp_ms=stamp, headers=headers)
        async with producer.transaction():
            await producer.send_and_wait(topic, b"x" * 500_000, partition=1, timestamp_ms=NOON // 1000)

        found = await waiting.of([topic], {})
        assert found == {(topic, 0): NOON, (topic, 1): NOON, (topic, 2): None}
        assert (await waiting.of([topic], {(topic, 0): 0}))[topic, 0] == NOON + 30 * 60_000_000
        assert (await waiting.of([topic], {(topic, 0): 1}))[topic, 0] == NOON + 2 * 60_000_000
        # Behind the last record lies the marker of its transaction, which nobody is ever given.
        assert await waiting.of([topic], {(topic, 0): 2, (topic, 1): 0}) == {
            (topic, 0): None,
            (topic, 1): None,
            (topic, 2): None,
        }
        assert await waiting.of([topic], {}, enough={(topic, 0), (topic, 2)}) == {(topic, 1): NOON}
        assert await waiting.of([topic], {}, enough={(topic, p) for p in range(3)}) == {}
    finally:
        await producer.stop()
        await waiting.close()
        await waiting.close()


async def test_a_kafka_that_is_away_is_asked_again_later() -> None:
    with pytest.raises(RetryLater, match="what waits in flights"):
        await WaitingRecords(f"127.0.0.1:{free_port()}").of(["flights"], {})


async def test_a_client_that_broke_down_is_replaced(kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = await new_topic(kafka.bootstrap)
    await produce(kafka.bootstrap, topic, flight(0))
    waiting = WaitingRecords(kafka.bootstrap)
    try:
        assert (await waiting.of([topic], {}))[topic, 0] is not None
        assert waiting._consumer is not None
        waiting._consumer._fetcher._fetch_task.cancel()
        with monkeypatch.context() as hasty:
            hasty.setattr(waiting_records, "WITHIN", 1.0)
            with pytest.raises(RetryLater, match="what waits in"):
                await waiting.of([topic], {})
        assert (await waiting.of([topic], {}))[topic, 0] is not None
    finally:
        await waiting.close()
