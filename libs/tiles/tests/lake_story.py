"""Characters of the lake's tests: departures of one stream, six hours apart, whose delay is their offset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from millstream_tiles.lake import Lake, LakeBatch
from millstream_tiles.lake_reader import read_events
from millstream_tiles.lake_schema import events_table, table_schema

DEPARTED = "flights-departed"
GROUP = "millstream-features-lake"
DAY = 86_400_000_000
EVENT = {"properties": {"flight_id": {"type": "string"}, "dep_delay": {"type": "number"}}}


def departures(
    offsets: Sequence[int], *, partition: int = 0, schema: dict[str, Any] = EVENT, apart: int = DAY // 4, **more: object
) -> LakeBatch:
    """One departure for each offset, `apart` microseconds after the one before; its delay is its offset."""
    times = [o * apart for o in offsets]
    rows = events_table(
        table_schema(schema),
        partition=partition,
        offsets=list(offsets),
        event_times=times,
        known_at=[t + 60_000_000 for t in times],
        ids=[f"p{partition}-{o}" for o in offsets],
        events=[{"flight_id": f"p{partition}-{o}", "dep_delay": float(o), **more} for o in offsets],
    )
    return LakeBatch(partition=partition, end=offsets[-1], rows=rows)


def offsets_in(lake: Lake) -> list[tuple[int, int]]:
    """(partition, offset) of every row."""
    return sorted(read_events(lake, DEPARTED, ["_partition", "_offset"]).rows())
