"""Which events may enter a view's windows, and what of them counts: definition.py as the offline side computes it."""

from __future__ import annotations

import numpy as np
import polars as pl

from millstream_tiles.definition import LARGEST, View
from millstream_tiles.filters import filter_of, filtered
from millstream_tiles.join_forest import Bools, Floats

EVENT_TIME, KNOWN_AT, PARTITION, OFFSET, ID = "_event_time", "_known_at", "_partition", "_offset", "_id"


AT_ONCE = 1_000_000
"""Rows that are filtered together, as they become Python objects (0.1 to 0.3 GB)."""


def every_event(column: str) -> bool:
    """Whether a count of `column` counts the events themselves."""
    return column in ("", "*")


def columns_of(view: View) -> list[str]:
    """What the join needs to know of the view's events, each name once."""
    own = [EVENT_TIME, KNOWN_AT, *([PARTITION, OFFSET, ID] if view.event_id else [])]
    read = [*filter_of(view.where).fields] if view.where is not None else []
    columns = (a.column for a in view.aggregates if not every_event(a.column))
    return list(dict.fromkeys([*own, *view.keys, *columns, *read]))


def countable(view: View, events: pl.DataFrame) -> pl.DataFrame:
    """The events that may enter the view's windows, with the columns that it needs.

    Raises KeyError naming the first column that the view needs and `events` does not have.
    """
    for column in columns_of(view):
        if column not in events.columns:
            raise KeyError(f"view {view.name}: events of stream {view.stream} have no column {column!r}")
    return on_time_once(events.select(columns_of(view)), lateness=view.lateness, by_id=view.event_id is not None)


def on_time_once(events: pl.DataFrame, *, lateness: int, by_id: bool) -> pl.DataFrame:
    """The events on time, of each id the first by (known-at, partition, offset); times as int64 microseconds.

    Copies are found however far apart they are; the online store promises it within `View.dedupe_span` of event time.
    """
    events = events.with_columns(micros(EVENT_TIME), micros(KNOWN_AT))
    events = events.filter(pl.col(KNOWN_AT) - pl.col(EVENT_TIME) <= lateness)
    if not by_id:
        return events
    repeated = events[ID].is_duplicated() & events[ID].is_not_null()
    if not repeated.any():
        return events
    first = events.filter(repeated).sort(KNOWN_AT, PARTITION, OFFSET).unique(ID, keep="first", maintain_order=True)
    return pl.concat([events.filter(~repeated), first])


def let_through(view: View, events: pl.DataFrame) -> pl.DataFrame:
    """The events that the view's filter lets through."""
    if view.where is None:
        return events
    fields = events.select(filter_of(view.where).fields)
    parts = [filtered(view.where, part.iter_rows(), len(part)) for part in fields.iter_slices(AT_ONCE)]
    return events.filter(np.concatenate(parts)) if parts else events


def micros(column: str) -> pl.Expr:
    """A datetime column as int64 microseconds since the epoch; int64 columns pass unchanged."""
    return pl.col(column).cast(pl.Datetime("us")).dt.epoch("us")


def present(events: pl.DataFrame, column: str) -> Bools:
    """Whether each event has a value there, of whatever type; NaN is none."""
    series = events[column]
    has = series.is_not_null() & series.is_not_nan() if series.dtype.is_float() else series.is_not_null()
    return has.to_numpy()


def numbers(events: pl.DataFrame, column: str) -> Floats:
    """`column` as float64; NaN where it is null, no number (text, lists), not finite or beyond `LARGEST`."""
    series = events[column]
    if series.dtype == pl.Boolean:
        series = series.cast(pl.Int64)  # as wide as `LARGEST`, with which it is compared
    if not series.dtype.is_numeric():
        return np.full(len(series), np.nan)
    # Integers are compared as integers: as a double, 2**53 + 1 would pass.
    largest = int(LARGEST) if series.dtype.is_integer() else LARGEST
    counts = series.is_between(-largest, largest).fill_null(False).to_numpy()
    return np.where(counts, series.cast(pl.Float64).fill_null(0.0).to_numpy(), np.nan)
