"""A second version of a view joins a running mill: real servers, the features process, and the command, killed once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer
from rich.console import Console

from millstream.project import load_project
from millstream.runtime.topic_admin import ensure_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.ports import free_port
from millstream_cli.features import Features
from millstream_cli.place import Place
from millstream_cli.topics import topics_of
from millstream_tiles import ValkeyTileStore, WindowReader
from millstream_tiles.definition import View
from millstream_tiles.generations import Generations
from millstream_tiles.lake import Lake
from millstream_tiles.lake_reader import read_events
from millstream_tiles.live_writer import LiveWriter
from millstream_tiles.recount import Event, recount
from millstream_tiles.registry import describe

STREAM = "orders"
NOON_MS = 1_370_088_000_000
CUSTOMERS = [f"c{n}" for n in range(40)]
WITHIN = 150
"""Seconds for a step: a process imports Feast, and applies 40,000 events, on two busy cores."""
ORDERS = """\
stream: orders
description: A customer ordered.
key: customer
time: ordered_at
id: order
lateness: 1h
partitions: 2
schema:
  type: object
  required: [order, customer, ordered_at, amount]
  properties:
    order: {type: string}
    customer: {type: string}
    ordered_at: {type: string, format: date-time}
    amount: {type: number}
"""
STORE = """\
project: shop
provider: local
online_store: {type: millstream_tiles.online_store.MillstreamOnlineStore}
offline_store: {type: millstream_tiles.offline_store.MillstreamOfflineStore}
"""
DEFINITIONS = """\
from datetime import timedelta as time

from feast import Entity
from feast.aggregation import Aggregation
from feast.stream_feature_view import StreamFeatureView

from millstream_tiles import stream_source

customer, source = Entity(name="customer"), stream_source("../streams/orders.yaml")


def spend(name, *functions, hours):
    return StreamFeatureView(
        name=name, entities=[customer], source=source, timestamp_field="ordered_at",
        aggregations=[
            Aggregation(column="amount", function=f, name=f, time_window=time(hours=hours), slide_interval=time(minutes=10))
            for f in functions
        ],
    )


spend_v1 = spend("spend_v1", "sum", "count", hours=1)
spend_v2 = spend("spend_v2", "mean", "count", "max", hours=2)
"""


def order(number: int) -> tuple[int, int, bytes]:
    """(partition, Kafka's milliseconds, event). Every tenth record tells what the one before it told on the other partition."""
    partition = number % 2
    number -= number % 10 == 9
    at = NOON_MS + 100 * number
    stamp = f"2013-06-01T{12 + number // 36_000:02d}:{number // 600 % 60:02d}:{number // 10 % 60:02d}Z"
    event = {
        "order": f"o{number}",
        "customer": CUSTOMERS[number // 10 % 40],
        "ordered_at": stamp,
        "amount": number % 97,
    }
    return partition, at, json.dumps(event).encode()


async def send(bootstrap: str, first: int, after: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=5)
    await producer.start()
    try:
        sent = []
        for number in range(first, after):
            partition, at, value = order(number)
            sent.append(await producer.send(STREAM, value, partition=partition, timestamp_ms=at))
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


class Mill:
    """The servers of this test, the project, and a features process."""

    def __init__(self, root: Path, kafka: str, valkey: str) -> None:
        self.root, self.kafka, self.valkey = root, kafka, valkey
        self.lake = str(root / "lake")
        self.project = root / "project"
        for file, text in {
            "streams/orders.yaml": ORDERS,
            "features/feature_store.yaml": STORE,
            "features/definitions.py": DEFINITIONS,
        }.items():
            (self.project / file).parent.mkdir(parents=True, exist_ok=True)
            (self.project / file).write_text(text)
        (self.project / "loops").mkdir()
        self.store = ValkeyTileStore(valkey, "millstream")
        self.generations = Generations(self.store, "features-tiles")
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{free_port()}", timeout=30.0)
        self.features: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.features = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "millstream_features",
            env=os.environ
            | {
                "MILLSTREAM_KAFKA": self.kafka,
                "MILLSTREAM_VALKEY": self.valkey,
                "MILLSTREAM_PROJECT": str(self.project),
                "MILLSTREAM_LAKE": self.lake,
                "MILLSTREAM_DATA": str(self.root / "data"),
                "MILLSTREAM_PORT": str(self.http.base_url.port),
            },
        )

    async def rebuild(self) -> asyncio.subprocess.Process:
        command = ["features", "rebuild", "--view", "spend_v2", "--json", "--project", self.project]
        command += ["--kafka", self.kafka, "--valkey", self.valkey, "--lake", self.lake]
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "millstream_cli.main",
            *map(str, command),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def reached(self, generation: int, offset: int) -> None:
        """Wait until a generation has applied both partitions up to `offset`."""
        async with asyncio.timeout(WITHIN):
            while True:
                [fences] = await self.generations.fences(STREAM, generation)
                if len(fences) == 2 and all(fence.offset >= offset for fence in fences.values()):
                    return
                await asyncio.sleep(0.002)

    async def close(self) -> None:
        if self.features is not None and self.features.returncode is None:
            self.features.kill()
            await self.features.wait()
        await self.http.aclose()
        await self.store.close()


@pytest.fixture
async def mill(kafka: EmbeddedKafka, valkey_url: str, tmp_path: Path) -> AsyncIterator[Mill]:
    found = Mill(tmp_path, kafka.bootstrap, valkey_url)
    await ensure_topics(kafka.bootstrap, topics_of(load_project(found.project)))
    yield found
    await found.close()


@pytest.mark.timeout(600)
async def test_v2_joins_v1_through_a_kill_while_orders_keep_coming(
    mill: Mill, capsys: pytest.CaptureFixture[str]
) -> None:
    views = dict(describe(mill.project / "features").views)
    # An earlier worker knew v1 alone, and had begun the stream when it went.
    before = LiveWriter(mill.generations, [views["spend_v1"]])
    await before.claim()
    await mill.store.client.hset(mill.store.keys.fences("features-tiles", STREAM, 0), "0", "-1 0")
    await mill.start()
    await send(mill.kafka, 0, 40_000)
    await mill.reached(1, 19_999)
    await asyncio.to_thread(Lake(mill.lake).wait_for, STREAM, "features-lake", {0: 9_999, 1: 9_999}, timeout=WITHIN)
    asked = {"features": ["spend_v2:count"], "entities": {"customer": ["c1"]}}
    answer = await mill.http.post("/get-online-features", json=asked)
    assert answer.status_code == 503
    assert "millstream features rebuild --view spend_v2" in answer.json()["message"]
    assert 'millstream_view_unfilled{view="spend_v2"} 1.0' in (await mill.http.get("/metrics")).text

    # Killed as soon as anything is applied; a partition that nobody can catch up with keeps it from being done before.
    fences = mill.store.keys.fences("features-tiles", STREAM, 0)
    await mill.store.client.hset(fences, "9", "1 0")
    child = await mill.rebuild()
    async with asyncio.timeout(WITHIN):
        while not any(await mill.generations.fences(STREAM, 2)):  # noqa: ASYNC110  another process decides
            await asyncio.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    await child.communicate()
    assert child.returncode == -signal.SIGKILL
    standing = (await mill.generations.read()).views["spend_v2"]
    assert (standing.live, standing.coming) == (0, 2)
    await mill.store.client.hdel(fences, "9")

    coming = asyncio.create_task(send(mill.kafka, 40_000, 44_000))
    child = await mill.rebuild()
    said, told = await asyncio.wait_for(child.communicate(), WITHIN)
    assert child.returncode == 0, told.decode()
    [done] = json.loads(said)["rebuilt"]
    assert (done["resumed"], done["lost"], done["generation"]) == (True, 0, 2)
    await coming
    await mill.reached(1, 21_999)
    await asyncio.to_thread(Lake(mill.lake).wait_for, STREAM, "features-lake", {0: 21_999, 1: 21_999}, timeout=WITHIN)
    await compare(mill, views)

    place = Place(project=mill.project, kafka="", valkey=mill.valkey, lake=mill.lake, namespace="millstream")
    await Features(place, load_project(mill.project)).status(Console(), as_json=True)
    found = {one["view"]: one for one in json.loads(capsys.readouterr().out)["views"]}
    assert [found[name]["state"] for name in views] == ["read", "read"]
    assert found["spend_v2"]["keys"] == len(CUSTOMERS)
    assert (await mill.http.post("/get-online-features", json=asked)).status_code == 200


async def compare(mill: Mill, views: dict[str, View]) -> None:
    """Every customer of both versions, beside the recount over the lake."""
    columns = ["_event_time", "_known_at", "_partition", "_offset", "customer", "amount", "order"]
    rows: list[dict[str, Any]] = read_events(Lake(mill.lake), STREAM, columns).to_dicts()
    events = [
        Event(
            event_time=round(row["_event_time"].timestamp() * 1e6),
            known_at=round(row["_known_at"].timestamp() * 1e6),
            partition=row["_partition"],
            offset=row["_offset"],
            columns=row,
        )
        for row in rows
    ]
    assert len(events) == 44_000
    now = max(event.known_at for event in events)
    reader = WindowReader(mill.valkey, "millstream", views)
    found = await reader.read_async([(name, {"customer": CUSTOMERS}) for name in views], now)
    await reader.aclose()
    for view, values in zip(views.values(), found, strict=True):
        for number, customer in enumerate(CUSTOMERS):
            mine = [event for event in events if event.columns["customer"] == customer]
            for name, expected in recount(view, mine, (customer,), now).items():
                assert values[name][number] == pytest.approx(expected, rel=1e-9), (view.name, name, customer)
