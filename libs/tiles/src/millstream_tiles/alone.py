"""The value of one aggregate over exactly the events that one names: the naive recount without any rule of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from millstream_tiles.definition import Aggregate, View
from millstream_tiles.recount import Event, Value, recount

EVER = 2**62
"""A lateness that nothing exceeds (microseconds)."""


def value_of(view: View, aggregate: Aggregate, events: Iterable[Event], key: Sequence[object], t: int) -> Value:
    """`aggregate` of `key` at `t` as if all of `events` counted: known, on time, and each for itself.

    What lies outside of the window does not count, and neither does what the view itself leaves out (a null key, its filter).
    """
    lenient = replace(view, aggregates=(aggregate,), event_id=None, lateness=EVER)
    known = (replace(event, known_at=min(event.known_at, t)) for event in events)
    return recount(lenient, known, tuple(key), t)[aggregate.name]


def tile_values(
    view: View, aggregate: Aggregate, events: Sequence[Event], key: Sequence[object], tiles: Iterable[int]
) -> dict[int, Value]:
    """The value of each of `tiles` alone, as if the window were that one tile."""
    of_tile: dict[int, list[Event]] = {tile: [] for tile in tiles}
    for event in events:
        if event.event_time // aggregate.slide in of_tile:
            of_tile[event.event_time // aggregate.slide].append(event)
    narrow = replace(aggregate, window=aggregate.slide)
    # At the tile's last microsecond, so that no event of it lies behind the question.
    return {k: value_of(view, narrow, found, key, (k + 1) * aggregate.slide - 1) for k, found in of_tile.items()}
