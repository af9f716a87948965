"""A windowed feature taken apart: its window, the tiles, the events in them, and its value online, offline and recounted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import polars as pl

from millstream_tiles.alone import tile_values
from millstream_tiles.definition import Aggregate, Function, View
from millstream_tiles.held import holds
from millstream_tiles.history import Asked, history
from millstream_tiles.key_events import Fate, Marked, has_events, key_events, marked
from millstream_tiles.keys import key_text
from millstream_tiles.lake import Lake
from millstream_tiles.layout import Ints
from millstream_tiles.memory_reader import MemoryWindowReader
from millstream_tiles.read_plan import Request
from millstream_tiles.reader import WindowReader
from millstream_tiles.recount import Event, Value, recount
from millstream_tiles.skew import differ, plain
from millstream_tiles.tiling import tilings_of
from millstream_tiles.windows import Values

AT_ONCE = 200
"""Tiles asked for together: a read looks at every tile of the entity for each of them."""


class Reads(Protocol):
    """What is needed of a `WindowReader` (or a `MemoryWindowReader`)."""

    def read(self, requests: Sequence[Request], as_of: int | Ints) -> list[Values]: ...

    def has_tiles(self, name: str, columns: Mapping[str, Sequence[object]]) -> bool: ...

    def stream_times(self) -> dict[str, dict[int, int]]: ...


class OpensReader(Protocol):
    """Gives a reader that knows exactly this view by its name, until it is asked for another. `original` is the view whose
    tiles it reads; None: its own."""

    def __call__(self, view: View, original: View | None = None) -> Reads: ...


def reading(reader: WindowReader | MemoryWindowReader, views: dict[str, View]) -> OpensReader:
    """`reader` for one view after the other; `views` is the mapping that it was made with."""

    def of(view: View, original: View | None = None) -> Reads:
        views[view.name] = view
        if original is not None:
            reader.stand_in(view, original)
        return reader

    return of


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One tile of a window that holds something, online or in the lake. Times in microseconds, `end` excluded."""

    index: int
    start: int
    end: int
    online: Value
    """The feature over this tile alone, as the online store has it now."""
    recounted: Value
    """The same by the events of the lake that counted at the time asked for."""
    by_now: Value
    """The same by all that have become known since: what the online store should have, if the tile is still there."""
    sums: tuple[Value, Value] | None
    """Of a mean: the sum behind it online, and what it should be by now. A tile that counts all twice has the right mean."""
    events: tuple[Marked, ...]

    @property
    def differs(self) -> bool:
        """Whether the online store has something else in this tile than it should have by now."""
        return differ(self.online, self.by_now) or (self.sums is not None and differ(*self.sums))


@dataclass(frozen=True, kw_only=True)
class Explained:
    """One feature of one key at a time."""

    view: View
    aggregate: Aggregate
    key: tuple[str, ...]
    t: int
    start: int
    end: int
    """The window, `end` excluded: the end of the tile in which `t` lies."""
    online: Value
    """As the online store answers now for `t`; it may know more than was known then. Null where it is not `held`."""
    held: bool
    """Whether the online store promises to have all tiles of `t` still."""
    offline: Value
    recounted: Value
    tiles: tuple[Tile, ...]
    """Those that hold something, oldest first."""


def explain_view(
    view: View,
    key: Sequence[object],
    t: int,
    *,
    lake: Lake,
    online: OpensReader,
    features: Sequence[str] | None = None,
    extra: Sequence[Event] = (),
) -> list[Explained]:
    """Each of `features` (default: all of the view), in its order. `extra` are events that the lake should have and does not:
    they count in the recount. Blocks. Raises LakeUnavailable, StoreUnavailable.
    """
    chosen = [a for a in view.aggregates if features is None or a.name in features]
    texts = tuple(key_text(part) or "" for part in key)
    spans = [span_of(a, t) for a in chosen]
    found = key_events(lake, view, key, since=min(s for s, _ in spans), until=max(e for _, e in spans))
    events = marked(view, [*found, *extra], key, t)
    asked = Asked(view=view, keys=pl.DataFrame({k: [text] for k, text in zip(view.keys, texts, strict=True)}))
    [offline] = history(lake, [asked], np.array([t], dtype=np.int64))
    reader = online(view)
    [now] = reader.read([(view.name, {k: [text] for k, text in zip(view.keys, texts, strict=True)})], t)
    newest = max(reader.stream_times().get(view.stream, {}).values(), default=0)
    naive = recount(view, [*found, *extra], texts, t)  # copies of other keys too: one of them may be the first
    explained = []
    for aggregate, (start, end) in zip(chosen, spans, strict=True):
        explained.append(
            Explained(
                view=view,
                aggregate=aggregate,
                key=texts,
                t=t,
                start=start,
                end=end,
                online=plain(now[aggregate.name][0]),
                held=holds(view, aggregate, t, newest),
                offline=plain(offline[aggregate.name][0]),
                recounted=naive[aggregate.name],
                tiles=_tiles(view, aggregate, texts, t, events, online),
            )
        )
    return explained


@dataclass(frozen=True, kw_only=True)
class Traces:
    """Where anything of a key is, of whatever time."""

    lake: bool
    online: bool


def traces_of(view: View, key: Sequence[object], *, lake: Lake, online: OpensReader) -> Traces:
    """Looks at every key of the lake: for keys whose windows hold nothing. Blocks. Raises LakeUnavailable, StoreUnavailable."""
    columns = {k: [key_text(part)] for k, part in zip(view.keys, key, strict=True)}
    return Traces(lake=has_events(lake, view, key), online=online(view).has_tiles(view.name, columns))


def span_of(aggregate: Aggregate, t: int) -> tuple[int, int]:
    """The window at `t`: its start, and its end (excluded), microseconds."""
    oldest, newest = aggregate.tile_range(t)
    return oldest * aggregate.slide, (newest + 1) * aggregate.slide


def _tiles(
    view: View, aggregate: Aggregate, key: tuple[str, ...], t: int, events: Sequence[Marked], online: OpensReader
) -> tuple[Tile, ...]:
    oldest, newest = aggregate.tile_range(t)
    by_tile: dict[int, list[Marked]] = {}
    for one in events:
        tile = one.event.event_time // aggregate.slide
        if oldest <= tile <= newest:
            by_tile.setdefault(tile, []).append(one)
    held = _online_tiles(view, aggregate, key, range(oldest, newest + 1), online)
    total = _sum_behind(view, aggregate)
    sums = {} if total is None else _online_tiles(view, total, key, range(oldest, newest + 1), online)
    counted = [m.event for m in events if m.fate is Fate.COUNTED]
    by_now = [m.event for m in events if m.fate in (Fate.COUNTED, Fate.UNKNOWN)]
    [nothing] = tile_values(view, aggregate, [], key, [newest]).values()
    indexes = sorted({*by_tile, *(k for k, value in held.items() if differ(value, nothing))})
    recounted = tile_values(view, aggregate, counted, key, indexes)
    known = tile_values(view, aggregate, by_now, key, indexes)
    known_sums = {} if total is None else tile_values(view, total, by_now, key, indexes)
    return tuple(
        Tile(
            index=k,
            start=k * aggregate.slide,
            end=(k + 1) * aggregate.slide,
            online=held[k],
            recounted=recounted[k],
            by_now=known[k],
            sums=None if total is None else (sums[k], known_sums[k]),
            events=tuple(by_tile.get(k, ())),
        )
        for k in indexes
    )


def _sum_behind(view: View, aggregate: Aggregate) -> Aggregate | None:
    """The sum that the tiles of a mean hold; None for other functions, or if reading it would mean other tiles."""
    if aggregate.function is not Function.MEAN:
        return None
    total = replace(aggregate, name=f"{aggregate.name} (sum)", function=Function.SUM)
    both = replace(view, aggregates=(*view.aggregates, total))
    here = [tiling.layout for tiling in tilings_of(view) if aggregate in tiling.aggregates]
    return total if here == [tiling.layout for tiling in tilings_of(both) if total in tiling.aggregates] else None


def _online_tiles(
    view: View, aggregate: Aggregate, key: tuple[str, ...], tiles: range, online: OpensReader
) -> dict[int, Value]:
    """Each tile alone, through the ordinary read: the same tiles, in windows of one."""
    every = view.aggregates if aggregate in view.aggregates else (*view.aggregates, aggregate)
    narrow = replace(view, aggregates=tuple(replace(a, window=a.slide) for a in every))
    found: dict[int, Value] = {}
    for first in range(tiles.start, tiles.stop, AT_ONCE):
        some = range(first, min(first + AT_ONCE, tiles.stop))
        columns = {k: [text] * len(some) for k, text in zip(view.keys, key, strict=True)}
        times = np.array(some, dtype=np.int64) * aggregate.slide
        [values] = online(narrow, view).read([(view.name, columns)], times)
        found |= {k: plain(v) for k, v in zip(some, values[aggregate.name], strict=True)}
    return found
