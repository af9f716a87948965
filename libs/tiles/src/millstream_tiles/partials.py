"""From events to partial tiles: a batch is grouped by entity and tile, column-wise, before anything is sent.

Which events and values count is said in `definition`; this is its online reading.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from millstream_tiles.definition import LARGEST, View
from millstream_tiles.events import EventBatch
from millstream_tiles.keys import entity_text, key_text
from millstream_tiles.layout import Floats, Ints, Layout, layout_of

HOUR = 3_600_000_000


def slack_of(view: View) -> int:
    """How far (microseconds) a question's as-of may lag behind the newest stream time and still find every tile.

    The lateness, since partitions of one stream lag behind each other by about as much as their events do; never below
    an hour, so that a scorer that fell behind for a few minutes still gets whole windows of a punctual stream.
    """
    return max(view.lateness, HOUR)


@dataclass(frozen=True, kw_only=True, eq=False)
class Family:
    """Partial tiles of one view and slide, sorted by entity."""

    view: str
    slide: int
    layout: Layout
    entities: list[str]
    counts: NDArray[np.uint32]
    """Rows of each entity."""
    rows: Floats
    """One row a tile: its index, then the components of `layout`."""
    cutoff: int
    """Tiles below this index are in no window any more and may be dropped."""
    keep: int
    """Tiles that an entity may have before dropping is worth a look."""
    expire: int
    """Wall-clock milliseconds after which an entity that hears nothing more is forgotten."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TileBatch:
    """What one event batch means for the tiles of one shard, and the offsets that it stands for."""

    stream: str
    partition: int
    start: int
    end: int
    stream_time: int
    """Largest known-at of the batch; 0 if it holds no event."""
    families: tuple[Family, ...]
    ids: dict[int, list[str]] = field(default_factory=dict)
    """Event ids to remember, by bucket of event time (`event_time // dedupe_span`)."""
    dedupe_span: int = 0
    accept_gap: bool = False
    """The offsets between the fence and `start` are gone for good (log start, compaction): move over them."""
    shard: int = 0


def tile_batch(
    views: Collection[View], batch: EventBatch, *, seen: Collection[str] = (), accept_gap: bool = False
) -> TileBatch:
    """The partial tiles of `batch` for those of `views` that follow its stream. Ids in `seen` were counted before."""
    views = [v for v in views if v.stream == batch.stream]
    stream_time = int(np.max(batch.known_at)) if len(batch) else 0
    ids: dict[int, list[str]] = {}
    span = 0
    fresh: NDArray[np.bool_] | None = None
    if batch.ids is not None and views and any(v.event_id for v in views):
        span = max(v.dedupe_span for v in views)
        fresh, ids = _first_of_each_id(batch, max(v.lateness for v in views), span, seen)
    columns = _Columns(batch)
    families = []
    for view in views if len(batch) else ():
        usable = batch.known_at - batch.event_time <= view.lateness
        if fresh is not None and view.event_id:
            usable &= fresh
        entities, codes = columns.entities(view.keys)
        usable &= codes >= 0
        for slide in view.slides:
            family = _family(view, slide, columns, entities, codes, usable, stream_time)
            if family is not None:
                families.append(family)
    return TileBatch(
        stream=batch.stream,
        partition=batch.partition,
        start=batch.start,
        end=batch.end,
        stream_time=stream_time,
        families=tuple(families),
        ids=ids,
        dedupe_span=span,
        accept_gap=accept_gap,
    )


def _first_of_each_id(
    batch: EventBatch, lateness: int, span: int, seen: Collection[str]
) -> tuple[NDArray[np.bool_], dict[int, list[str]]]:
    """Which events are no repetition (of those on time the first of each id), and the ids by bucket."""
    on_time = (batch.known_at - batch.event_time <= lateness).tolist()
    buckets = (batch.event_time // span).tolist()
    fresh = np.ones(len(batch), dtype=bool)
    known = set(seen)
    ids: dict[int, list[str]] = {}
    for i, value in enumerate(batch.ids or ()):
        text = key_text(value)
        if text is None or not on_time[i]:
            continue
        if text in known:
            fresh[i] = False
        else:
            known.add(text)
            ids.setdefault(buckets[i], []).append(text)
    return fresh, ids


class _Columns:
    """The columns of a batch as arrays, each made once however many views ask for it."""

    def __init__(self, batch: EventBatch) -> None:
        self.batch = batch
        self._numbers: dict[str, Floats] = {}
        self._entities: dict[tuple[str, ...], tuple[list[str], Ints]] = {}

    def numbers(self, name: str) -> Floats:
        """Column `name` as float64, NaN where the value is no number (see `definition`)."""
        if name not in self._numbers:
            self._numbers[name] = _numbers(self._raw(name))
        return self._numbers[name]

    def present(self, name: str) -> Floats:
        """1.0 where column `name` is not null, else 0.0."""
        values = self._raw(name)
        return np.array([v is not None and v == v for v in values], dtype=np.float64)

    def entities(self, keys: tuple[str, ...]) -> tuple[list[str], Ints]:
        """The distinct entities, and for every event the index of its own; -1: it has none."""
        if keys not in self._entities:
            index: dict[str, int] = {}
            texts: dict[Any, int] = {}
            codes = []
            raw = [self._raw(k) for k in keys]
            for row in raw[0] if len(keys) == 1 else zip(*raw, strict=True):
                # Typed, because 1 == True == 1.0 as dictionary keys; str is nearly always what comes.
                typed = row if type(row) is str else (_types(row), row)
                try:
                    code = texts.get(typed)
                except TypeError:  # a list or an object names no entity
                    code = -1
                if code is None:
                    text = entity_text((row,) if len(keys) == 1 else row)
                    code = -1 if text is None else index.setdefault(text, len(index))
                    texts[typed] = code
                codes.append(code)
            self._entities[keys] = (list(index), np.array(codes, dtype=np.int64))
        return self._entities[keys]

    def _raw(self, name: str) -> list[Any]:
        return self.batch.columns.get(name) or [None] * len(self.batch)


def _types(row: Any) -> Any:
    return tuple(map(type, row)) if isinstance(row, tuple) else type(row)


def _numbers(values: list[Any]) -> Floats:
    if set(map(type, values)) <= {float, int, bool}:
        clean: list[Any] = values
    else:
        clean = [v if isinstance(v, (int, float)) else np.nan for v in values]
    try:
        numbers = np.array(clean, dtype=np.float64)
    except OverflowError:  # an int that no double can hold
        numbers = np.array([v if abs(v) <= LARGEST else np.nan for v in clean], dtype=np.float64)
    size = np.abs(numbers)
    numbers[~(size <= LARGEST)] = np.nan
    for i in np.flatnonzero(size == LARGEST).tolist():  # 2**53 + 1 is the same double, and one too many
        if abs(clean[i]) > LARGEST:
            numbers[i] = np.nan
    return numbers


def _family(
    view: View,
    slide: int,
    columns: _Columns,
    entities: list[str],
    codes: Ints,
    usable: NDArray[np.bool_],
    stream_time: int,
) -> Family | None:
    """Group the usable events by (entity, tile) and reduce every component; None if nothing is left to say."""
    window = view.horizon(slide) // slide
    slack = slack_of(view)
    cutoff = (stream_time - slack) // slide - window + 1
    tiles = columns.batch.event_time // slide
    chosen = np.flatnonzero(usable & (tiles >= cutoff))
    if not len(chosen):
        return None
    tiles, codes = tiles[chosen], codes[chosen]
    lowest = int(np.min(tiles))
    span = int(np.max(tiles)) - lowest + 1
    group_of = codes * span + (tiles - lowest)
    order = np.argsort(group_of, kind="stable")
    chosen, group_of = chosen[order], group_of[order]
    starts = np.flatnonzero(np.concatenate(([True], group_of[1:] != group_of[:-1])))
    groups = group_of[starts]

    layout = layout_of(view, slide)
    rows = np.empty((len(starts), layout.width), dtype=np.float64)
    rows[:, 0] = groups % span + lowest
    reduce = _Reduction(columns, chosen, starts)
    for part in layout.parts:
        rows[:, part.at : part.at + part.op.width] = reduce.part(part.kind, part.column)

    members, counts = np.unique(groups // span, return_counts=True)
    longest = view.horizon(slide)
    keep = (longest + slack) // slide + 2
    return Family(
        view=view.name,
        slide=slide,
        layout=layout,
        entities=[entities[i] for i in members.tolist()],
        counts=counts.astype(np.uint32),
        rows=rows,
        cutoff=cutoff,
        keep=keep + keep // 4,
        expire=expiry_ms(view, slide),
    )


def expiry_ms(view: View, slide: int) -> int:
    """How long (wall-clock milliseconds) the tiles of an entity outlive its last new tile.

    Twice the window, since the expiry is set when a tile is new and a window may begin a slide later; the lateness,
    since an event may come so much after its time; a day at least, so that a paused replay or a worker that was away
    over night finds its tiles again.
    """
    return max(2 * view.horizon(slide) + view.lateness, 24 * HOUR) // 1000


class _Reduction:
    """One component after the other over the same groups."""

    def __init__(self, columns: _Columns, chosen: Ints, starts: Ints) -> None:
        self._columns = columns
        self._chosen = chosen
        self._starts = starts
        self._counts = np.diff(np.append(starts, len(chosen)))
        self._cache: dict[str, tuple[Floats, NDArray[np.bool_], Floats, Floats]] = {}

    def part(self, kind: str, column: str) -> Floats:
        """The component(s) of `kind`, shape (groups, width)."""
        if kind == "count":
            if not column:
                return self._counts.astype(np.float64)[:, None]
            return self._add(self._columns.present(column)[self._chosen])[:, None]
        values, valid, n, total = self._column(column)
        if kind == "n":
            return n[:, None]
        if kind == "sum":
            return total[:, None]
        if kind == "min":
            return self._reduced(np.minimum, np.where(valid, values, np.inf))[:, None]
        if kind == "max":
            return self._reduced(np.maximum, np.where(valid, values, -np.inf))[:, None]
        if kind == "moments":
            mean = total / np.maximum(n, 1.0)
            away = np.where(valid, values - np.repeat(mean, self._counts), 0.0)
            return np.stack([n, mean, self._add(away * away)], axis=1)
        return self._at_the_end(values, valid, *((np.minimum, np.inf) if kind == "first" else (np.maximum, -np.inf)))

    def _at_the_end(self, values: Floats, valid: NDArray[np.bool_], furthest: np.ufunc, nothing: float) -> Floats:
        """Time and value of the first (`furthest` is the minimum) or last value of each group."""
        times = np.where(valid, self._columns.batch.event_time[self._chosen].astype(np.float64), nothing)
        end = self._reduced(furthest, times)
        at_end = valid & (times == np.repeat(end, self._counts))
        value = self._reduced(furthest, np.where(at_end, values, nothing))
        return np.stack([end, value], axis=1)

    def _column(self, name: str) -> tuple[Floats, NDArray[np.bool_], Floats, Floats]:
        """(values with 0 for null, not null, how many a group, their sum a group)."""
        if name not in self._cache:
            values = self._columns.numbers(name)[self._chosen]
            valid = ~np.isnan(values)
            values = np.where(valid, values, 0.0)
            self._cache[name] = values, valid, self._add(valid.astype(np.float64)), self._add(values)
        return self._cache[name]

    def _add(self, values: Floats) -> Floats:
        return self._reduced(np.add, values)

    def _reduced(self, ufunc: np.ufunc, values: Floats) -> Floats:
        """One value a group."""
        found: Floats = ufunc.reduceat(values, self._starts)
        return found


def for_shard(batch: TileBatch, shard: int, shards: int) -> TileBatch:
    """The part of `batch` that `shard` holds; every shard gets the ids, and moves its own fence."""
    if shards == 1:
        return batch
    families = []
    for family in batch.families:
        mine = np.array([shard_of(entity, shards) == shard for entity in family.entities])
        if mine.any():
            families.append(_only(family, mine))
    return replace(batch, shard=shard, families=tuple(families))


def _only(family: Family, mine: NDArray[np.bool_]) -> Family:
    return replace(
        family,
        entities=[e for e, m in zip(family.entities, mine.tolist(), strict=True) if m],
        counts=family.counts[mine],
        rows=family.rows[np.repeat(mine, family.counts)],
    )


def shard_of(entity: str, shards: int) -> int:
    """The shard of an entity: the same in every process, for every view."""
    return crc32(entity.encode("utf-8", "surrogatepass")) % shards if shards > 1 else 0
