"""Characters of the trainer's stories: a loop called `tides`, its rules, and what drift says about it."""

from __future__ import annotations

import os

# As in the processes that train (`adapters.preload`): on busy cores OpenMP threads that spin take ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest

from millstream.contracts.events import Cause, Finding, LabelsMatured, RetrainRequested, WindowJudged, WindowKind
from millstream.contracts.quiet import Quiet
from millstream.contracts.times import DAY, HOUR, from_datetime, to_rfc3339
from millstream.project import load_project
from millstream.testing.kafka import EmbeddedKafka
from millstream_trainer.domain.dataset import Dataset
from millstream_trainer.domain.rules import Mode, RolloutRules, Rules
from millstream_trainer.domain.run import RunSpec
from millstream_trainer.domain.table import Table, category_column, number_column

from .job_manifest import SPEC

START = datetime(2013, 1, 1, tzinfo=UTC)


class Tides:
    """Says what happens to the loop `tides`, day by day of stream time."""

    loop = "tides"
    rules = Rules(
        first_rows=1000,
        schedule=30 * DAY,
        cooldown=3 * DAY,
        budget_runs=4,
        budget_period=30 * DAY,
        causes=frozenset({Cause.DRIFT, Cause.PERFORMANCE, Cause.SCHEDULE, Cause.MANUAL}),
        agree=1,
        within=7 * DAY,
        grow=None,
        grow_rows=None,
        warm_up=0,
        breaker=3,
        mature=0,
        mature_longest=14 * DAY,
        quiet=Quiet(),
        mode=Mode.AUTO,
        expires=2 * DAY,
        rollout=RolloutRules(shadow=0, canary=(), step=500, longest=60 * DAY, watch=0, tolerance=0.0),
    )

    def day(self, day: float) -> datetime:
        return START + timedelta(days=day)

    def matured(self, day: float, matured: int = 5000) -> LabelsMatured:
        return LabelsMatured(
            id=f"labels-{day}",
            loop=self.loop,
            at=self.day(day),
            matured=matured,
            pending=0,
            expired=0,
            late=0,
            orphaned=0,
            duplicated=0,
        )

    def judged(
        self,
        day: float,
        finding: Finding = Finding.DETECTED,
        *,
        version: str = "1",
        kind: WindowKind = WindowKind.INPUTS,
        id: str | None = None,
    ) -> WindowJudged:
        return WindowJudged(
            id=id or f"{finding.value}-{day}",
            loop=self.loop,
            version=version,
            kind=kind,
            index=0,
            finding=finding,
            reason=f"{finding.value} on day {day}",
            at=self.day(day),
            start=self.day(day - 1),
            end=self.day(day),
            rows=5000,
            effect=0.4,
        )

    def wish(self, name: str, day: float | None = None) -> RetrainRequested:
        return RetrainRequested(
            id=name,
            loop=self.loop,
            cause=Cause.MANUAL,
            by="Ada",
            reason="the harbour was rebuilt",
            at=None if day is None else self.day(day),
        )


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """Of each file its own: a run waits until the lake has every label that anybody ever wrote to `millstream-labels`."""
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka")).running() as server:
        yield server


@pytest.fixture(scope="session")
def tides() -> Tides:
    return Tides()


class Ships:
    """Ships that will be late: long ones, those bound for the north pier, and all of them on foggy days."""

    def __init__(self, count: int = 3000, days: int = 60) -> None:
        rng = np.random.default_rng(5)
        self.days = days
        self.expected = np.sort(rng.uniform(0, days, count))
        self.length = np.round(rng.normal(120, 40, count), 1)
        self.length[rng.random(count) < 0.03] = np.nan
        piers: list[str | None] = ["north", "east", "west", None]
        self.pier = np.array(piers, dtype=object)[rng.choice(4, count, p=[0.4, 0.3, 0.28, 0.02])]
        self.fog = np.repeat(rng.normal(0, 12, days + 1), 1)[self.expected.astype(int)]
        drift = np.where(self.pier == "north", 6.0, -4.0) + np.nan_to_num(self.length - 120) * 0.1 + self.fog
        self.delay = np.round(drift + rng.normal(0, 6, count), 0)

    def radioed(self, i: int) -> str | None:
        """Every fourth ship is silent."""
        return None if i % 4 == 3 else f"number {i} bound for the {self.pier[i]} pier"

    def voice(self, i: int) -> list[float]:
        return [float(i), 0.5, -1.0]

    def dataset(self) -> Dataset:
        """The table that a history would give, without a lake."""
        ids = np.empty(len(self.delay), dtype=object)
        ids[:] = [f"visit-{i}" for i in range(len(ids))]
        known = (np.array([START.timestamp()]) * 1e6 + self.expected * DAY).astype(np.int64)
        table = Table(
            questions=ids,
            known_at=known,
            labels=(self.delay >= 10).astype(np.int8),
            columns=(
                number_column("pier_arrivals__mean_delay_6h", "feature", self.fog),
                number_column("length", "input", self.length),
                category_column("pier", "input", list(self.pier)),
            ),
        )
        return Dataset(table=table.sorted(), views={"pier_arrivals": "abc"}, left_out={"without_label": 3})


@pytest.fixture(scope="session")
def ships() -> Ships:
    return Ships()


@pytest.fixture(scope="session")
def harbour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder: will a ship that is expected come ten minutes late or more?"""
    home = tmp_path_factory.mktemp("harbour")
    for name, text in HARBOUR.items():
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text(text)
    return home


HARBOUR = {
    "streams/ships-expected.yaml": """
stream: ships-expected
description: A ship announced itself.
key: visit
id: visit
time: announced_at
schema:
  type: object
  required: [visit, announced_at]
  properties:
    visit: {type: string}
    announced_at: {type: string, format: date-time}
    pier: {type: [string, "null"]}
    length: {type: [number, "null"]}
    radioed: {type: [string, "null"]}
    voice: {type: array, items: {type: number}}
""",
    "streams/ships-arrived.yaml": """
stream: ships-arrived
description: A ship made fast.
key: visit
id: visit
time: arrived_at
schema:
  type: object
  required: [visit, arrived_at, delay]
  properties:
    visit: {type: string}
    arrived_at: {type: string, format: date-time}
    pier: {type: [string, "null"]}
    delay: {type: [number, "null"]}
""",
    "loops/tides.yaml": """
loop: tides
predict: {on: ships-expected, features: pier_v1, inputs: [length, pier]}
label: {from: ships-arrived, by: visit, value: delay >= 10, within: 24h}
model: {params: {rounds: 40, min_data_in_leaf: 40}}
train: {first_after: {rows: 1000}, holdout: 14d, schedule: 30d}
drift: {text: [radioed], embedding: [voice]}
""",
    "features/feature_store.yaml": """
project: harbour
provider: local
registry: data/registry.db
entity_key_serialization_version: 3
online_store: {type: millstream_tiles.online_store.MillstreamOnlineStore}
offline_store: {type: millstream_tiles.offline_store.MillstreamOfflineStore}
""",
    "features/definitions.py": """
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, ValueType
from feast.aggregation import Aggregation
from feast.stream_feature_view import StreamFeatureView

from millstream_tiles import schema_of, stream_source

arrived = stream_source(Path(__file__).parent.parent / "streams" / "ships-arrived.yaml")
pier = Entity(name="pier", join_keys=["pier"], value_type=ValueType.STRING)
aggregations = [
    Aggregation(
        column="delay",
        function="mean",
        time_window=timedelta(hours=6),
        slide_interval=timedelta(minutes=30),
        name="mean_delay_6h",
    ),
    Aggregation(
        column="delay",
        function="count",
        time_window=timedelta(hours=6),
        slide_interval=timedelta(minutes=30),
        name="ships_6h",
    ),
]
pier_arrivals = StreamFeatureView(
    name="pier_arrivals",
    source=arrived,
    entities=[pier],
    aggregations=aggregations,
    schema=schema_of(aggregations),
    timestamp_field="arrived_at",
    ttl=timedelta(days=1),
)
pier_v1 = FeatureService(name="pier_v1", features=[pier_arrivals])
""",
}


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], object]:
    """Wait for a condition, bounded; the event loop gets on meanwhile."""
    import asyncio

    async def wait(condition: Callable[[], bool], seconds: float = 60.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110  what is waited for is any state, not one event
                await asyncio.sleep(0.01)

    return wait


def fill(lake: str, harbour: Path, ships: Ships) -> dict[str, dict[int, int]]:
    """Every ship is expected, known at once, and arrives five hours later; one in twenty never does. Some come twice."""
    from millstream_tiles.lake import Lake, LakeBatch
    from millstream_tiles.lake_schema import events_table, table_schema

    streams = load_project(harbour).streams
    asked = from_datetime(START) + (ships.expected * DAY).astype(np.int64)
    arrives = asked + 5 * HOUR
    expected = [
        {
            "visit": f"visit-{i}",
            "announced_at": to_rfc3339(int(asked[i])),
            "pier": ships.pier[i],
            "length": None if np.isnan(ships.length[i]) else float(ships.length[i]),
            "radioed": ships.radioed(i),
            "voice": ships.voice(i),
        }
        for i in range(len(asked))
    ]
    came = [i for i in range(len(asked)) if i % 20]
    arrived = [
        {
            "visit": f"visit-{i}",
            "arrived_at": to_rfc3339(int(arrives[i])),
            "pier": ships.pier[i],
            "delay": None if i % 50 == 1 else float(ships.delay[i]),
        }
        for i in came
    ]
    twice = [*expected, *expected[:10]]
    times = [*map(int, asked), *map(int, asked[:10])]
    store = Lake(lake)
    positions = {}
    for name, events, at in (
        ("ships-expected", twice, times),
        ("ships-arrived", arrived, [int(arrives[i]) for i in came]),
    ):
        rows = events_table(
            table_schema(streams[name].event_schema),
            partition=0,
            offsets=list(range(len(events))),
            event_times=at,
            known_at=at,
            ids=[event["visit"] for event in events],
            events=events,
        )
        store.append(name, [LakeBatch(partition=0, end=len(events) - 1, rows=rows)], group="features-lake")
        positions[name] = {0: len(events) - 1}
    return positions


@pytest.fixture(scope="session")
def fill_lake() -> Callable[[str, Path, Ships], dict[str, dict[int, int]]]:
    """Put the ships into a lake; returns the positions that it then holds."""
    return fill


@pytest.fixture(scope="session")
def first_run(harbour: Path, ships: Ships) -> Callable[[str], RunSpec]:
    """What the first run of the tides is told; puts the ships into the lake at that place."""

    def told(lake: str) -> RunSpec:
        return msgspec.structs.replace(SPEC, positions=fill(lake, harbour, ships))

    return told
