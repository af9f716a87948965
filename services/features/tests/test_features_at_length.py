"""Many events through kills and rebalances, on a real Kafka and a real Valkey: the tiles and the lake are what a recount says.

Of the departures one in ten is late, one in twenty is told twice (the copy to any partition, minutes later), and they come out
of order. While they are sent, workers are killed and started again, and another one joins and leaves.
The short form runs with the other tests; `make prove` sends five million.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from millstream.contracts.times import HOUR, MINUTE, from_rfc3339, to_rfc3339
from millstream.runtime.topic_admin import ensure_topics, stream_topics
from millstream.testing.kafka import EmbeddedKafka
from millstream.testing.ports import free_port
from millstream.testing.process import ManagedProcess
from millstream_features.subscribers import LAKE, TILES
from millstream_tiles import View, WindowReader, open_store, views_of
from millstream_tiles.history import Asked, history
from millstream_tiles.lake import Lake
from millstream_tiles.recount import Event, recount

NOON = from_rfc3339("2013-06-01T12:00:00Z")
SPAN = 12 * HOUR
LATENESS = HOUR
PARTITIONS = 4
AIRPORTS, AIRCRAFT = 16, 4_000
STILL = 120.0

STREAM = """\
stream: {stream}
description: A flight left the gate.
key: aircraft
id: flight
time: departed_at
lateness: 1h
partitions: 4
schema:
  type: object
  required: [flight, aircraft, departed_at, airport]
  properties:
    flight: {{type: string}}
    departed_at: {{type: string, format: date-time}}
    aircraft: {{type: string}}
    airport: {{type: string}}
    delay: {{type: number}}
"""
STORE = """\
project: length
provider: local
entity_key_serialization_version: 3
online_store: {type: millstream_tiles.online_store.MillstreamOnlineStore}
offline_store: {type: millstream_tiles.offline_store.MillstreamOfflineStore}
"""
DEFINITIONS = """\
from datetime import timedelta
from feast import Entity
from feast.aggregation import Aggregation
from feast.stream_feature_view import StreamFeatureView
from millstream_tiles import stream_source

source = stream_source("../streams/{stream}.yaml")
airport, aircraft = Entity(name="airport"), Entity(name="aircraft")


def view(entity, functions, window, slide, **more):
    return StreamFeatureView(
        name=f"by_{{entity.name}}", entities=[entity], source=source, timestamp_field="departed_at", aggregations=[
            Aggregation(column="delay", function=f, name=f, time_window=window, slide_interval=slide) for f in functions
        ], **more)


HOUR = timedelta(hours=1)
by_airport = view(airport, ["count", "sum", "mean", "std", "min", "max", "p90"], 3 * HOUR, HOUR / 2)
by_aircraft = view(
    aircraft, ["count", "mean", "last", "last_3", "count_distinct"], 12 * HOUR, HOUR, tags={{"where": "delay > -5"}})
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Departures:
    """What is sent, in the order in which it became known: one row a record."""

    flight: Any
    at: Any
    known: Any
    airport: Any
    aircraft: Any
    delay: Any
    partition: Any

    @classmethod
    def some(cls, n: int) -> Departures:
        dice = np.random.default_rng(5)
        at = NOON - SPAN + (np.arange(n) * SPAN // n) + dice.integers(-5 * MINUTE, 5 * MINUTE, n)
        at -= at % 1_000  # Kafka's timestamps and the events' texts have milliseconds
        late = dice.random(n) < 0.10
        wait = np.where(late, dice.integers(LATENESS + MINUTE, 3 * LATENESS, n), dice.integers(0, 20 * MINUTE, n))
        copies = np.flatnonzero(dice.random(n) < 0.05)
        rows = np.concatenate([np.arange(n), copies])
        known = (
            at[rows] + wait[rows] + np.concatenate([np.zeros(n, int), dice.integers(MINUTE, 30 * MINUTE, len(copies))])
        )
        known -= known % 1_000
        order = np.argsort(known, kind="stable")
        rows = rows[order]
        return cls(
            flight=rows,
            at=at[rows],
            known=known[order],
            airport=dice.integers(0, AIRPORTS, n)[rows],
            aircraft=dice.integers(0, AIRCRAFT, n)[rows],
            delay=np.round(dice.normal(10, 30, n), 1)[rows],
            partition=dice.integers(0, PARTITIONS, len(rows)),
        )

    def __len__(self) -> int:
        return len(self.flight)

    def of(self, column: str, wanted: Iterable[int]) -> dict[int, list[Event]]:
        """The records of each entity, as the recount wants them."""
        numbers = getattr(self, column)
        offsets = np.zeros(len(self), dtype=np.int64)
        for p in range(PARTITIONS):
            mine = np.flatnonzero(self.partition == p)
            offsets[mine] = np.arange(len(mine))
        found: dict[int, list[Event]] = defaultdict(list)
        for i in np.flatnonzero(np.isin(numbers, list(wanted))).tolist():
            columns = {
                "flight": f"F{self.flight[i]}",
                "airport": f"A{self.airport[i]}",
                "aircraft": f"N{self.aircraft[i]}",
                "delay": float(self.delay[i]),
            }
            event = Event(
                event_time=int(self.at[i]),
                known_at=int(self.known[i]),
                partition=int(self.partition[i]),
                offset=int(offsets[i]),
                columns=columns,
            )
            found[int(numbers[i])].append(event)
        return found


class Crew:
    """The workers: each a process of the features service."""

    def __init__(self, env: dict[str, str], folder: Path) -> None:
        self._env, self._folder = env, folder
        self.workers: list[ManagedProcess] = []

    def hire(self) -> ManagedProcess:
        name = f"features-{len(self.workers)}"
        worker = ManagedProcess(
            name,
            [sys.executable, "-m", "millstream_features"],
            log=self._folder / f"{name}.log",
            env=self._env | {"MILLSTREAM_DATA": str(self._folder / name), "MILLSTREAM_PORT": str(free_port())},
        )
        worker.launch()
        self.workers.append(worker)
        return worker

    def logs(self) -> str:
        return "\n".join(f"{worker.name}: {worker.log_tail()}" for worker in self.workers)

    def dismiss(self) -> None:
        for worker in self.workers:
            worker.terminate()


@asynccontextmanager
async def producing(kafka: EmbeddedKafka) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, max_batch_size=256 * 1024, acks=1)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def send(producer: AIOKafkaProducer, stream: str, told: Departures, first: int, last: int) -> None:
    """Records `first` to before `last`."""
    batches = {p: producer.create_batch() for p in range(PARTITIONS)}
    for i in range(first, last):
        p = int(told.partition[i])
        value = (
            f'{{"flight":"F{told.flight[i]}","departed_at":"{to_rfc3339(int(told.at[i]))}","airport":"A{told.airport[i]}",'
            f'"aircraft":"N{told.aircraft[i]}","delay":{told.delay[i]}}}'
        ).encode()
        known = int(told.known[i]) // 1_000
        while batches[p].append(key=b"", value=value, timestamp=known, headers=[]) is None:
            await producer.send_batch(batches[p], stream, partition=p)
            batches[p] = producer.create_batch()
    for p, batch in batches.items():
        if batch.record_count():
            await (await producer.send_batch(batch, stream, partition=p))


async def applied(admin: AIOKafkaAdminClient, stream: str) -> int:
    """Records that the tiles' group has committed."""
    try:
        places = await admin.list_consumer_group_offsets(TILES)
    except GroupCoordinatorNotAvailableError:  # the first group of a new Kafka
        return 0
    return sum(max(0, told.offset) for place, told in places.items() if place.topic == stream)


async def until(admin: AIOKafkaAdminClient, stream: str, count: int, crew: Crew) -> None:
    """Waits while the committed place moves; workers that all died, or stand still, are told of with what they logged."""
    clock = asyncio.get_running_loop().time
    last, since = -1, clock()
    while (now := await applied(admin, stream)) < count:
        if now > last:
            last, since = now, clock()
        if not any(worker.alive() for worker in crew.workers) or clock() - since > STILL:
            pytest.fail(f"{now} of {count} records applied\n{crew.logs()}")
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("events", "kills", "entities"),
    [
        pytest.param(60_000, 1, 40, id="short", marks=pytest.mark.timeout(240)),
        pytest.param(5_000_000, 3, AIRCRAFT, id="five-million", marks=[pytest.mark.prove, pytest.mark.timeout(3_600)]),
    ],
)
async def test_what_the_tiles_and_the_lake_hold_is_what_a_recount_says(
    kafka: EmbeddedKafka, valkey_url: str, tmp_path: Path, events: int, kills: int, entities: int
) -> None:
    stream = f"length-{events}"
    project = tmp_path / "project"
    for part, name, text in (
        ("streams", f"{stream}.yaml", STREAM.format(stream=stream)),
        ("features", "feature_store.yaml", STORE),
        ("features", "definitions.py", DEFINITIONS.format(stream=stream)),
    ):
        (project / part).mkdir(parents=True, exist_ok=True)
        (project / part / name).write_text(text)
    (project / "loops").mkdir()
    await ensure_topics(kafka.bootstrap, stream_topics(stream, PARTITIONS, timedelta(days=9999), [TILES, LAKE]))
    env = {
        "MILLSTREAM_KAFKA": kafka.bootstrap,
        "MILLSTREAM_VALKEY": valkey_url,
        "MILLSTREAM_PROJECT": str(project),
        "MILLSTREAM_LAKE": str(tmp_path / "lake"),
        "MILLSTREAM_SESSION_TIMEOUT_MS": "6000",
    }
    told = Departures.some(events)
    crew = Crew(env, tmp_path)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        async with producing(kafka) as producer:
            crew.hire(), crew.hire()
            sent = 0
            for turn in range(kills):
                # A part is sent and half applied; then a worker dies in the middle of it, and its successor starts at once.
                upto = len(told) * (turn + 1) // (kills + 1)
                await send(producer, stream, told, sent, upto)
                await until(admin, stream, (sent + upto) // 2, crew)
                crew.workers[turn].kill9()
                crew.hire()
                sent = upto
            await send(producer, stream, told, sent, len(told))
        # Two rebalances without a death: one more worker, and one less.
        await until(admin, stream, sent, crew)
        one_more = crew.hire()
        await until(admin, stream, (sent + len(told)) // 2, crew)
        one_more.terminate()
        await until(admin, stream, len(told), crew)
        lake = Lake(str(tmp_path / "lake"))
        ends = {p: int((told.partition == p).sum()) - 1 for p in range(PARTITIONS)}
        await asyncio.to_thread(lake.wait_for, stream, LAKE, ends, timeout=600)
    finally:
        await admin.close()
        crew.dismiss()

    store = open_store(project / "features", online={"url": valkey_url, "namespace": "millstream"})
    views = views_of(store)
    reader = WindowReader(valkey_url, "millstream", views, timeout=30.0)
    try:
        now = int(told.known.max()) + 1
        compared = 0
        for column, numbers in (("airport", range(AIRPORTS)), ("aircraft", range(entities))):
            view, prefix = views[f"by_{column}"], {"airport": "A", "aircraft": "N"}[column]
            records, names = told.of(column, numbers), [f"{prefix}{number}" for number in numbers]
            times = [now, NOON - 5 * HOUR, NOON - 2 * HOUR + 7]
            online = at_once(reader, view, column, names, now)
            asked = Asked(view=view, keys=pl.DataFrame({column: names}))
            past = [history(lake, [asked], np.full(len(names), t))[0] for t in times]
            for row, number in enumerate(numbers):
                for t, found in [(now, online), *zip(times, past, strict=True)]:
                    compared += alike(view, records[number], names[row], t, {n: v[row] for n, v in found.items()})
    finally:
        await reader.aclose()
    assert compared == 4 * (7 * AIRPORTS + 5 * entities)
    await every_record_is_in_the_lake_once(lake, stream, told)


def at_once(reader: WindowReader, view: View, column: str, names: list[str], now: int) -> dict[str, Any]:
    """The view's windows, read in the portions that a stream of questions reads: a store has one thread for all."""
    parts = [reader.read([(view.name, {column: names[i : i + 500]})], now)[0] for i in range(0, len(names), 500)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def alike(view: View, events: list[Event], key: str, t: int, found: dict[str, Any]) -> int:
    for name, expected in recount(view, events, (key,), t).items():
        value, where = found[name].tolist(), (view.name, name, key, t)
        if isinstance(value, list):
            assert [v for v in value if not math.isnan(v)] == (expected or []), where
        elif expected is None:
            assert math.isnan(value), where
        else:
            assert value == pytest.approx(expected, rel=1e-9, abs=1e-6), where
    return len(found)


async def every_record_is_in_the_lake_once(lake: Lake, stream: str, told: Departures) -> None:
    from millstream_tiles.lake_reader import read_events

    rows = await asyncio.to_thread(read_events, lake, stream, ["_partition", "_offset"])
    assert len(rows) == len(told)
    assert rows.select("_partition", "_offset").is_unique().all()
