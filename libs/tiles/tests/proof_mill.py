"""The mill of the proof: producers, workers, a tile store and a lake, to which everything happens that may."""

from __future__ import annotations

import asyncio
import copy
import itertools
import math
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from millstream_tiles import Aggregate, EventBatch, Function, MemoryTileStore, TileWriter, View
from millstream_tiles.history import Asked, history
from millstream_tiles.lake import Lake
from millstream_tiles.lake_schema import table_schema
from millstream_tiles.memory_reader import MemoryWindowReader
from millstream_tiles.ports import Outcome
from millstream_tiles.recount import Event, recount

from .told_records import kept, told

SECOND, MINUTE, HOUR = 1_000_000, 60_000_000, 3_600_000_000
NOON = 1_362_139_200 * SECOND
STREAM, PARTITIONS, WORKERS = "departed", (0, 1), (0, 1)
ORIGINS = ["JFK", "LGA"]
SCHEMA = table_schema({"properties": {"origin": {"type": "string"}, "delay": {"type": ["number", "null"]}}})


def view(name: str, window: int, slide: int, functions: tuple[Function, ...], where: str | None = None) -> View:
    aggregates = tuple(
        Aggregate(
            name=f.value, function=f, column="delay", window=window, slide=slide, k=2 if f is Function.LAST_K else 0
        )
        for f in functions
    )
    return View(
        name=name,
        stream=STREAM,
        keys=("origin",),
        time_field="at",
        lateness=30 * MINUTE,
        event_id="flight",
        aggregates=aggregates,
        where=where,
    )


VIEWS = {
    v.name: v
    for v in (
        view("hour", HOUR, 10 * MINUTE, tuple(Function)),
        view("kept", 20 * MINUTE, 10 * MINUTE, (Function.COUNT, Function.SUM, Function.P50), "delay < 50"),
        view("long", 90 * MINUTE, 10 * SECOND, (Function.COUNT, Function.MEAN, Function.LAST_K)),
    )
}
EXACT = {f.value for f in Function} - {"sum", "mean", "var", "std"}


@dataclass
class Group:
    """A consumer group with two workers, each of which believes that it owns every partition."""

    committed: dict[int, int]
    at: dict[tuple[int, int], int]
    """(worker, partition) -> the next offset that it takes."""

    @classmethod
    def new(cls) -> Group:
        return cls(dict.fromkeys(PARTITIONS, 0), dict.fromkeys(itertools.product(WORKERS, PARTITIONS), 0))

    def restart(self, worker: int) -> None:
        """It died; its successor begins where the group committed."""
        for partition in PARTITIONS:
            self.at[worker, partition] = self.committed[partition]


class Mill(RuleBasedStateMachine):
    """Producers, workers, a tile store and a lake."""

    commits_first = False
    """The worker's mistake of one of the mutants."""

    def __init__(self) -> None:
        super().__init__()
        self.log: dict[int, list[Event]] = {p: [] for p in PARTITIONS}
        self.told: dict[str, tuple[int, float | None, str]] = {}
        self.tiles, self.keeping = Group.new(), Group.new()
        self.now = NOON
        self.home = Path(tempfile.mkdtemp(prefix="millstream-proof-"))
        self.lake = Lake(str(self.home / "lake"))
        self.store: Any = None
        self.reader: Any = None
        self.copy: Any = None

    @initialize()
    def open(self) -> None:
        self.store = self.memory()
        self.reader = MemoryWindowReader(self.store, VIEWS)

    memory: Callable[[], MemoryTileStore] = MemoryTileStore

    def teardown(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)

    def run(self, work: Any) -> Any:
        return asyncio.run(work)

    # What happens.

    @rule(
        flight=st.one_of(st.none(), st.integers(0, 6)),
        origin=st.sampled_from(ORIGINS),
        delay=st.one_of(st.none(), st.integers(-9, 99).map(float), st.floats(-1e6, 1e6)),
        partition=st.sampled_from(PARTITIONS),
        pause=st.sampled_from([0, 0, 7 * SECOND, MINUTE, 10 * MINUTE, 45 * MINUTE]),
        age=st.sampled_from([0, 0, SECOND, 4 * MINUTE, 9 * MINUTE, 10 * MINUTE, 29 * MINUTE, 31 * MINUTE, 2 * HOUR]),
    )
    def depart(
        self, flight: int | None, origin: str, delay: float | None, partition: int, pause: int, age: int
    ) -> None:
        """A flight is told: now or `age` late. Whoever tells a flight again tells the same."""
        self.now += pause
        at = self.now - age
        at -= at % SECOND if age % MINUTE else 0
        if flight is not None:
            at, delay, origin = self.told.setdefault(f"F{flight}", (at, delay, origin))
        log = self.log[partition]
        columns = {"flight": None if flight is None else f"F{flight}", "origin": origin, "delay": delay}
        log.append(Event(event_time=at, known_at=self.now, partition=partition, offset=len(log), columns=columns))

    @precondition(lambda self: self.told)
    @rule(
        which=st.integers(0, 6),
        partition=st.sampled_from(PARTITIONS),
        pause=st.sampled_from([0, 0, MINUTE, 10 * MINUTE]),
    )
    def tell_again(self, which: int, partition: int, pause: int) -> None:
        """What `depart` does too, now and then: most of what can go wrong with ids needs a repetition soon after."""
        flight = list(self.told)[which % len(self.told)]
        self.depart(flight=int(flight[1:]), origin="", delay=None, partition=partition, pause=pause, age=0)

    @rule(
        worker=st.sampled_from(WORKERS),
        partition=st.sampled_from(PARTITIONS),
        size=st.integers(1, 5),
        dies=st.sampled_from([None, "before", "between", "after"]),
    )
    def apply(self, worker: int, partition: int, size: int, dies: str | None) -> None:
        """A worker takes a batch into the tiles; it may die before, between apply and commit, or after."""
        group, first = self.tiles, self.tiles.at[worker, partition]
        events = self.log[partition][first : first + size]
        if not events:
            return
        if self.commits_first:
            group.committed[partition] = first + len(events)
        if dies == "before":
            group.restart(worker)
            return
        writer = TileWriter(self.store, VIEWS.values(), "tiles")
        found = self.run(writer.write(batch_of(events), accept_gap=self.commits_first))
        if found.outcome is Outcome.BEHIND:
            group.at[worker, partition] = found.fence + 1
            return
        group.at[worker, partition] = first + len(events)
        if dies != "between":
            group.committed[partition] = group.at[worker, partition]
        if dies is not None:
            group.restart(worker)

    @rule(
        worker=st.sampled_from(WORKERS),
        partition=st.sampled_from(PARTITIONS),
        size=st.integers(1, 9),
        dies=st.sampled_from([None, None, "between"]),
    )
    def keep(self, worker: int, partition: int, size: int, dies: str | None) -> None:
        """A worker appends a batch to the lake; one that starts asks the lake where to begin."""
        group, first = self.keeping, self.keeping.at[worker, partition]
        events = self.log[partition][first : first + size]
        if events:
            self.append(events)
            group.at[worker, partition] = first + len(events)
        if dies:
            has = self.lake.positions(STREAM, "lake", PARTITIONS)
            for p in PARTITIONS:
                group.at[worker, p] = has.get(p, -1) + 1

    @precondition(lambda self: self.store is not None)
    @rule(what=st.sampled_from(["everything", "since the copy"]))
    def lose(self, what: str) -> None:
        """The store loses what it held, fences and all, wholly or back to the copy."""
        self.restore(self.copy if what == "since the copy" else None)

    @precondition(lambda self: self.store is not None)
    @rule()
    def take_a_copy(self) -> None:
        self.copy = copy.deepcopy(vars(self.store))

    def restore(self, state: Any) -> None:
        vars(self.store).clear()
        vars(self.store).update(copy.deepcopy(state) if state else vars(self.memory()))

    # What must hold.

    def applied(self) -> list[Event]:
        """What lies at or behind the fences."""
        fences = {p: self.run(self.store.fence("tiles", STREAM, p)) for p in PARTITIONS}
        return [e for p, fence in fences.items() if fence for e in self.log[p][: fence.offset + 1]]

    @precondition(lambda self: self.store is not None)
    @invariant()
    def tiles_say_what_a_recount_of_what_was_applied_says(self) -> None:
        applied = self.applied()
        newest = max((e.known_at for e in applied), default=self.now)
        self.compare_online(applied, newest)

    @precondition(lambda self: self.store is not None)
    @rule(ahead=st.sampled_from([0, 1, 10 * MINUTE, 61 * MINUTE]))
    def all_is_told(self, ahead: int) -> None:
        """Both groups catch up, and all three sides agree, now and about the past."""
        for partition in PARTITIONS:
            while (fence := self.run(self.store.fence("tiles", STREAM, partition))) is None or (
                fence.offset + 1 < len(self.log[partition])
            ):
                before = self.tiles.at[0, partition]
                if not self.log[partition][before:]:
                    if not self.log[partition]:
                        break
                    # It stands at the end and the store does not: its next record will be told to come back.
                    self.tiles.at[0, partition] = (fence.offset if fence else -1) + 1
                self.apply(0, partition, 50, None)
            kept = self.lake.positions(STREAM, "lake", [partition]).get(partition, -1)
            if self.log[partition][kept + 1 :]:
                self.append(self.log[partition][kept + 1 :])
        every = [e for log in self.log.values() for e in log]
        t = max((e.known_at for e in every), default=self.now) + ahead
        self.compare_online(every, t)
        self.compare_offline(
            every, sorted({t, *(e.known_at for e in every[-6:]), *(e.known_at - 1 for e in every[-6:])})
        )

    def compare_online(self, events: list[Event], t: int) -> None:
        answers = self.reader.read([(name, {"origin": ORIGINS}) for name in VIEWS], t)
        for one, values in zip(VIEWS.values(), answers, strict=True):
            for row, origin in enumerate(ORIGINS):
                self.check(one, events, origin, t, {name: column[row] for name, column in values.items()})

    def compare_offline(self, events: list[Event], times: list[int]) -> None:
        if not events:
            return
        asked = list(itertools.product(ORIGINS, times))
        keys = pl.DataFrame({"origin": [o for o, _ in asked]})
        t = np.array([t for _, t in asked])
        answers = history(self.lake, [Asked(view=v, keys=keys) for v in VIEWS.values()], t)
        for one, values in zip(VIEWS.values(), answers, strict=True):
            for row, (origin, at) in enumerate(asked):
                self.check(one, events, origin, at, {name: column[row] for name, column in values.items()})

    def check(self, one: View, events: list[Event], origin: str, t: int, found: dict[str, Any]) -> None:
        largest = max((abs(d) for e in events if isinstance(d := e.columns["delay"], float)), default=1.0)
        for name, expected in recount(one, events, (origin,), t).items():
            value = found[name].tolist()
            where = (one.name, name, origin, t, value, expected)
            if name == "last_k":
                assert [v for v in value if not math.isnan(v)] == (expected or []), where
            elif expected is None:
                assert math.isnan(value), where
            elif name in EXACT:
                assert value == expected, where
            else:
                assert math.isclose(value, expected, rel_tol=1e-9, abs_tol=1e-9 * max(1.0, largest)), where

    def append(self, events: list[Event]) -> None:
        self.lake.append(STREAM, [kept(SCHEMA, events, id="flight")], group="lake")


def batch_of(events: list[Event]) -> EventBatch:
    return told(STREAM, events, id="flight")


SHORT = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)
LONG = settings(SHORT, max_examples=1_500, stateful_step_count=60, derandomize=False)
MUTANT = settings(SHORT, max_examples=4_000, phases=[Phase.generate], report_multiple_bugs=False)
"""The first failure is enough, and is not made small. It comes within some 300 examples; which are tried depends on the
modules that happen to be loaded, whose constants Hypothesis tries too."""
