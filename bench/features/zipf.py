"""Kafka → tiles with a million entities: purchases whose customers follow Zipf's law, twelve features of each customer."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import redis
from aiokafka import AIOKafkaProducer
from apply import Applied, watch, worker_of

from millstream.project import load_project
from millstream.runtime.topic_admin import ensure_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.valkey import EmbeddedValkey
from millstream_cli.topics import topics_of

ENTITIES = 1_000_000
EXPONENT = 1.0
"""Of Zipf's law: the n-th customer buys as often as 1/n."""
SPAN = 600.0
"""Seconds of event time."""

_STREAM = """\
stream: purchases
description: Somebody bought something.
key: customer
time: bought_at
lateness: 1h
partitions: 1
schema:
  type: object
  required: [customer, bought_at, amount, items]
  properties:
    bought_at: {type: string, format: date-time}
    customer: {type: string}
    amount: {type: number}
    items: {type: integer}
    remark: {type: string}
"""
_STORE = """\
project: bench
provider: local
entity_key_serialization_version: 3
online_store: {type: millstream_tiles.online_store.MillstreamOnlineStore}
offline_store: {type: millstream_tiles.offline_store.MillstreamOfflineStore}
"""
_DEFINITIONS = """\
from datetime import timedelta
from feast import Entity
from feast.aggregation import Aggregation
from feast.stream_feature_view import StreamFeatureView
from millstream_tiles import stream_source

customer = Entity(name="customer")
HOUR = timedelta(hours=1)
by_customer = StreamFeatureView(
    name="by_customer", entities=[customer], source=stream_source("../streams/purchases.yaml"), timestamp_field="bought_at",
    aggregations=[
        Aggregation(column=c, function=f, name=f"{f}_{c}", time_window=HOUR, slide_interval=HOUR / 6)
        for c in ("amount", "items") for f in ("sum", "mean", "min", "max", "std", "last")
    ])
"""


@dataclass(frozen=True, kw_only=True)
class Many:
    """One run."""

    applied: Applied
    entities: int
    """Different customers among the events."""
    bytes_per_entity: int
    """What the server's memory grew by, divided by them."""


async def zipf(events: int) -> Many:
    """One worker and one Valkey; everything is in Kafka before the worker starts."""
    with TemporaryDirectory(prefix="millstream-bench-") as name:
        root = Path(name)
        kafka = EmbeddedKafka(root / "kafka", log_dir=root / "logs")
        valkey = EmbeddedValkey(root / "valkey", None, log_dir=root / "logs")
        with kafka.running(), valkey.running(), redis.Redis.from_url(valkey.url) as client:
            path = root / "project"
            for part, file, text in (
                ("streams", "purchases.yaml", _STREAM),
                ("features", "feature_store.yaml", _STORE),
                ("features", "definitions.py", _DEFINITIONS),
                ("loops", ".keep", ""),
            ):
                (path / part).mkdir(parents=True, exist_ok=True)
                (path / part / file).write_text(text)
            await ensure_topics(kafka.bootstrap, topics_of(load_project(path), partitions=1))
            customers = await _fill(kafka.bootstrap, events)
            before = client.info("memory")["used_memory"]
            worker = worker_of(root, path, kafka.bootstrap, valkey.url)
            worker.launch()
            try:
                applied = await watch(kafka, valkey.processes, [worker], events, 0)
            finally:
                worker.terminate()
            grown = client.info("memory")["used_memory"] - before
            return Many(applied=applied, entities=customers, bytes_per_entity=round(grown / customers))


async def _fill(bootstrap: str, events: int) -> int:
    """How many different customers bought."""
    dice = np.random.default_rng(3)
    shares = np.cumsum(1 / np.arange(1, ENTITIES + 1) ** EXPONENT)
    customers = np.searchsorted(shares, dice.random(events) * shares[-1])
    amounts, items = dice.gamma(2, 20, events).round(2), dice.integers(1, 9, events)
    until, remark = time.time(), "x" * 160
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=256 * 1024, acks=1)
    await producer.start()
    try:
        batch = producer.create_batch()
        for number in range(events):
            at = until - SPAN + number * SPAN / events
            event = {
                "bought_at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1000):03d}Z",
                "customer": f"C{customers[number]:07d}",
                "amount": float(amounts[number]),
                "items": int(items[number]),
                "remark": remark,
            }
            said = json.dumps(event).encode()
            while batch.append(key=said[48:56], value=said, timestamp=int(at * 1000), headers=[]) is None:
                await producer.send_batch(batch, "purchases", partition=0)
                batch = producer.create_batch()
        await (await producer.send_batch(batch, "purchases", partition=0))
    finally:
        await producer.stop()
    return len(np.unique(customers))


if __name__ == "__main__":
    print(asyncio.run(zipf(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)))
