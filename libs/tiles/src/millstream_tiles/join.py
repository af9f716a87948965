"""The point-in-time join: what every windowed feature of a view was at each question's time, computed from raw events.

For each (key, slide, window) the events of a question are one contiguous range of the events sorted by (key, event time).
Which of those were known at `t` is a second, independent condition. A forest of blocks answers both at once: the range is
covered by at most two blocks of each size 1, 2, 4, ...; each block is sorted by known-at and carries running aggregates in
that order, so one look gives the part of the block that was known at `t` (the merge-sort tree of de Berg et al.,
Computational Geometry, section 5.3, walked one level at a time with NumPy). Nothing is ever subtracted: a huge value in
one window cannot spoil the digits of another, and minimum, maximum and last cost the same as a sum.

Cost: O((events + distinct questions) * log(longest window in events)). Memory: about 8 bytes * (6 + 3 per aggregate) per
event and per question of one call; the offline store calls it with chunks of questions and the events of their time range.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import polars as pl

from millstream_tiles.definition import Aggregate, Function, View
from millstream_tiles.join_events import EVENT_TIME, KNOWN_AT, countable, every_event, let_through, numbers, present
from millstream_tiles.join_forest import Bools, Floats, Ints, Measure, Span, walk
from millstream_tiles.join_keys import by_code_and_time, key_codes
from millstream_tiles.join_latest import latest_values
from millstream_tiles.join_measures import (
    Count,
    Deviation,
    Extreme,
    First,
    Last,
    Mean,
    Moments,
    Ranks,
    Running,
    Sum,
    Variance,
    adding,
    counting,
    furthest,
)
from millstream_tiles.join_sketches import TileSlots
from millstream_tiles.layout import sketch_of
from millstream_tiles.sketches import distinct_counts, distinct_entries, percentiles, spread_slots

Features = Mapping[str, Floats | Ints]
R = TypeVar("R")
LARGEST_PLACE = 2**62
"""Places stay below it, so that they fit an int64."""


def windowed_values(view: View, events: pl.DataFrame, keys: pl.DataFrame, t: Ints) -> dict[str, Floats | Ints]:
    """Every aggregate of `view` for each question (a row of `keys` at the same row of `t`), in the questions' order.

    `events` has the columns of `columns_of(view)`, its times as datetimes or int64 microseconds; rows in any order, late
    and repeated ones included. `keys` has one column per join key (a view without keys needs none), `t` is int64
    microseconds: "as known at t". A null key asks about no event.

    Counts are int64, everything else float64 with NaN for null (`last_k`: k columns). Raises KeyError naming a column that is
    missing.
    """
    return values_of(view, countable(view, events), keys, t)


def values_of(view: View, usable: pl.DataFrame, keys: pl.DataFrame, t: Ints) -> dict[str, Floats | Ints]:
    """`windowed_values` over events that are `countable` for the view already (it may share them with other views)."""
    t = np.ascontiguousarray(t, dtype=np.int64)
    usable = let_through(view, usable)
    if view.keys and len(keys) != len(t):
        raise ValueError(f"{view.name}: {len(keys)} keys but {len(t)} times; each question needs both")
    if view.keys:
        event_codes, question_codes = key_codes(view, usable, keys)
    else:
        event_codes, question_codes = np.zeros(len(usable), dtype=np.int64), np.zeros(len(t), dtype=np.int64)

    order = by_code_and_time(question_codes, t)
    codes, times = question_codes[order], t[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (codes[1:] != codes[:-1]) | (times[1:] != times[:-1])
    # Ticks and batches ask the same question many times; each distinct one is answered once.
    distinct = np.flatnonzero(first)
    known_keys = int(np.max(question_codes, initial=0)) + 1
    answers = _Join(view, usable, event_codes, known_keys).answer(codes[distinct], times[distinct])

    answer_of = np.cumsum(first) - 1
    values: dict[str, Floats | Ints] = {}
    for aggregate in view.aggregates:
        column = nothing(aggregate, len(t))
        column[order] = answers[aggregate.name][answer_of]
        values[aggregate.name] = column
    return values


def nothing(aggregate: Aggregate, n: int) -> Floats | Ints:
    """The values of `n` empty windows."""
    if aggregate.function.counts:
        return np.zeros(n, dtype=np.int64)
    if aggregate.function is Function.LAST_K:
        return np.full((n, aggregate.k), np.nan)
    return np.full(n, 0.0 if aggregate.function is Function.SUM else np.nan)


class _Sorted:
    """A view's events in (key, event time) order, with positions found by binary search."""

    def __init__(self, codes: Ints, when: Ints, keys: int) -> None:
        """`codes` (all below `keys`) and `when` of the events, in that order."""
        self._first, last = (int(when.min()), int(when.max())) if len(when) else (0, 0)
        self._ranked: Ints | None = None
        ticks, self._ticks = when - self._first, last - self._first + 2
        if keys * self._ticks > LARGEST_PLACE:
            # Decades of microseconds for millions of keys: the times are counted instead, which costs a search more.
            self._ranked, ticks = np.unique(when, return_inverse=True)
            self._ticks = len(self._ranked) + 1
        self.places: Ints = codes * self._ticks + ticks
        """Key and event time as one int64, ascending."""

    def position(self, codes: Ints, at: Ints) -> Ints:
        """Position of the first event of each key with event time >= `at`."""
        ticks = (
            np.clip(at - self._first, 0, self._ticks - 1) if self._ranked is None else np.searchsorted(self._ranked, at)
        )
        return np.searchsorted(self.places, codes * self._ticks + ticks)


class _Join:
    """One view's events, ready to answer questions about distinct, sorted (key, time) pairs."""

    def __init__(self, view: View, events: pl.DataFrame, codes: Ints, keys: int) -> None:
        when = events[EVENT_TIME].to_numpy()
        order = by_code_and_time(codes, when)
        self._view = view
        self._known = events[KNOWN_AT].to_numpy()[order]
        self._when = when[order]
        self._codes = codes[order]
        self._sorted = _Sorted(codes[order], when[order], keys)
        self._raw = {
            a.column: events[a.column][order] for a in view.aggregates if a.function is Function.COUNT_DISTINCT
        }
        self._numbers = {a.column: numbers(events, a.column)[order] for a in view.aggregates if not a.function.counts}
        self._present = {a.column: _present(events, a.column)[order] for a in view.aggregates if _counts(a)}
        self._in_order = bool(np.all(self._known >= self._when))

    def answer(self, codes: Ints, t: Ints) -> dict[str, Floats | Ints]:
        """One value per (code, t) and aggregate; both ascending by (code, t)."""
        self._runs: dict[tuple[str, str], Any] = {}
        spans: dict[tuple[int, int], Span] = {}
        measures: dict[str, Measure] = {}
        others: dict[str, Floats | Ints] = {}
        for aggregate in self._view.aggregates:
            if sketch_of(aggregate):
                others[aggregate.name] = self._sketched(aggregate, codes, t)
                continue
            shape = (aggregate.window, aggregate.slide)
            if shape not in spans:
                newest = t // aggregate.slide
                start = self._sorted.position(codes, (newest - aggregate.tiles + 1) * aggregate.slide)
                # Events known before they happened (clock skew) still count in the newest tile; usually there are none.
                end = (
                    np.minimum(t + 1, (newest + 1) * aggregate.slide)
                    if self._in_order
                    else (newest + 1) * aggregate.slide
                )
                spans[shape] = Span(start, self._sorted.position(codes, end), t)
            if aggregate.function is Function.LAST_K:
                column, places = self._numbers[aggregate.column], self._sorted.places
                others[aggregate.name] = latest_values(column, places, self._known, spans[shape], aggregate.k)
                continue
            measures[aggregate.name] = self._measure(aggregate, len(t))
            spans[shape].measures.append(measures[aggregate.name])
        if measures:
            walk(self._known, list(spans.values()))
        return others | {name: measure.values() for name, measure in measures.items()}

    def _sketched(self, aggregate: Aggregate, codes: Ints, t: Ints) -> Floats | Ints:
        """Distinct values or a percentile, from the slots that each question's tiles fill."""
        newest = t // aggregate.slide
        start = self._sorted.position(codes, (newest - aggregate.tiles + 1) * aggregate.slide)
        end = self._sorted.position(codes, (newest + 1) * aggregate.slide)
        values, quantile = nothing(aggregate, len(t)), aggregate.function.quantile
        held = self._shared(
            f"slots {aggregate.slide} {quantile is None}", aggregate.column, lambda: self._slots(aggregate)
        )
        for questions, owner, slots, said in held.answers(start, end, t):
            if quantile is None:
                values[questions] = distinct_counts(owner, said, len(questions))
            else:
                values[questions] = percentiles(owner, slots, said, len(questions), quantile)
        return values

    def _slots(self, aggregate: Aggregate) -> TileSlots:
        tiles = self._when // aggregate.slide
        if aggregate.function is Function.COUNT_DISTINCT:
            slots, said = distinct_entries(self._raw[aggregate.column].to_list())
            return TileSlots(self._codes, tiles, self._known, slots, said, np.maximum)
        slots = spread_slots(self._numbers[aggregate.column])
        return TileSlots(self._codes, tiles, self._known, slots, np.ones(len(slots)), np.add)

    def _measure(self, aggregate: Aggregate, questions: int) -> Measure:
        if _counts(aggregate):
            return Count(self._counting(aggregate.column), questions)
        name = aggregate.column
        column, places, shared = self._numbers[name], self._sorted.places, self._shared
        match aggregate.function:
            case Function.SUM:
                return Sum(shared("sum", name, lambda: adding(column)), questions)
            case Function.MEAN:
                valued = shared("n", name, lambda: counting(~np.isnan(column)))
                return Mean(valued, shared("sum", name, lambda: adding(column)), questions)
            case Function.VAR:
                return Variance(shared("moments", name, lambda: Moments(column)), questions)
            case Function.STD:
                return Deviation(shared("moments", name, lambda: Moments(column)), questions)
            case Function.MIN:
                return Extreme(shared("min", name, lambda: furthest(column, np.minimum, np.inf)), questions)
            case Function.MAX:
                return Extreme(shared("max", name, lambda: furthest(column, np.maximum, -np.inf)), questions)
            case Function.FIRST:
                return First(shared("first", name, lambda: Ranks(-column, -places)), questions)
            case Function.LAST:
                return Last(shared("last", name, lambda: Ranks(column, places)), questions)
        raise ValueError(f"{self._view.name}: no offline aggregate for {aggregate.function}")

    def _counting(self, column: str) -> Running[np.int64]:
        """Where all that is there is a number, as many have a value as are numbers: one run serves count and mean."""
        present, values = self._present[column], self._numbers.get(column)
        if values is not None and np.array_equal(present, ~np.isnan(values)):
            return self._shared("n", column, lambda: counting(present))
        return self._shared("count", column, lambda: counting(present))

    def _shared(self, kind: str, column: str, make: Callable[[], R]) -> R:
        """One running value a column, whatever windows and functions need it."""
        found = self._runs.get((kind, column))
        if found is None:
            found = self._runs[kind, column] = make()
        made: R = found
        return made


def _counts(aggregate: Aggregate) -> bool:
    return aggregate.function is Function.COUNT


def _present(events: pl.DataFrame, column: str) -> Bools:
    return np.ones(len(events), dtype=bool) if every_event(column) else present(events, column)
