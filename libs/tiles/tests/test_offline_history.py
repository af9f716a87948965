"""History from the lake is the recount of what was sent, whatever the chunks, views and partitions."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from millstream_tiles.chunks import DailyCounts, Limits, chunks
from millstream_tiles.definition import Aggregate, Function, View
from millstream_tiles.history import Asked, _Source, history
from millstream_tiles.lake import Lake, LakeBatch
from millstream_tiles.lake_schema import events_table, table_schema
from millstream_tiles.recount import Event, recount

MINUTE = 60_000_000
HOUR = 60 * MINUTE
MARCH = 1_362_096_000_000_000  # 2013-03-01
SCHEMA = table_schema(
    {
        "properties": {
            "flight_id": {"type": "string"},
            "origin": {"type": "string"},
            "gate": {"type": "integer"},
            "dep_delay": {"type": "number"},
        }
    }
)


def view(name: str, keys: tuple[str, ...], *aggregates: tuple[Function, str, int, int]) -> View:
    return View(
        name=name,
        stream="flights-departed",
        keys=keys,
        time_field="departed_at",
        lateness=2 * HOUR,
        event_id="flight_id",
        aggregates=tuple(
            Aggregate(name=f"{function}_{column}", function=function, column=column, window=window, slide=slide)
            for function, column, window, slide in aggregates
        ),
    )


VIEWS = [
    view("by_origin", ("origin",), (Function.COUNT, "*", HOUR, 10 * MINUTE), (Function.STD, "dep_delay", HOUR, HOUR)),
    view("by_gate", ("origin", "gate"), (Function.LAST, "dep_delay", 24 * HOUR, HOUR)),
    view("first", ("origin",), (Function.FIRST, "dep_delay", HOUR, HOUR), (Function.VAR, "dep_delay", HOUR, HOUR)),
]
SKETCHED = (Function.COUNT_DISTINCT, "flight_id", 24 * HOUR, HOUR), (Function.P50, "dep_delay", 24 * HOUR, HOUR)
VIEWS += [replace(view("delayed", ("gate",), *SKETCHED), where="dep_delay > 0")]


def a_week_of_departures(rng: random.Random) -> list[Event]:
    """Three partitions, out of order, one in ten a copy of an earlier one, some late."""
    events: list[Event] = []
    for i in range(1500):
        if events and rng.random() < 0.1:
            copied = rng.choice(events[-50:])
            known, columns, at = copied.known_at + rng.choice([0, 5 * MINUTE]), copied.columns, copied.event_time
        else:
            at = MARCH + rng.randrange(7 * 24 * 60) * MINUTE
            known = at + rng.choice([0, 0, 3 * MINUTE, 90 * MINUTE, 130 * MINUTE])
            columns = {
                "flight_id": f"f{i}",
                "origin": rng.choice(["EWR", "JFK", None]),
                "gate": rng.choice([1, 2]),
                "dep_delay": rng.choice([None, rng.gauss(10, 40)]),
            }
        events.append(Event(event_time=at, known_at=known, partition=i % 3, offset=i // 3, columns=columns))
    return events


def append(lake: Lake, events: list[Event]) -> None:
    batches = []
    for partition in range(3):
        mine = [e for e in events if e.partition == partition]
        table = events_table(
            SCHEMA,
            partition=partition,
            offsets=[e.offset for e in mine],
            event_times=[e.event_time for e in mine],
            known_at=[e.known_at for e in mine],
            ids=[e.columns["flight_id"] for e in mine],
            events=[e.columns for e in mine],
        )
        batches.append(LakeBatch(partition=partition, end=mine[-1].offset, rows=table))
    lake.append("flights-departed", batches, group="lake")


LIMITS = {
    "at once": Limits(questions=10_000),
    "a few questions": Limits(questions=7),
    "a few events": Limits(questions=10_000, events=100),
}


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
@pytest.mark.parametrize("by_id", [True, False], ids=["by id", "every record"])
def test_a_week_of_questions_is_what_a_recount_says(
    tmp_path: Path, limits: Limits, by_id: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[int] = []
    read_part = _Source.read_part
    monkeypatch.setattr(_Source, "read_part", lambda *asked: parts.append(asked[3]) or read_part(*asked))
    views = VIEWS if by_id else [replace(one, event_id=None) for one in VIEWS]
    rng = random.Random(3)
    events = a_week_of_departures(rng)
    lake = Lake(str(tmp_path / "lake"))
    append(lake, events)
    t = np.array([MARCH + rng.randrange(8 * 24 * HOUR) for _ in range(60)], dtype=np.int64)
    origins = [rng.choice(["EWR", "JFK", "LGA", None]) for _ in t]
    gates = [rng.choice([1, 2]) for _ in t]
    keys = {name: pl.DataFrame({"origin": origins}) for name in ("by_origin", "first")}
    keys |= {"by_gate": pl.DataFrame({"origin": origins, "gate": gates}), "delayed": pl.DataFrame({"gate": gates})}
    answers = history(lake, [Asked(view=v, keys=keys[v.name]) for v in views], t, limits=limits)
    assert bool(parts) == (limits.events == 100)
    for one, values in zip(views, answers, strict=True):
        for row, key in enumerate(keys[one.name].rows()):
            for name, expected in recount(one, events, key, int(t[row])).items():
                found = float(values[name][row])
                assert found == pytest.approx(float("nan") if expected is None else expected, rel=1e-9, nan_ok=True)


def test_a_chunk_ends_at_its_events_or_questions_and_is_no_shorter_than_its_lead() -> None:
    day = 24 * HOUR
    counts = DailyCounts({date(1970, 1, 1): 1000, date(1970, 1, 2): 1000, date(1970, 1, 4): 4000})
    t = np.arange(0, 4 * day, HOUR, dtype=np.int64)
    assert counts.before(np.array([-day, day // 2, 2 * day, 9 * day])).tolist() == [0, 500, 2000, 6000]
    assert (counts.at_most(HOUR, 2 * HOUR), counts.at_most(day - 1, day + 1)) == (1000, 2000)

    def hours(lead: int, questions: int, events: int) -> list[int]:
        found = list(chunks(t, lead, counts, Limits(questions=questions, events=events)))
        assert [s.start for s in found] == [0, *(s.stop for s in found[:-1])]
        return [s.stop - s.start for s in found]

    assert hours(HOUR, 1000, 10_000) == [96]
    assert hours(HOUR, 40, 10_000) == [40, 40, 16]
    assert hours(0, 1000, 2000) == [73, 13, 10]  # two days and the empty one, then two halves of the busy one
    assert hours(48 * HOUR, 1000, 1) == [49, 47]  # the lead is long: passes must help
