"""The publisher on a real Kafka: confirmed means there, unknown is said in time, and large records are refused first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from millstream.contracts.envelope import envelope_of
from millstream.contracts.events import Cause, RetrainRequested, decode_event
from millstream.errors import DeliveryUnknown, NotSent, RejectEvent
from millstream.runtime import publisher as publishing
from millstream.runtime.metrics import RuntimeMetrics
from millstream.runtime.publisher import Outgoing, Publisher
from millstream.testing.kafka import EmbeddedKafka

from .runtime_kit import length, new_topic, read

pytestmark = pytest.mark.connected
KIB = 1024


def publisher_of(bootstrap: str, timeout: float = 10.0) -> Publisher:
    return Publisher(
        bootstrap=bootstrap, source="millstream/test/1", timeout=timeout, metrics=RuntimeMetrics(CollectorRegistry())
    )


async def sent_at_last(publisher: Publisher, topic: str, value: bytes) -> int:
    """Tries until Kafka has confirmed it, as callers do; how often it was refused before."""
    refused = 0
    async with asyncio.timeout(30):
        while True:
            try:
                await publisher.publish([Outgoing(topic, b"k", value, [])])
                return refused
            except DeliveryUnknown:
                refused += 1
                await asyncio.sleep(0.05)  # while there is no producer it is refused at once


@pytest.fixture
async def publisher(kafka: EmbeddedKafka) -> AsyncIterator[Publisher]:
    made = publisher_of(kafka.bootstrap)
    await made.start()
    yield made
    await made.stop()


async def test_what_is_confirmed_is_there_with_key_value_and_headers(
    kafka: EmbeddedKafka, publisher: Publisher
) -> None:
    topic = await new_topic(kafka.bootstrap)
    event = RetrainRequested(id="r1", loop="flight-delay", cause=Cause.MANUAL, by="Ada", reason="new gates")

    await publisher.publish([publisher.outgoing(topic, event, id="r1", key="flight-delay", caused_by="v7")])

    [record] = await read(kafka.bootstrap, topic, 1)
    envelope = envelope_of(record.headers)
    assert (record.key, envelope.id, envelope.causation_id) == (b"flight-delay", "r1", "v7")
    assert envelope.source == publisher.source == "millstream/test/1"
    assert decode_event(envelope.type, record.value) == event


async def test_the_order_of_a_key_is_kept_over_many_batches(kafka: EmbeddedKafka, publisher: Publisher) -> None:
    """3 MiB in one call: a dozen of the client's batches."""
    topic = await new_topic(kafka.bootstrap, partitions=3)
    records = [Outgoing(topic, b"N%d" % (n % 7), b"%05d" % n + b"x" * 10 * KIB, []) for n in range(300)]

    await publisher.publish(records)

    for number in range(7):
        key = b"N%d" % number
        found = [r for r in await read(kafka.bootstrap, topic, 300) if r.key == key]
        assert len({r.partition for r in found}) == 1
        assert [r.value[:5] for r in found] == [b"%05d" % n for n in range(number, 300, 7)]


async def test_a_record_of_900_kib_is_taken(kafka: EmbeddedKafka, publisher: Publisher) -> None:
    topic = await new_topic(kafka.bootstrap)

    await publisher.publish([Outgoing(topic, b"k", b"small", []), Outgoing(topic, b"k", b"x" * 900 * KIB, [])])

    assert [len(r.value) for r in await read(kafka.bootstrap, topic, 2)] == [5, 900 * KIB]


async def test_a_record_over_kafkas_limit_is_refused_before_anything_is_sent(
    kafka: EmbeddedKafka, publisher: Publisher
) -> None:
    topic = await new_topic(kafka.bootstrap)
    too_large = (
        Outgoing(topic, b"k", b"x" * 1024 * KIB, []),
        Outgoing(topic, b"k" * 600 * KIB, b"x" * 600 * KIB, []),
        Outgoing(topic, b"k", b"x" * 600 * KIB, [("note", b"x" * 600 * KIB)]),
    )

    for record in too_large:
        with pytest.raises(RejectEvent, match="too_large"):
            await publisher.publish([Outgoing(topic, b"k", b"small", []), record])

    assert await length(kafka.bootstrap, topic) == 0


async def test_a_frozen_kafka_makes_the_outcome_unknown_in_time_and_recovers(kafka: EmbeddedKafka) -> None:
    """The broker is stopped in the middle (SIGSTOP): connections stay open, nothing answers."""
    topic = await new_topic(kafka.bootstrap)
    publisher = publisher_of(kafka.bootstrap)
    await publisher.start()
    await publisher.publish([Outgoing(topic, b"k", b"before", [])])

    publisher._timeout = 1.0
    kafka.pause()
    try:
        async with asyncio.timeout(20):
            with pytest.raises(DeliveryUnknown, match="within 1 s"):
                await publisher.publish([Outgoing(topic, b"k", b"during", [])])
    finally:
        kafka.resume()

    await sent_at_last(publisher, topic, b"after")
    await publisher.stop()
    values = [r.value for r in await read(kafka.bootstrap, topic, await length(kafka.bootstrap, topic))]
    assert values[0] == b"before"
    assert values[-1] == b"after"
    assert values.count(b"during") <= 1, "unknown: there once or not at all"


async def test_what_waits_behind_a_frozen_kafka_is_known_not_to_be_sent(kafka: EmbeddedKafka) -> None:
    """One flight is on its way when Kafka freezes: what would have left with the next one stays, and its caller knows."""
    topic = await new_topic(kafka.bootstrap)
    publisher = publisher_of(kafka.bootstrap)
    await publisher.start()
    await publisher.publish([Outgoing(topic, b"k", b"before", [])])

    publisher._timeout = 1.0
    kafka.pause()
    try:
        flying = asyncio.create_task(publisher.publish([Outgoing(topic, b"k", b"flying", [])]))
        await asyncio.sleep(0.1)  # it has left; nothing else says so
        with pytest.raises(NotSent):
            await publisher.publish([Outgoing(topic, b"k", b"waiting", [])])
        with pytest.raises(DeliveryUnknown) as unknown:
            await flying
        assert not isinstance(unknown.value, NotSent)
    finally:
        kafka.resume()

    await sent_at_last(publisher, topic, b"after")
    await publisher.stop()
    values = [r.value for r in await read(kafka.bootstrap, topic, await length(kafka.bootstrap, topic))]
    assert b"waiting" not in values


async def test_many_callers_at_once_share_flights_and_keep_the_order_of_each_key(kafka: EmbeddedKafka) -> None:
    topic = await new_topic(kafka.bootstrap, partitions=3)
    publisher = publisher_of(kafka.bootstrap)
    await publisher.start()

    async def caller(name: int) -> None:
        for number in range(50):
            await publisher.publish([Outgoing(topic, b"N%d" % name, b"%d" % number, [])])

    await asyncio.gather(*map(caller, range(20)))
    large = [Outgoing(topic, b"N%d" % (n % 20), b"%d" % (50 + n // 20) + b" " * 20 * KIB, []) for n in range(400)]
    await asyncio.gather(*(publisher.publish(large[first : first + 100]) for first in range(0, 400, 100)))
    await publisher.stop()

    found: dict[bytes, list[int]] = {}
    for record in await read(kafka.bootstrap, topic, 1400):
        found.setdefault(record.key, []).append(int(record.value))
    assert found == {b"N%d" % name: list(range(70)) for name in range(20)}


async def test_a_topic_that_is_missing_is_no_silent_success(kafka: EmbeddedKafka) -> None:
    publisher = publisher_of(kafka.bootstrap, timeout=0.5)
    await publisher.start()
    with pytest.raises(DeliveryUnknown):
        await publisher.publish([Outgoing("flights-nowhere", b"k", b"v", [])])
    await publisher.stop()


async def test_before_kafka_is_connected_nothing_is_promised(kafka: EmbeddedKafka) -> None:
    with pytest.raises(DeliveryUnknown, match="not connected"):
        await publisher_of(kafka.bootstrap).publish([Outgoing("flights", b"k", b"v", [])])


async def test_nothing_to_publish_needs_no_kafka() -> None:
    await publisher_of("127.0.0.1:1").publish([])


async def test_a_stop_does_not_wait_for_a_kafka_that_is_frozen(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "STOP", 0.5)
    topic = await new_topic(kafka.bootstrap)
    publisher = publisher_of(kafka.bootstrap)
    await publisher.start()
    await publisher.publish([Outgoing(topic, b"k", b"before", [])])

    publisher._timeout = 1.0
    kafka.pause()
    try:
        with pytest.raises(DeliveryUnknown):
            await publisher.publish([Outgoing(topic, b"k", b"during", [])])
        async with asyncio.timeout(20):
            await publisher.stop()
        left = {task for task in asyncio.all_tasks() if "aiokafka" in str(task.get_coro())}
        async with asyncio.timeout(20):
            await asyncio.wait(left) if left else None
    finally:
        kafka.resume()


async def test_a_partition_that_had_no_leader_for_long_is_written_to_again(
    kafka: EmbeddedKafka, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client gives up a batch that it has numbered, and Kafka takes none of those that follow it."""
    topic = await new_topic(kafka.bootstrap)
    await publisher.publish([Outgoing(topic, b"k", b"before", [])])
    broken = publisher._producer
    assert broken is not None
    accumulator = broken._message_accumulator
    with monkeypatch.context() as without_leader:
        without_leader.setattr(accumulator, "_batch_ttl", 0.1)
        without_leader.setattr(accumulator._cluster, "leader_for_partition", lambda partition: -1)
        with pytest.raises(DeliveryUnknown, match="LeaderNotAvailable"):
            await publisher.publish([Outgoing(topic, b"k", b"during", [])])

    assert await sent_at_last(publisher, topic, b"after"), "else the client has learnt it, and we need not"
    assert publisher._producer is not broken
    assert [r.value for r in await read(kafka.bootstrap, topic, await length(kafka.bootstrap, topic))] == [
        b"before",
        b"after",
    ]


async def test_a_producer_that_stumbled_is_replaced(kafka: EmbeddedKafka, publisher: Publisher) -> None:
    topic = await new_topic(kafka.bootstrap)
    await publisher.publish([Outgoing(topic, b"k", b"before", [])])
    broken = publisher._producer
    assert broken is not None
    broken._sender.sender_task.cancel()

    await sent_at_last(publisher, topic, b"after")
    assert [r.value for r in await read(kafka.bootstrap, topic, 2)] == [b"before", b"after"]
    left = [batch._drain_waiter for found in broken._message_accumulator._batches.values() for batch in found]
    assert left
    assert not any(one._log_traceback for one in left), "else Python calls each an error, whenever it collects it"
