"""The events of one key as the lake has them, each with what became of it at a time: what a person needs to see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import polars as pl

from millstream_tiles.definition import View
from millstream_tiles.join_events import EVENT_TIME, ID, KNOWN_AT, OFFSET, PARTITION, columns_of, micros
from millstream_tiles.keys import entity_text, key_text
from millstream_tiles.lake import Lake
from millstream_tiles.lake_reader import collect, read_events, scan_events
from millstream_tiles.recount import Event, countable


class Fate(StrEnum):
    """What became of an event at a time."""

    COUNTED = "counted"
    UNKNOWN = "not known yet"
    LATE = "late"
    DUPLICATE = "duplicate"
    LEFT_OUT = "left out"
    """On time and no copy, and still not countable: its key is null, or the view's filter says no."""


@dataclass(frozen=True, kw_only=True)
class Marked:
    """An event and its fate."""

    event: Event
    fate: Fate


def key_events(lake: Lake, view: View, key: Sequence[object], *, since: int, until: int) -> list[Event]:
    """The events of `key` with `since` <= event time < `until` in the order of the lake, and all copies of them near by.

    Memory: the view's columns of every key in that span. Blocks. Raises LakeUnavailable.
    """
    copies = view.dedupe_span if view.event_id else 0
    columns = list(dict.fromkeys([*columns_of(view), EVENT_TIME, KNOWN_AT, PARTITION, OFFSET, ID]))
    rows = read_events(lake, view.stream, columns, since=since - copies, until=until + copies)
    rows = rows.with_columns(micros(EVENT_TIME), micros(KNOWN_AT))
    events = [_event(view, row) for row in rows.filter(_alike(rows, view, key)).iter_rows(named=True)]
    inside = [since <= e.event_time < until and of_key(view, e, key) for e in events]
    ids = {e.columns.get(ID) for e, mine in zip(events, inside, strict=True) if mine} - {None}
    return [e for e, mine in zip(events, inside, strict=True) if mine or e.columns.get(ID) in ids]


def of_key(view: View, event: Event, key: Sequence[object]) -> bool:
    """Whether `event` belongs to `key`."""
    return all(key_text(event.columns.get(k)) == key_text(part) for k, part in zip(view.keys, key, strict=True))


def marked(view: View, events: Iterable[Event], key: Sequence[object], t: int) -> list[Marked]:
    """The events of `key` among `events`, each with its fate at `t`; by (known-at, partition, offset)."""
    every = sorted(events, key=lambda e: (e.known_at, e.partition, e.offset))
    kept = {id(event) for event in countable(view, every)}
    first = {_id(view, e) for e in every if id(e) in kept} - {None}
    found = []
    for event in every:
        if not of_key(view, event, key):
            continue
        if view.is_late(event.event_time, event.known_at):
            fate = Fate.LATE
        elif id(event) not in kept:
            fate = Fate.DUPLICATE if _id(view, event) in first else Fate.LEFT_OUT
        else:
            fate = Fate.COUNTED if event.known_at <= t else Fate.UNKNOWN
        found.append(Marked(event=event, fate=fate))
    return found


def _id(view: View, event: Event) -> object:
    return event.columns.get(view.event_id) if view.event_id else None


def _event(view: View, row: Mapping[str, Any]) -> Event:
    columns = dict(row)
    if view.event_id is not None:
        columns[view.event_id] = row[ID]
    return Event(
        event_time=row[EVENT_TIME],
        known_at=row[KNOWN_AT],
        partition=row[PARTITION],
        offset=row[OFFSET],
        columns=columns,
    )


def _alike(rows: pl.DataFrame, view: View, key: Sequence[object]) -> pl.Series:
    """Rows of the key, and rows with an id that one of them has: few of many become Python objects."""
    mine = _mine(rows, view, key)
    if view.event_id is None or not mine.any():
        return mine
    ids = rows.filter(mine)[ID].drop_nulls().unique()
    return mine | rows[ID].is_in(ids.implode()).fill_null(False)


def _mine(rows: pl.DataFrame, view: View, key: Sequence[object]) -> pl.Series:
    mine = pl.repeat(True, len(rows), eager=True)
    for name, part in zip(view.keys, key, strict=True):
        texts = rows[name] if rows[name].dtype == pl.String else pl.Series([key_text(v) for v in rows[name].to_list()])
        mine &= (texts.cast(pl.String) == key_text(part)).fill_null(False)
    return mine


def has_events(lake: Lake, view: View, key: Sequence[object]) -> bool:
    """Whether the lake has any event of `key`, of whatever time. Blocks. Raises LakeUnavailable."""
    return bool(_mine(_distinct(lake, view), view, key).any())


def keys_of(lake: Lake, view: View, *, most: int = 10_000) -> list[str]:
    """Keys of `view` (`keys.entity_text`) that have events in the lake, `most` at most. Blocks. Raises LakeUnavailable."""
    texts = (entity_text(row) for row in _distinct(lake, view).head(most).iter_rows())
    return sorted(text for text in texts if text is not None)


def _distinct(lake: Lake, view: View) -> pl.DataFrame:
    """Every key of the lake once. Memory: the different keys, not their events."""
    return collect(lake, view.stream, scan_events(lake, view.stream, view.keys).unique())
