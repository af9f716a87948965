"""The proof of the online half: whatever order, repetition and crash, the tiles say what a naive recount says.

Events come from two partitions, out of order, late, doubled; a worker applies them in batches of any size, dies between
the apply and its commit as often as it likes, and begins again at any earlier offset. After any step, a question at any
time that is not in the past must get the recount's answer. A store without its fence, or without its ids, must fail.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from millstream_tiles import Aggregate, EventBatch, Function, MemoryTileStore, TileWriter, ValkeyTileStore, View
from millstream_tiles.memory_reader import MemoryWindowReader
from millstream_tiles.partials import TileBatch
from millstream_tiles.ports import Applied, Outcome, TileStore
from millstream_tiles.reader import WindowReader
from millstream_tiles.recount import Event, recount

from .told_records import told

SECOND, MINUTE, HOUR = 1_000_000, 60_000_000, 3_600_000_000
NOON = 1_362_139_200 * SECOND
_numbers = itertools.count()


def _aggregates(*spans: tuple[int, int], functions: Iterable[Function] = Function) -> tuple[Aggregate, ...]:
    every = [(f, "delay") for f in functions] + [(Function.COUNT, "*")]
    return tuple(
        Aggregate(name=f"{f}_{c}_{window}_{slide}", function=f, column=c, window=window, slide=slide, k=k_of(f))
        for window, slide in spans
        for f, c in every
    )


def k_of(function: Function) -> int:
    return 3 if function is Function.LAST_K else 0


def _view(name: str, keys: tuple[str, ...], aggregates: tuple[Aggregate, ...], where: str | None = None) -> View:
    return View(
        name=name,
        stream="departed",
        keys=keys,
        time_field="at",
        lateness=30 * MINUTE,
        event_id="flight",
        aggregates=aggregates,
        where=where,
    )


PLAIN = tuple(f for f in Function if f not in (Function.COUNT_DISTINCT, Function.P50, Function.P90, Function.P99))
VIEWS = {
    "origin": _view("origin", ("origin",), _aggregates((HOUR, 10 * MINUTE), (20 * MINUTE, 10 * MINUTE))),
    "route": _view("route", ("origin", "carrier"), _aggregates((3 * HOUR, HOUR), (HOUR, HOUR)), "not delay > 60"),
    # Windows of so many slides that they are read from two levels: tiles of 10 seconds and of 270.
    "long": _view("long", ("origin",), _aggregates((2 * HOUR, 10 * SECOND), (MINUTE, 10 * SECOND), functions=PLAIN)),
}

ORIGINS: list[Any] = ["JFK", "a|b", None]
CARRIERS: list[Any] = ["DL", 7]
DELAYS = st.one_of(
    st.integers(-60, 600),
    st.floats(-1e6, 1e6),
    st.sampled_from([None, True, "late", math.inf, math.nan, 2**53, 2**53 + 1, 10**400, 1e-300, [1]]),
)


@dataclass(frozen=True)
class Departure:
    """One flight, as one record of partition 0 or 1 tells it."""

    flight: int | None
    minute: float
    """Event time, after noon."""
    wait: float
    """Minutes until it was known; above 30 it is late."""
    origin: Any
    carrier: Any
    delay: Any
    partition: int
    copy_on: int | None
    """The other partition may hold a copy, known a little later."""


@dataclass(frozen=True)
class Delivery:
    """The worker of `partition` takes up to `size` records, beginning `back` before where it stands."""

    partition: int
    size: int
    back: int
    question: float
    """Minutes after the newest thing known."""


departures = st.lists(
    st.builds(
        Departure,
        flight=st.one_of(st.none(), st.integers(0, 5)),
        minute=st.floats(0, 300, allow_nan=False),
        wait=st.floats(0, 45, allow_nan=False),
        origin=st.sampled_from(ORIGINS),
        carrier=st.sampled_from(CARRIERS),
        delay=DELAYS,
        partition=st.integers(0, 1),
        copy_on=st.sampled_from([None, None, 0, 1]),
    ),
    min_size=1,
    max_size=25,
)
deliveries = st.lists(
    st.builds(
        Delivery,
        partition=st.integers(0, 1),
        size=st.integers(1, 12),
        back=st.sampled_from([0, 0, 1, 3, 99]),
        question=st.floats(0, 200, allow_nan=False),
    ),
    min_size=1,
    max_size=12,
)


def records(flights: list[Departure]) -> list[list[Event]]:
    """The log of each partition. Copies tell the same; one flight has one truth, so later tellers repeat the first."""
    logs: list[list[Event]] = [[], []]
    told: dict[int, Departure] = {}
    for seen in flights:
        flight = seen if seen.flight is None else replace(told.setdefault(seen.flight, seen), partition=seen.partition)
        where = [(flight.partition, flight.wait)]
        if flight.flight is not None and seen.copy_on is not None:
            where.append((seen.copy_on, flight.wait + 20))
        for partition, wait in where:
            at = NOON + int(flight.minute * MINUTE)
            columns = {
                "origin": flight.origin,
                "carrier": flight.carrier,
                "delay": flight.delay,
                "flight": None if flight.flight is None else f"F{flight.flight}",
            }
            log = logs[partition]
            known_at = at + int(wait * MINUTE)
            log.append(Event(event_time=at, known_at=known_at, partition=partition, offset=len(log), columns=columns))
    return logs


def batch_of(events: list[Event]) -> EventBatch:
    return told("departed", events, id="flight")


async def tell(
    store: TileStore, reader: WindowReader | MemoryWindowReader, flights: list[Departure], steps: list[Delivery]
) -> None:
    """Deliver the flights as `steps` say, and compare after every step."""
    writer = TileWriter(store, VIEWS.values(), "features")
    logs = records(flights)
    position = [0, 0]
    for step in steps:
        log = logs[step.partition]
        first = max(0, position[step.partition] - step.back)
        events = log[first : first + step.size]
        if not events:
            continue
        answer = await writer.write(batch_of(events))
        assert answer.outcome in (Outcome.APPLIED, Outcome.ALREADY)
        position[step.partition] = max(position[step.partition], first + len(events))
        applied = [e for log, upto in zip(logs, position, strict=True) for e in log[:upto]]
        newest = max(e.known_at for e in applied)
        await compare(reader, applied, newest + int(step.question * MINUTE))


async def compare(reader: WindowReader | MemoryWindowReader, applied: list[Event], t: int) -> None:
    keys = list(itertools.product(ORIGINS, CARRIERS))
    columns = {"origin": [o for o, _ in keys], "carrier": [c for _, c in keys]}
    answers = await reader.read_async([(n, {k: columns[k] for k in v.keys}) for n, v in VIEWS.items()], t)
    for view, values in zip(VIEWS.values(), answers, strict=True):
        for i, _ in enumerate(keys):
            key = tuple(columns[k][i] for k in view.keys)
            for name, expected in recount(view, applied, key, t).items():
                found = values[name][i].tolist()
                if name.startswith("last_k"):
                    assert [v for v in found if not math.isnan(v)] == (expected or []), (name, key, found, expected)
                elif expected is None:
                    assert math.isnan(found), (name, key, found)
                elif name.startswith(("count", "min", "max", "first", "last", "p")):
                    assert found == expected, (name, key, found, expected)
                else:
                    largest = max((abs(d) for e in applied if (d := _size(e.columns["delay"]))), default=1.0)
                    assert math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-9 * max(1.0, largest)), (name, key)


def _size(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) and abs(value) <= 2**53 else 0.0


FAST = settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=False
)


QUICK = settings(FAST, max_examples=2_000, phases=[Phase.generate], report_multiple_bugs=False)
"""For proofs that are meant to fail: the first failure is enough. Which example that is depends on what else is imported,
since Hypothesis draws from the constants that it finds there; 120 were once too few."""


def in_memory(make: Callable[[], MemoryTileStore], how: settings = FAST) -> Callable[[], None]:
    @how
    @given(flights=departures, steps=deliveries)
    def prove(flights: list[Departure], steps: list[Delivery]) -> None:
        store = make()
        asyncio.run(tell(store, MemoryWindowReader(store, VIEWS), flights, steps))

    return prove


@pytest.mark.parametrize("shards", [1, 2])
def test_tiles_say_what_a_recount_says(shards: int) -> None:
    in_memory(lambda: MemoryTileStore(shards))()


class WithoutFence(MemoryTileStore):
    """Takes every batch as new."""

    def check_fence(self, batch: TileBatch, fence: object) -> None:
        return None


class WithoutIds(MemoryTileStore):
    """Remembers no id."""

    async def apply(self, batch: TileBatch, *, group: str) -> Applied:
        return await super().apply(replace(batch, ids={}), group=group)


@pytest.mark.parametrize("broken", [WithoutFence, WithoutIds])
def test_the_proof_notices_a_store_without_its_guard(broken: type[MemoryTileStore]) -> None:
    with pytest.raises(AssertionError):
        in_memory(broken, QUICK)()


class ValkeyWithoutFence(ValkeyTileStore):
    """Forgets its fence before every batch."""

    async def apply(self, batch: TileBatch, *, group: str) -> Applied:
        await self._client.delete(self._keys.fences(group, batch.stream, batch.shard))
        return await super().apply(replace(batch, accept_gap=True, ids={}), group=group)


def on_valkey(kind: type[ValkeyTileStore], url: str, shards: int, examples: int) -> Callable[[], None]:
    @settings(QUICK, max_examples=examples)
    @given(flights=departures, steps=deliveries)
    def prove(flights: list[Departure], steps: list[Delivery]) -> None:
        async def story() -> None:
            namespace = f"property-{next(_numbers)}"
            store = kind(url, namespace, shards)
            reader = WindowReader(url, namespace, VIEWS, shards=shards)
            try:
                await tell(store, reader, flights, steps)
            finally:
                await reader.aclose()
                await store.close()

        asyncio.run(story())

    return prove


@pytest.mark.connected
@pytest.mark.parametrize("shards", [1, 2])
def test_valkey_says_what_a_recount_says(valkey_url: str, shards: int) -> None:
    on_valkey(ValkeyTileStore, valkey_url, shards, 60)()


@pytest.mark.connected
def test_a_cluster_says_what_a_recount_says(valkey_cluster_url: str) -> None:
    on_valkey(ValkeyTileStore, valkey_cluster_url, 6, 15)()


@pytest.mark.connected
def test_the_proof_notices_a_valkey_without_its_fence(valkey_url: str) -> None:
    with pytest.raises(AssertionError):
        on_valkey(ValkeyWithoutFence, valkey_url, 1, 60)()
