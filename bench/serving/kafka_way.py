"""Questions over Kafka: how soon a backlog of them is answered, from the first answer in Kafka to the last."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from mill import Mill

from millstream.contracts.envelope import Envelope
from millstream.contracts.topics import PREDICTIONS

WARM = 0.1
"""Share of the backlog that is answered before the clock starts."""


async def backlog(mill: Mill, stream: str, make: Callable[[int], dict[str, object]], count: int, first: int) -> float:
    """Answers a second."""
    known = await _fill(mill.kafka, stream, make, count, first)
    consumer = AIOKafkaConsumer(bootstrap_servers=mill.kafka)
    await consumer.start()
    try:
        places = [TopicPartition(PREDICTIONS.name, number) for number in known]

        async def said() -> int:
            return sum((await consumer.end_offsets(places)).values())

        before = await said()
        with mill.serving() as door:
            began = done = 0.0
            at_start, spent = before, 0.0
            while True:
                now, answered = time.perf_counter(), await said() - before
                if not began and answered >= count * WARM:
                    began, at_start, spent = now, answered, door.cpu_seconds()
                if answered >= count:
                    done, spent = now, door.cpu_seconds() - spent
                    break
                await asyncio.sleep(0.02)
        print(f"{stream}: {spent / (count - at_start) * 1e6:.1f} µs of CPU a question", flush=True)
        return (count - at_start) / (done - began)
    finally:
        await consumer.stop()


async def _fill(
    bootstrap: str, stream: str, make: Callable[[int], dict[str, object]], count: int, first: int
) -> set[int]:
    """Events with the headers that ingest writes; the partitions of the answers."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=256 * 1024)
    await producer.start()
    try:
        batch = producer.create_batch()
        encode = msgspec.json.Encoder().encode
        for number in range(first, first + count):
            event = make(number)
            key, value = str(event["id"]).encode(), encode(event)
            headers = Envelope(
                id=str(event["id"]), type=stream, source="bench", time=round(time.time() * 1e6)
            ).headers()
            while batch.append(key=key, value=value, timestamp=None, headers=headers) is None:
                await producer.send_batch(batch, stream, partition=0)
                batch = producer.create_batch()
        await (await producer.send_batch(batch, stream, partition=0))
        return set(await producer.partitions_for(PREDICTIONS.name))
    finally:
        await producer.stop()
