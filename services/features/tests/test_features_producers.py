"""Producers who write the topic themselves, without ingest: held to the same schema, and told where they broke it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from millstream.contracts.dead_letters import letter_of
from millstream.contracts.topics import dead_letter_topic
from millstream.testing.kafka import EmbeddedKafka
from millstream_cli.dlq import shown
from millstream_features.subscribers import LAKE, TILES

from .features_airfield import Sent, airfield

NOON = "2013-06-01T12:00:00Z"
GATE = (("ce_id", b"g-1"), ("ce_source", b"/gates/jfk"))


def flight(id: str, **more: Any) -> dict[str, Any]:
    return {"flight_id": id, "departed_at": "2013-06-01T11:30:00Z", "tailnum": "N1", "origin": "JFK"} | more


async def letters(kafka: EmbeddedKafka, topic: str, count: int) -> list[Any]:
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap)
    await consumer.start()
    try:
        place = TopicPartition(topic, 0)
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        async with asyncio.timeout(30):
            return [letter_of(await consumer.getone()) for _ in range(count)]
    finally:
        await consumer.stop()


async def test_what_breaks_the_schema_is_a_letter_that_says_where_and_who(
    kafka: EmbeddedKafka, valkey_url: str, tmp_path: Path, unique_name: Callable[[str], str]
) -> None:
    stream = unique_name("flights-departed")
    async with airfield(kafka, valkey_url, tmp_path, stream, namespace="producers") as field:
        await field.departs(
            Sent(flight("F1", delay=5.0)),
            Sent(flight("F2", delay="late"), headers=GATE),
            Sent(flight("F3", delay=7.0), headers=GATE),
            Sent({"flight_id": "F4"}),
            Sent(flight("F5", delay=9.0)),
        )

        for group in (TILES, LAKE):
            first, second = await letters(kafka, dead_letter_topic(stream, group), 2)
            assert (first.topic, first.source_partition, first.source_offset, first.group) == (stream, 0, 1, group)
            assert (first.reason, first.detail) == ("schema", '/delay: "late" is not of types "null", "number"')
            told = shown(first, was_replayed=False)
            assert (told["producer"], told["id"], told["source"]) == ("/gates/jfk", "g-1", "0:1")
            assert (second.source_offset, second.reason) == (3, "schema")
            assert second.detail == '/: "departed_at" is a required property'
            assert shown(second, was_replayed=False)["producer"] == "", "nobody said"

        row = [{"tailnum": "N1", "origin": "JFK", "gate": 1}]
        for [found] in (await field.online(row, NOON), await field.offline(row, NOON)):
            assert (found["by_tail__count"], found["by_tail__sum"]) == (3, 21.0)
