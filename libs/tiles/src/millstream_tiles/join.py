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

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from millstream_tiles.definition import Aggregate, Function, View
from millstream_tiles.join_events import EVENT_TIME, KNOWN_AT, countable, every_event, numbers, present
from millstream_tiles.join_forest import Bools, Floats, Ints, Measure, Span, walk
from millstream_tiles.join_keys import by_code_and_time, key_codes
from millstream_tiles.join_measures import Count, Deviation, Extreme, First, Last, Mean, Sum, Variance

Features = Mapping[str, Floats | Ints]


def windowed_values(view: View, events: pl.DataFrame, keys: pl.DataFrame, t: Ints) -> dict[str, Floats | Ints]:
    """Every aggregate of `view` for each question (a row of `keys` at the same row of `t`), in the questions' order.

    `events` has the columns of `columns_of(view)`, its times as datetimes or int64 microseconds; rows in any order, late
    and repeated ones included. `keys` has one column per join key (a view without keys needs none), `t` is int64
    microseconds: "as known at t". A null key asks about no event.

    Counts are int64, everything else float64 with NaN for null. Raises KeyError naming a column that is missing.
    """
    return values_of(view, countable(view, events), keys, t)


def values_of(view: View, usable: pl.DataFrame, keys: pl.DataFrame, t: Ints) -> dict[str, Floats | Ints]:
    """`windowed_values` over events that are `countable` for the view already (it may share them with other views)."""
    t = np.ascontiguousarray(t, dtype=np.int64)
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
    answers = _Join(view, usable, event_codes).answer(codes[distinct], times[distinct])

    answer_of = np.cumsum(first) - 1
    values: dict[str, Floats | Ints] = {}
    for aggregate in view.aggregates:
        column = _empty(aggregate, len(t))
        column[order] = answers[aggregate.name][answer_of]
        values[aggregate.name] = column
    return values


def _empty(aggregate: Aggregate, n: int) -> Floats | Ints:
    if aggregate.function is Function.COUNT:
        return np.zeros(n, dtype=np.int64)
    return np.full(n, 0.0 if aggregate.function is Function.SUM else np.nan)


@dataclass(frozen=True)
class _Sorted:
    """A view's events in (key, event time) order, with positions found by binary search."""

    event_times: Ints
    """The distinct event times, ascending: positions compare ranks, so that key and time fit one int64."""
    places: Ints
    """key code * (ranks + 1) + rank of the event time, ascending."""

    def position(self, codes: Ints, at: Ints) -> Ints:
        """Position of the first event of each key with event time >= `at`."""
        ranks = np.searchsorted(self.event_times, at)
        return np.searchsorted(self.places, codes * (len(self.event_times) + 1) + ranks)


class _Join:
    """One view's events, ready to answer questions about distinct, sorted (key, time) pairs."""

    def __init__(self, view: View, events: pl.DataFrame, codes: Ints) -> None:
        when = events[EVENT_TIME].to_numpy()
        order = by_code_and_time(codes, when)
        event_times, ranks = np.unique(when[order], return_inverse=True)
        self._view = view
        self._known = events[KNOWN_AT].to_numpy()[order]
        self._when = when[order]
        self._sorted = _Sorted(event_times, codes[order] * (len(event_times) + 1) + ranks)
        self._numbers = {a.column: numbers(events, a.column)[order] for a in view.aggregates if not _counts(a)}
        self._present = {a.column: _present(events, a.column)[order] for a in view.aggregates if _counts(a)}
        self._in_order = bool(np.all(self._known >= self._when))

    def answer(self, codes: Ints, t: Ints) -> dict[str, Floats | Ints]:
        """One value per (code, t) and aggregate; both ascending by (code, t)."""
        spans: dict[tuple[int, int], Span] = {}
        measures: dict[str, Measure] = {}
        for aggregate in self._view.aggregates:
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
            measures[aggregate.name] = self._measure(aggregate, len(t))
            spans[shape].measures.append(measures[aggregate.name])
        walk(self._known, list(spans.values()))
        return {name: measure.values() for name, measure in measures.items()}

    def _measure(self, aggregate: Aggregate, questions: int) -> Measure:
        if _counts(aggregate):
            return Count(self._present[aggregate.column], questions)
        column = self._numbers[aggregate.column]
        match aggregate.function:
            case Function.SUM:
                return Sum(column, questions)
            case Function.MEAN:
                return Mean(column, questions)
            case Function.VAR:
                return Variance(column, questions)
            case Function.STD:
                return Deviation(column, questions)
            case Function.MIN:
                return Extreme(column, questions, np.minimum, np.inf)
            case Function.MAX:
                return Extreme(column, questions, np.maximum, -np.inf)
            case Function.FIRST:
                return First(column, self._sorted.places, questions)
            case Function.LAST:
                return Last(column, self._sorted.places, questions)
        raise ValueError(f"{self._view.name}: no offline aggregate for {aggregate.function}")


def _counts(aggregate: Aggregate) -> bool:
    return aggregate.function is Function.COUNT


def _present(events: pl.DataFrame, column: str) -> Bools:
    return np.ones(len(events), dtype=bool) if every_event(column) else present(events, column)
