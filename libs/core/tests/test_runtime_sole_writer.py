"""The sole writer on a real Kafka: a later one shuts the earlier out, and a Kafka that is away costs it nothing."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from millstream.errors import BadSetup, DeliveryUnknown, RejectEvent, ShutOut
from millstream.runtime.metrics import RuntimeMetrics
from millstream.runtime.publisher import Outgoing
from millstream.runtime.records import Record
from millstream.runtime.sole_writer import SoleWriter
from millstream.runtime.table import TopicReader
from millstream.testing.kafka import EmbeddedKafka

from .runtime_kit import length, new_topic

pytestmark = pytest.mark.connected


@pytest.fixture(scope="module")
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """One that nobody else waits for: it is paused."""
    with EmbeddedKafka(tmp_path_factory.mktemp("own")).running() as kafka:
        yield kafka


@asynccontextmanager
async def writer(kafka: EmbeddedKafka, name: str) -> AsyncIterator[SoleWriter]:
    made = SoleWriter(bootstrap=kafka.bootstrap, name=name, timeout=10, metrics=RuntimeMetrics(CollectorRegistry()))
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


def state(topic: str, revision: int) -> Outgoing:
    return Outgoing(topic, b"tides", b"%d" % revision, [("revision", b"%d" % revision)])


async def read_to_the_end(kafka: EmbeddedKafka, topic: str) -> list[bytes | None]:
    """What a `TopicReader` gives until it has caught up."""
    found: list[bytes | None] = []

    async def apply(record: Record) -> None:
        found.append(record.value)

    reader = TopicReader(bootstrap=kafka.bootstrap, topics=[topic], apply=apply)
    reading = asyncio.create_task(reader.run())
    try:
        async with asyncio.timeout(20):
            await reader.caught_up.wait()
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    return found


async def test_who_starts_later_writes_and_the_earlier_one_is_told_so_for_good(
    kafka: EmbeddedKafka, caplog: pytest.LogCaptureFixture
) -> None:
    gc.collect()
    caplog.clear()  # of what earlier tests left behind
    topic = await new_topic(kafka.bootstrap)
    async with writer(kafka, topic) as old:
        await old.publish([state(topic, 1)])
        async with writer(kafka, topic) as new:
            for _ in range(2):
                with pytest.raises(ShutOut, match=f"another {topic} has started") as refused:
                    await old.publish([state(topic, 2)])
                assert isinstance(refused.value, BadSetup)
            await new.publish([state(topic, 2)])
            with pytest.raises(ShutOut):
                await old.publish([state(topic, 3)])
    assert await read_to_the_end(kafka, topic) == [b"1", b"2"]
    gc.collect()
    assert "never retrieved" not in caplog.text, "it was told once, where it was asked"


async def test_a_reader_catches_up_behind_a_transactions_marker_and_goes_on(kafka: EmbeddedKafka) -> None:
    topic = await new_topic(kafka.bootstrap)
    async with writer(kafka, topic) as only:
        await only.publish([state(topic, n) for n in range(3)])
        async with asyncio.timeout(20):  # Kafka answers when it is sure of the marker, and writes it then
            while await length(kafka.bootstrap, topic) < 4:  # noqa: ASYNC110 - Kafka's state
                await asyncio.sleep(0.05)
        assert await length(kafka.bootstrap, topic) == 4, "the marker has an offset of its own"
        assert await read_to_the_end(kafka, topic) == [b"0", b"1", b"2"]
        await asyncio.gather(*(only.publish([state(topic, n)]) for n in (3, 4, 5)))
        assert await read_to_the_end(kafka, topic) == [b"%d" % n for n in range(6)]


async def test_a_record_that_is_too_large_is_refused_and_the_next_is_written(kafka: EmbeddedKafka) -> None:
    topic = await new_topic(kafka.bootstrap)
    async with writer(kafka, topic) as only:
        with pytest.raises(RejectEvent, match="too_large"):
            await only.publish([Outgoing(topic, b"k", b"x" * 2**20, [])])
        await only.publish([state(topic, 1)])
    assert await read_to_the_end(kafka, topic) == [b"1"]


async def test_what_an_absent_kafka_did_not_confirm_is_there_later_and_the_writer_stays_the_sole_one(
    own_kafka: EmbeddedKafka,
) -> None:
    topic = await new_topic(own_kafka.bootstrap)
    async with writer(own_kafka, topic) as only:
        await only.publish([state(topic, 1)])
        only._timeout = 1.5
        own_kafka.pause()
        try:
            for _ in range(2):
                with pytest.raises(DeliveryUnknown, match="did not confirm"):
                    await only.publish([state(topic, 2)])
        finally:
            own_kafka.resume()
        async with asyncio.timeout(60):
            while True:
                try:
                    await only.publish([state(topic, 3)])
                    break
                except DeliveryUnknown:
                    continue
        found = await read_to_the_end(own_kafka, topic)
    assert list(dict.fromkeys(found)) == [b"1", b"2", b"3"]


async def test_a_writer_stops_within_moments_while_kafka_is_away(own_kafka: EmbeddedKafka) -> None:
    topic = await new_topic(own_kafka.bootstrap)
    try:
        async with asyncio.timeout(40):
            async with writer(own_kafka, topic) as only:
                only._timeout = 1.0
                own_kafka.pause()
                with pytest.raises(DeliveryUnknown):
                    await only.publish([state(topic, 1)])
    finally:
        own_kafka.resume()
