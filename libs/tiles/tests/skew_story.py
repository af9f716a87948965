"""Characters of the skew and explain tests: one view of departures, flights by number, and a lake of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from millstream_tiles.definition import Aggregate, Function, View
from millstream_tiles.lake import Lake, LakeBatch
from millstream_tiles.lake_schema import events_table, table_schema
from millstream_tiles.recount import Event
from millstream_tiles.service_views import ServiceView

MINUTE = 60_000_000
HOUR = 60 * MINUTE
MARCH = 1_362_096_000_000_000  # 2013-03-01
VIEW = View(
    name="departures",
    stream="flights-departed",
    keys=("origin", "gate"),
    time_field="departed_at",
    lateness=HOUR,
    event_id="flight_id",
    aggregates=(
        Aggregate(name="mean_1h", function=Function.MEAN, column="delay", window=HOUR, slide=5 * MINUTE),
        Aggregate(name="flights_3h", function=Function.COUNT, column="*", window=3 * HOUR, slide=15 * MINUTE),
    ),
)
SERVICE = ServiceView(view=VIEW, prefix="now", keys={"origin": "from", "gate": "gate"})
"""As a service has it that calls the view "now" and its origin "from"."""
SCHEMA = table_schema(
    {
        "properties": {
            "flight_id": {"type": "string"},
            "origin": {"type": "string"},
            "gate": {"type": "integer"},
            "delay": {"type": "number"},
        }
    }
)


def flight(number: int, minute: float, *, known: float | None = None, delay: float = 5.0, id: str = "") -> Event:
    """Flight `number` out of JFK, gate 7, so many minutes into March; known at once unless said otherwise."""
    at = MARCH + round(minute * MINUTE)
    columns = {"flight_id": id or f"F{number}", "origin": "JFK", "gate": 7, "delay": delay}
    known_at = at if known is None else MARCH + round(known * MINUTE)
    return Event(event_time=at, known_at=known_at, offset=number, columns=columns)


def lake_of(folder: Path, events: Sequence[Event]) -> Lake:
    lake = Lake(str(folder / "lake"))
    rows = events_table(
        SCHEMA,
        partition=0,
        offsets=[e.offset for e in events],
        event_times=[e.event_time for e in events],
        known_at=[e.known_at for e in events],
        ids=[e.columns["flight_id"] for e in events],
        events=[dict(e.columns) for e in events],
    )
    lake.append(VIEW.stream, [LakeBatch(partition=0, end=len(events), rows=rows)], group="test")
    return lake
