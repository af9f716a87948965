"""Whoever looks at ingest sees what the services could not use: counted, bounded, and not counted again for each look."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from aiokafka import AIOKafkaProducer

from millstream.contracts.dead_letters import Mark
from millstream.contracts.times import SECOND
from millstream.contracts.topics import dead_letter_topic
from millstream.errors import RejectEvent, RetryLater
from millstream.runtime.records import Rejected, dead_letter
from millstream.runtime.topic_admin import ensure_topics, stream_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream_ingest.adapters import kafka_dead_letters
from millstream_ingest.domain.counted import TopicCount
from millstream_ingest.handlers.census import FRESH, Census

from .test_ingest_kafka import departures, ingest, ready


class Refused:
    """A record that radar could not use."""

    partition, offset, timestamp, key, headers = 0, 7, 1357038000000, b"N14228", [("ce_id", b"UA-1545")]

    def __init__(self, topic: str) -> None:
        self.topic, self.value = topic, b'{"dep_delay": "two"}'


async def buried(kafka: EmbeddedKafka, topic: str, *reasons: str, replayed: int = 0) -> None:
    """Dead letters of these reasons, the first `replayed` of which are marked."""
    name = dead_letter_topic(topic, "radar")
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all")
    await producer.start()
    try:
        for reason in reasons:
            letter = dead_letter(Rejected(Refused(topic), RejectEvent(reason, f"it is {reason}")), "radar")
            await producer.send_and_wait(name, letter.value, key=letter.key, headers=letter.headers)
        if replayed:
            value, headers = Mark(partition=0, offsets=tuple(range(replayed))).record()
            await producer.send_and_wait(name, value, partition=0, headers=headers)
    finally:
        await producer.stop()


@pytest.mark.connected
async def test_letters_are_counted_by_reason_and_those_of_others_are_not(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Others who test on this Kafka have letters in the topics that every mill has.
    monkeypatch.setattr(kafka_dead_letters, "TOPICS", ())
    stream, other = departures(), departures()
    for one in (stream, other):
        await ensure_topics(kafka.bootstrap, stream_topics(one.name, 1, timedelta(days=1), ["radar"]))
        await buried(kafka, one.name, "schema", "schema", "bad_json", replayed=1)

    async with ingest(kafka.bootstrap, stream) as client:
        await ready(client)
        said = (await client.get("/v1/dead-letters")).json()

    [topic] = said["topics"]
    assert (said["complete"], said["waiting"]) == (True, 2)
    assert (topic["topic"], topic["group"], topic["retained"]) == (stream.name, "radar", 4)
    counts = {one["reason"]: (one["letters"], one["replayed"], one["example"]) for one in topic["letters"]}
    assert counts == {"schema": (2, 1, "it is schema"), "bad_json": (1, 0, "it is bad_json")}


@pytest.mark.connected
async def test_only_the_newest_are_looked_at_and_the_answer_says_so(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_dead_letters, "NEWEST", 2)
    stream = departures()
    await ensure_topics(kafka.bootstrap, stream_topics(stream.name, 1, timedelta(days=1), ["radar"]))
    await buried(kafka, stream.name, "schema", "bad_json", "too_early")

    async with ingest(kafka.bootstrap, stream) as client:
        await ready(client)
        said = (await client.get("/v1/dead-letters")).json()

    [topic] = [one for one in said["topics"] if one["topic"] == stream.name]
    assert (said["complete"], topic["looked_at"]) == (False, 2)
    assert {one["reason"] for one in topic["letters"]} == {"bad_json", "too_early"}


@pytest.mark.connected
async def test_without_kafka_the_answer_is_later() -> None:
    async with ingest("127.0.0.1:1", departures()) as client:
        said = await client.get("/v1/dead-letters")

    assert (said.status_code, said.json()["error"]) == (503, "unavailable")
    assert "retry-after" in said.headers


class Box:
    """Counts how often it is looked into."""

    def __init__(self) -> None:
        self.looks = 0
        self.away = False

    async def count(self) -> list[TopicCount]:
        if self.away:
            raise RetryLater("Kafka does not answer")
        self.looks += 1
        await asyncio.sleep(0)
        return []


async def test_who_asks_again_at_once_gets_the_same_count() -> None:
    box, now = Box(), [0]
    census = Census(box, lambda: now[0])

    assert len({id(one) for one in await asyncio.gather(*[census.counted() for _ in range(20)])}) == 1
    assert box.looks == 1
    now[0] = FRESH + SECOND
    box.away = True
    with pytest.raises(RetryLater):
        await census.counted()
    box.away = False
    with pytest.raises(RetryLater):
        await census.counted()
    assert box.looks == 1, "who asks every second does not wait for Kafka every second"
    now[0] += FRESH + SECOND
    await census.counted()
    assert box.looks == 2
