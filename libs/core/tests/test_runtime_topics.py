"""Creating topics, and reading one whole, on a real Kafka."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.consumer.fetcher import Fetcher

from millstream.contracts.topics import MODELS, PREDICTIONS, TOPICS
from millstream.errors import MillstreamError, RetryLater
from millstream.runtime import topic_admin
from millstream.runtime.delivery import Record
from millstream.runtime.table import TopicReader
from millstream.runtime.topic_admin import TopicSpec, ensure_topics, our_topics, stream_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.ports import free_port

from .runtime_kit import flight, new_topic, produce, until

connected = pytest.mark.connected


def test_our_topics_follow_their_business_cards_and_a_laptop_caps_them() -> None:
    assert {spec.name: spec.partitions for spec in our_topics(TOPICS)}[PREDICTIONS.name] == PREDICTIONS.partitions
    assert {spec.partitions for spec in our_topics(TOPICS, partitions=1)} == {1}
    assert next(s for s in our_topics(TOPICS) if s.name == MODELS.name).config() == {"cleanup.policy": "compact"}


def test_a_stream_comes_with_its_late_events_and_a_dead_letter_topic_for_each_group() -> None:
    specs = stream_topics("flights-departed", 6, timedelta(days=7), ["features-tiles", "features-lake"])

    assert [spec.name for spec in specs] == [
        "flights-departed",
        "flights-departed-late",
        "flights-departed-features-tiles-dlq",
        "flights-departed-features-lake-dlq",
    ]
    assert specs[0].config() == {"retention.ms": str(7 * 24 * 3600 * 1000)}


@connected
async def test_while_all_brokers_are_fenced_no_topic_is_refused(
    kafka: EmbeddedKafka, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that stood still for longer than its session is fenced for a moment, and Kafka lists none then."""
    describe, looks = AIOKafkaAdminClient.describe_cluster, iter([True, True, False])

    async def fenced(self: AIOKafkaAdminClient) -> dict[str, Any]:
        found = await describe(self)
        return {**found, "brokers": []} if next(looks, True) else found

    monkeypatch.setattr(AIOKafkaAdminClient, "describe_cluster", fenced)
    monkeypatch.setattr(topic_admin, "LOOKS", 5)
    spec = TopicSpec(name=topic_name, partitions=1, retention=timedelta(days=1))

    assert await ensure_topics(kafka.bootstrap, [spec]) == [topic_name]
    with pytest.raises(RetryLater, match="none of its brokers serves"):
        await ensure_topics(kafka.bootstrap, [spec])


@connected
async def test_topics_are_created_once_and_left_as_they_are(kafka: EmbeddedKafka) -> None:
    spec = TopicSpec(name="flights-created-once", partitions=2, retention=timedelta(days=7))

    assert await ensure_topics(kafka.bootstrap, [spec]) == [spec.name]
    assert await ensure_topics(kafka.bootstrap, [spec]) == []
    assert await ensure_topics(kafka.bootstrap, [TopicSpec(name=spec.name, partitions=5, retention=None)]) == []

    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    [described] = await admin.describe_topics([spec.name])
    [response] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, spec.name)])
    await admin.close()
    config = {entry[0]: entry[1] for entry in response.resources[0][4]}
    assert len(described["partitions"]) == 2
    assert config["retention.ms"] == str(7 * 24 * 3600 * 1000)


@connected
async def test_a_topic_that_kafka_refuses_is_named(kafka: EmbeddedKafka) -> None:
    with pytest.raises(MillstreamError, match="bad name"):
        await ensure_topics(kafka.bootstrap, [TopicSpec(name="bad name", partitions=1, retention=None)])


async def test_without_kafka_creating_topics_is_tried_again_later() -> None:
    with pytest.raises(RetryLater, match="does not answer"):
        await ensure_topics(f"127.0.0.1:{free_port()}", [TopicSpec(name="flights", partitions=1, retention=None)])


@connected
async def test_who_looks_for_a_topic_right_after_it_was_created_finds_it(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The controller creates it, and a broker hears of it a moment later."""
    looked: list[str] = []
    list_topics = AIOKafkaAdminClient.list_topics

    async def late(self: AIOKafkaAdminClient) -> list[str]:
        looked.append("flights-new")
        return [] if len(looked) < 3 else list(await list_topics(self))

    monkeypatch.setattr(AIOKafkaAdminClient, "list_topics", late)
    specs = [TopicSpec(name="flights-new", partitions=1, retention=None)]
    assert await ensure_topics(kafka.bootstrap, specs) == ["flights-new"]
    looks = len(looked)
    assert looks >= 3, "this broker may be late by itself"
    assert await ensure_topics(kafka.bootstrap, specs) == []
    assert len(looked) == looks, "what was there is not waited for"


class Seen:
    """Writes down what a reader is told."""

    def __init__(self) -> None:
        self.values: list[bytes | None] = []

    async def __call__(self, record: Record) -> None:
        self.values.append(record.value)


@connected
async def test_a_table_is_read_from_its_beginning_and_then_followed(kafka: EmbeddedKafka) -> None:
    topic, seen = await new_topic(kafka.bootstrap, retention=None), Seen()
    await produce(kafka.bootstrap, topic, flight(1), flight(2))
    reader = TopicReader(bootstrap=kafka.bootstrap, topics=[topic], apply=seen)

    task = asyncio.create_task(reader.run())
    async with asyncio.timeout(20):
        await reader.caught_up.wait()
    assert seen.values == [b'{"flight": 1}', b'{"flight": 2}'], "caught up means: all that was there has been applied"

    await produce(kafka.bootstrap, topic, flight(3))
    await until(lambda: len(seen.values) == 3)
    task.cancel()


@connected
async def test_an_empty_table_is_caught_up_at_once(kafka: EmbeddedKafka) -> None:
    topic = await new_topic(kafka.bootstrap, retention=None)
    reader = TopicReader(bootstrap=kafka.bootstrap, topics=[topic], apply=Seen())
    task = asyncio.create_task(reader.run())
    async with asyncio.timeout(20):
        await reader.caught_up.wait()
    task.cancel()


@connected
async def test_a_reader_survives_a_restart_of_the_broker_and_repeats_nothing(kafka: EmbeddedKafka) -> None:
    topic, seen = await new_topic(kafka.bootstrap, retention=None), Seen()
    reader = TopicReader(bootstrap=kafka.bootstrap, topics=[topic], apply=seen)
    task = asyncio.create_task(reader.run())
    await produce(kafka.bootstrap, topic, flight(1))
    await until(lambda: seen.values)

    await asyncio.to_thread(kafka.restart)
    await produce(kafka.bootstrap, topic, flight(2))
    await until(lambda: len(seen.values) == 2)

    assert seen.values == [b'{"flight": 1}', b'{"flight": 2}']
    task.cancel()


@connected
async def test_a_reader_whose_client_stumbled_goes_on_with_another(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, seen, stumbled = await new_topic(kafka.bootstrap, retention=None), Seen(), asyncio.Event()
    fetch = Fetcher._proc_fetch_request

    async def once(self: Any, *said: Any) -> bool:
        if not stumbled.is_set():
            stumbled.set()
            raise KeyError(("node", 1))
        return bool(await fetch(self, *said))

    reader = TopicReader(bootstrap=kafka.bootstrap, topics=[topic], apply=seen)
    task = asyncio.create_task(reader.run())
    await produce(kafka.bootstrap, topic, flight(1))
    await until(lambda: seen.values)
    monkeypatch.setattr(Fetcher, "_proc_fetch_request", once)
    await stumbled.wait()
    await produce(kafka.bootstrap, topic, flight(2))
    await until(lambda: len(seen.values) == 2)

    assert seen.values == [b'{"flight": 1}', b'{"flight": 2}']
    task.cancel()


@connected
async def test_a_reader_started_before_its_topic_waits_for_it(kafka: EmbeddedKafka) -> None:
    seen = Seen()
    reader = TopicReader(bootstrap=kafka.bootstrap, topics=["flights-to-come"], apply=seen)
    task = asyncio.create_task(reader.run())
    await ensure_topics(kafka.bootstrap, [TopicSpec(name="flights-to-come", partitions=1, retention=None)])
    await produce(kafka.bootstrap, "flights-to-come", flight(1))
    await until(lambda: seen.values)
    task.cancel()


@connected
async def test_an_error_of_the_listener_ends_the_reader(kafka: EmbeddedKafka) -> None:
    async def bug(_: Record) -> None:
        raise ZeroDivisionError("a bug")

    topic = await new_topic(kafka.bootstrap, retention=None)
    await produce(kafka.bootstrap, topic, flight(1))
    with pytest.raises(ZeroDivisionError):
        await TopicReader(bootstrap=kafka.bootstrap, topics=[topic], apply=bug).run()
