"""A shop whose orders are applied, kept and read while its views are rebuilt: what the tests of rebuilding are told with."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from millstream_tiles import Aggregate, EventBatch, Function, ValkeyTileStore, View
from millstream_tiles.generations import Generations
from millstream_tiles.lake import Lake
from millstream_tiles.lake_schema import table_schema
from millstream_tiles.live_writer import LiveWriter
from millstream_tiles.ports import Outcome
from millstream_tiles.reader import WindowReader
from millstream_tiles.rebuild import Rebuild
from millstream_tiles.recount import Event, recount

from .told_records import kept, told

SECOND, MINUTE, HOUR = 1_000_000, 60_000_000, 3_600_000_000
NOON = 1_370_088_000 * SECOND
CUSTOMERS = ["ada", "bob", "cleo#1", "d:e", "hal", "jo"]
"""The last two are in the second of two shards."""
SCHEMA = table_schema({"properties": {"customer": {"type": "string"}, "amount": {"type": "number"}}})
_numbers = itertools.count()


def view(name: str, *functions: Function, window: int = HOUR, event_id: str | None = "order") -> View:
    return View(
        name=name,
        stream="orders",
        keys=("customer",),
        time_field="at",
        lateness=30 * MINUTE,
        event_id=event_id,
        aggregates=tuple(
            Aggregate(name=f, function=f, column="amount", window=window, slide=10 * MINUTE) for f in functions
        ),
    )


V1 = view("spend_v1", Function.SUM, Function.COUNT)
V2 = view("spend_v2", Function.MEAN, Function.COUNT, Function.MAX, window=3 * HOUR)


def orders(count: int, *, seed: int = 1, over: int = 5 * HOUR) -> list[list[Event]]:
    """The logs of two partitions: some orders late, some told twice, some on both partitions."""
    rng = random.Random(seed)
    logs: list[list[Event]] = [[], []]
    for number in range(count):
        known = NOON + number * over // count
        told = 1 + (rng.random() < 0.1)
        late = rng.random() < 0.05
        order = {"customer": rng.choice(CUSTOMERS), "amount": float(rng.randrange(1, 100)), "order": f"o{number}"}
        at = known - (2 * HOUR if late else rng.randrange(20 * MINUTE))
        for _ in range(told):
            partition = rng.randrange(2)
            offset = len(logs[partition])
            event = Event(event_time=at, known_at=known, partition=partition, offset=offset, columns=order)
            logs[partition].append(event)
    return logs


def batch_of(events: Sequence[Event]) -> EventBatch:
    return told("orders", events, id="order")


class Logs:
    """`rebuild.Topics` on lists."""

    def __init__(self, logs: list[list[Event]]) -> None:
        self.logs = logs

    async def partitions(self, stream: str) -> Mapping[int, tuple[int, int]]:
        return {p: (0, len(log)) for p, log in enumerate(self.logs)}

    async def read(self, stream: str, positions: Mapping[int, int]) -> Sequence[EventBatch]:
        await asyncio.sleep(0)
        found = [self.logs[p][at : at + 100] for p, at in positions.items()]
        return [batch_of(events) for events in found if events]


class Shop:
    """One namespace: what is heard so far, the live worker, the lake, and a reader."""

    def __init__(self, url: str, lake: Path, shards: int) -> None:
        self.url, self.namespace, self.shards = url, f"rebuild-{next(_numbers)}", shards
        self.store = ValkeyTileStore(url, self.namespace, shards)
        self.generations = Generations(self.store, "tiles")
        self.lake = Lake(str(lake))
        self.logs: list[list[Event]] = [[], []]
        """What Kafka has."""
        self.applied = [0, 0]
        self.worker = self.a_worker(V1)
        self.reader = self.a_reader(V1, V2)

    def a_worker(self, *views: View) -> LiveWriter:
        return LiveWriter(self.generations, views)

    def a_reader(self, *views: View) -> WindowReader:
        return WindowReader(self.url, self.namespace, {v.name: v for v in views}, shards=self.shards)

    async def apply(self, partition: int, upto: int, size: int = 50) -> None:
        """The worker takes the next events of a partition, and goes back where the store tells it to."""
        while self.applied[partition] < upto:
            first = self.applied[partition]
            answer = await self.worker.write(batch_of(self.logs[partition][first : min(first + size, upto)]))
            behind = answer.outcome is Outcome.BEHIND
            self.applied[partition] = answer.fence + 1 if behind else min(first + size, upto)

    async def apply_all(self) -> None:
        for partition, log in enumerate(self.logs):
            await self.apply(partition, len(log))

    def keep(self, upto: Sequence[int]) -> None:
        """The lake gets each partition up to an offset, in a few commits."""
        for partition, end in enumerate(upto):
            have = self.lake.position("orders", "lake", partition)
            events = self.logs[partition][0 if have is None else have + 1 : end]
            for first in range(0, len(events), 400):
                part = events[first : first + 400]
                self.lake.append("orders", [kept(SCHEMA, part, id="order")], group="lake")

    def rebuild(self, *views: View, topics: bool = True, say: Any = lambda progress: None, kind: Any = Rebuild) -> Any:
        return kind(
            generations=self.generations,
            views=views,
            lake=self.lake,
            lake_group="lake",
            topics=Logs(self.logs) if topics else None,
            say=say,
        )

    async def seen(self, one: View, at: int, reader: WindowReader | None = None) -> dict[str, list[float]]:
        [values] = await (reader or self.reader).read_async([(one.name, {"customer": CUSTOMERS})], at)
        return {name: column.tolist() for name, column in values.items()}

    def recounted(self, one: View, at: int) -> dict[str, list[float]]:
        known = [e for log, end in zip(self.logs, self.applied, strict=True) for e in log[:end]]
        rows = [recount(one, known, (customer,), at) for customer in CUSTOMERS]
        return {a.name: [float("nan") if r[a.name] is None else r[a.name] for r in rows] for a in one.aggregates}  # type: ignore[misc]

    @property
    def now(self) -> int:
        return max(e.known_at for log, end in zip(self.logs, self.applied, strict=True) for e in log[:end])

    async def memory(self) -> tuple[int, int]:
        """Keys of the namespace but for the table itself, and their bytes."""
        client = self.store.client
        keys = [
            k async for k in client.scan_iter(f"{{{self.namespace}:*") if not k.endswith((b"generations", b"revision"))
        ]
        return len(keys), sum([await client.memory_usage(key, samples=0) for key in keys])

    async def close(self) -> None:
        await self.reader.aclose()
        await self.store.close()
