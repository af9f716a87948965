"""How an explained feature looks: its window and three values, its tiles, and in each the events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from rich.console import Console
from rich.text import Text

from millstream.contracts.times import MINUTE, to_datetime, to_rfc3339
from millstream.project.duration import to_text
from millstream_cli.skew import told
from millstream_cli.skew_view import figure, holds
from millstream_tiles.explain import Explained, Tile, Traces
from millstream_tiles.key_events import Fate, Marked
from millstream_tiles.skew import differ

ENDS = 3
"""Tiles shown at either end of a window, and events at either end of a tile; --all shows them all."""

NOT_HELD = "not held any more"

T = TypeVar("T")


def show(found: Sequence[Explained], console: Console, *, everything: bool, traces: Traces | None = None) -> None:
    """All features of one view, key and time. `traces` are there where the windows have no event."""
    first = found[0]
    key = " ".join(f"{k}={v}" for k, v in zip(first.view.keys, first.key, strict=True))
    console.print(
        f"[bold]{first.view.name}[/bold] of [bold]{key}[/bold] at {to_rfc3339(first.t)}, from stream {first.view.stream} "
        f"(late after {to_text(first.view.lateness)})",
        highlight=False,
        soft_wrap=True,
    )
    if traces is not None:
        console.print(_no_events(traces), style="" if traces.lake or not traces.online else "red", soft_wrap=True)
    for one in found:
        _feature(one, console, everything)


def _no_events(traces: Traces) -> str:
    """Of a key without an event in the windows: what else there is of it."""
    if traces.lake:
        return "0 events in these windows; the lake has events of this key at other times"
    if traces.online:
        return "0 events in the lake at any time, and the online store holds tiles of this key"
    return "0 events in the lake at any time, and nothing in the online store"


def _feature(one: Explained, console: Console, everything: bool) -> None:
    a = one.aggregate
    console.print(
        f"\n[bold]{a.name}[/bold]: {a.function.value} of {a.column or 'events'} over {to_text(a.window)} "
        f"by {to_text(a.slide)}, {to_rfc3339(one.start)} to {to_rfc3339(one.end)}, {a.tiles} tile{'' if a.tiles == 1 else 's'}",
        highlight=False,
        soft_wrap=True,
    )
    agree = not differ(one.offline, one.recounted) and not differ(one.online, one.recounted)
    newer = any(m.fate is Fate.UNKNOWN for tile in one.tiles for m in tile.events)
    note = "" if agree else "they differ"
    if not agree and not one.held:
        note = "" if not differ(one.offline, one.recounted) else "they differ"
    elif not agree and newer:
        note = "online counts what became known since"
    console.print(
        f"  online [bold]{figure(one.online) if one.held else NOT_HELD}[/bold]  offline [bold]{figure(one.offline)}[/bold]  "
        f"recount [bold]{figure(one.recounted)}[/bold]  "
        + (f"[yellow]{note}[/yellow]" if note else "[green]✓[/green]"),
        highlight=False,
        soft_wrap=True,
    )
    if not one.tiles:
        console.print("  0 events, nothing in any tile", style="dim")
        return
    for tile in _ends(one.tiles, everything):
        if isinstance(tile, int):
            console.print(f"  … {tile} more tiles; --all shows them", style="dim", highlight=False)
        else:
            _tile_lines(one, tile, console, everything)


def _tile_lines(one: Explained, tile: Tile, console: Console, everything: bool) -> None:
    span = f"{_short(tile.start)} – {_short(tile.end, beside=tile.start)}"
    gone = not one.held and tile.online in (None, 0)
    online = NOT_HELD if gone else holds(tile, 0)
    wrong = "" if gone or not tile.differs else f", should be {holds(tile, 1)}"
    line = Text(f"  {span}  online {online}{wrong}, recount {figure(tile.recounted)}")
    console.print(line, style="red" if wrong else "", soft_wrap=True)
    if not tile.events:
        console.print("    no event in the lake", style="dim")
    for marked in _ends(tile.events, everything):
        if isinstance(marked, int):
            console.print(f"    … {marked} more events", style="dim", highlight=False)
        else:
            style = "" if marked.fate is Fate.COUNTED else "dim"
            console.print(Text(f"    {_event(one, marked)}"), style=style, soft_wrap=True)


def _event(one: Explained, marked: Marked) -> str:
    """`21:23, known 22:00: 12.0 (2013-01-25-B6-675-JFK, partition 0, offset 21320)`, and what became of it otherwise."""
    event, column = marked.event, one.aggregate.column
    said = "" if column in ("", "*") else f": {event.columns.get(column)}"
    id = f"{event.columns.get(one.view.event_id)}, " if one.view.event_id else ""
    fate = "" if marked.fate is Fate.COUNTED else f" {marked.fate.value}"
    known = _short(event.known_at, beside=event.event_time)
    when = f"{_short(event.event_time, beside=event.event_time)}, known {known}"
    return f"{when}{said} ({id}partition {event.partition}, offset {event.offset}){fate}"


def _ends(items: Sequence[T], everything: bool) -> list[T | int]:
    """All of a short list; of a long one its ends, and between them how many were left out."""
    if everything or len(items) <= 2 * ENDS + 1:
        return list(items)
    return [*items[:ENDS], len(items) - 2 * ENDS, *items[-ENDS:]]


def _short(micros: int, beside: int | None = None) -> str:
    """A time without what nobody reads: the zone, which is UTC, seconds where there are none, and the date of `beside`."""
    moment = to_datetime(micros).replace(tzinfo=None)
    precision = "minutes" if micros % MINUTE == 0 else "auto"
    same = beside is not None and moment.date() == to_datetime(beside).date()
    return moment.time().isoformat(precision) if same else moment.isoformat(" ", precision)


def report(found: Sequence[Explained], traces: Traces | None = None) -> dict[str, Any]:
    """Everything, for scripts. A key that has an event in the windows is in the lake; else `traces` say where it is."""
    first = found[0]
    return {
        "view": first.view.name,
        "key": dict(zip(first.view.keys, first.key, strict=True)),
        "at": to_rfc3339(first.t),
        "lake_has_key": traces is None or traces.lake,
        "features": [
            {
                "name": one.aggregate.name,
                "function": one.aggregate.function.value,
                "column": one.aggregate.column,
                "start": to_rfc3339(one.start),
                "end": to_rfc3339(one.end),
                "online": one.online,
                "online_holds_all_tiles": one.held,
                "offline": one.offline,
                "recounted": one.recounted,
                "tiles": [_tile(one, tile) for tile in one.tiles],
            }
            for one in found
        ],
    }


def _tile(one: Explained, tile: Tile) -> dict[str, Any]:
    column = one.aggregate.column
    return {
        "start": to_rfc3339(tile.start),
        "end": to_rfc3339(tile.end),
        "online": tile.online,
        "recounted": tile.recounted,
        "by_now": tile.by_now,
        "sums": tile.sums,
        "events": [
            told(m.event, one.view.event_id) | {"fate": m.fate.value, "value": m.event.columns.get(column)}
            for m in tile.events
        ],
    }
