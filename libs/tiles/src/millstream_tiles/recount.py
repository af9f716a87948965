"""The naive recount: a windowed feature by plain loops over every event, the judge of both the online and offline side.

Slow on purpose. It shares nothing with the tiles or the join but the definition (and what a sketch says of one value), so a
mistake in one of them shows as a difference here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from millstream_tiles.definition import LARGEST, Aggregate, Function, View
from millstream_tiles.filters import lets_through
from millstream_tiles.keys import key_text
from millstream_tiles.sketches import distinct_counts, distinct_of, percentiles, spread_slots


@dataclass(frozen=True, kw_only=True)
class Event:
    """One record of a stream. Times in microseconds; `columns` holds everything that the event said."""

    event_time: int
    known_at: int
    partition: int = 0
    offset: int = 0
    columns: Mapping[str, object] = field(default_factory=dict)


Value = float | int | list[float] | None


def recount(view: View, events: Iterable[Event], key: tuple[object, ...], t: int) -> dict[str, Value]:
    """The value of every aggregate of `view` for `key`, as known at `t`. `key` follows `view.keys`."""
    wanted = tuple(key_text(part) for part in key)
    mine = []
    for event in countable(view, events):
        found = tuple(key_text(event.columns.get(k)) for k in view.keys)
        if found == wanted and None not in found and event.known_at <= t:
            mine.append(event)
    return {aggregate.name: _value(aggregate, mine, t) for aggregate in view.aggregates}


def countable(view: View, events: Iterable[Event]) -> list[Event]:
    """The events that may enter a window: those that were not late, and of these the first of each event id."""
    seen = set()
    kept = []
    for event in sorted(events, key=lambda e: (e.known_at, e.partition, e.offset)):
        if view.is_late(event.event_time, event.known_at):
            continue
        event_id = event.columns.get(view.event_id) if view.event_id else None
        if event_id is not None:
            if event_id in seen:
                continue
            seen.add(event_id)
        if view.where is None or lets_through(view.where, dict(event.columns)):
            kept.append(event)
    return kept


def _value(aggregate: Aggregate, events: list[Event], t: int) -> Value:
    oldest, newest = aggregate.tile_range(t)
    visible = [e for e in events if oldest <= e.event_time // aggregate.slide <= newest]
    if aggregate.function is Function.COUNT:
        if aggregate.column in ("", "*"):
            return len(visible)
        return sum(1 for e in visible if _has_value(e.columns.get(aggregate.column)))
    if aggregate.function is Function.COUNT_DISTINCT:
        return _distinct([e.columns.get(aggregate.column) for e in visible])

    pairs = []
    for event in visible:
        number = _number(event.columns.get(aggregate.column))
        if number is not None:
            pairs.append((event.event_time, number))
    values = [number for _, number in pairs]
    if aggregate.function is Function.SUM:
        return math.fsum(values)
    if not values:
        return None
    if aggregate.function is Function.MEAN:
        return math.fsum(values) / len(values)
    if aggregate.function is Function.MIN:
        return min(values)
    if aggregate.function is Function.MAX:
        return max(values)
    if aggregate.function is Function.FIRST:
        return min(pairs)[1]
    if aggregate.function is Function.LAST:
        return max(pairs)[1]
    if aggregate.function is Function.LAST_K:
        return [number for _, number in sorted(pairs, reverse=True)[: aggregate.k]]
    if aggregate.function.quantile is not None:
        return _percentile(values, aggregate.function.quantile)
    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
    return math.sqrt(variance) if aggregate.function is Function.STD else variance


def _distinct(values: list[object]) -> int:
    """From the set of registers that the values reach, one after the other."""
    registers: dict[int, int] = {}
    for value in values:
        found = None if isinstance(value, list | dict) else distinct_of(value)
        if found is not None:
            registers[found[0]] = max(found[1], registers.get(found[0], 0))
    ranks = np.array(list(registers.values()), dtype=np.float64)
    return int(distinct_counts(np.zeros(len(ranks), dtype=np.int64), ranks, 1)[0])


def _percentile(values: list[float], quantile: float) -> float:
    """What the sketch says of the very value that stands at the rank: buckets keep the order of the values."""
    at_rank = sorted(values)[math.floor(quantile * (len(values) - 1))]
    slot = spread_slots(np.array([at_rank]))
    one = np.ones(1)
    return float(percentiles(np.zeros(1, dtype=np.int64), slot, one, 1, quantile)[0])


def _has_value(value: object) -> bool:
    return value is not None and value == value  # NaN is not equal to itself


def _number(value: object) -> float | None:
    if isinstance(value, int | float) and -LARGEST <= value <= LARGEST:
        return float(value)
    return None
