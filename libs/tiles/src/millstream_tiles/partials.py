"""From events to partial tiles: a batch is grouped by entity and tile, column-wise, before anything is sent.

Which events and values count is said in `definition`; this is its online reading.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from millstream_tiles.columns import Columns
from millstream_tiles.definition import View
from millstream_tiles.events import EventBatch
from millstream_tiles.keys import key_text
from millstream_tiles.layout import Floats, Ints, Layout
from millstream_tiles.reduction import Reduction
from millstream_tiles.sketches import ROWS, row_of
from millstream_tiles.tiling import Tiling, tilings_of

HOUR = 3_600_000_000

AWAY = 24 * HOUR
"""So that a paused replay or a worker that was away over night finds its tiles again. More would be paid by every stream whose
entities come and go: with windows of an hour, memory for a day more of them is as much as all that is read."""

GROWS = 0
"""Family.keep of a sketch: nobody knows beforehand how many slots a window fills."""


def slack_of(view: View) -> int:
    """How far (microseconds) a question's as-of may lag behind the newest stream time and still find every tile.

    The lateness, since partitions of one stream lag behind each other by about as much as their events do; never below
    an hour, so that a scorer that fell behind for a few minutes still gets whole windows of a punctual stream.
    """
    return max(view.lateness, HOUR)


@dataclass(frozen=True, kw_only=True, eq=False)
class Family:
    """Partial tiles of one `tiling.Tiling`, sorted by entity."""

    view: str
    slide: int
    layout: Layout
    entities: list[str]
    counts: NDArray[np.uint32]
    """Rows of each entity."""
    rows: Floats
    """One row a tile (a sketch: several): its index, then the components of `layout`."""
    cutoff: int
    """Rows below this index are in no window any more and may be dropped."""
    keep: int
    """Rows that an entity may have before dropping is worth a look. GROWS: twice as many as the last look left."""
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
    revision: int = 0
    """Of the table of generations that the writer knows; the store refuses any but its own."""


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
    columns = Columns(batch)
    families = []
    for view in views if len(batch) else ():
        usable = batch.known_at - batch.event_time <= view.lateness
        if fresh is not None and view.event_id:
            usable &= fresh
        entities, codes = columns.entities(view.keys)
        usable &= codes >= 0
        if view.where is not None:
            usable &= columns.passing(view.where)
        for tiling in tilings_of(view):
            oldest = oldest_of(tiling, stream_time)
            for level in tiling.levels:
                family = _family(level, columns, entities, codes, usable, oldest)
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


def _family(
    tiling: Tiling,
    columns: Columns,
    entities: list[str],
    codes: Ints,
    usable: NDArray[np.bool_],
    oldest: int,
) -> Family | None:
    """Group the usable events by (entity, row) and reduce every component; None if nothing is left to say.

    Events before `oldest` (microseconds) are in no window any more.
    """
    tiles = columns.batch.event_time // tiling.slide
    usable = usable & (columns.batch.event_time >= oldest)
    index, cutoff, keep = tiles, oldest // tiling.slide, _keep(tiling)
    if tiling.layout.sketch:
        [part] = tiling.layout.parts
        slots, _ = columns.entries(part.kind, part.column)
        usable &= slots >= 0
        index, cutoff, keep = tiles * ROWS + row_of(part.kind, slots), cutoff * ROWS, GROWS
    chosen = np.flatnonzero(usable)
    if not len(chosen):
        return None
    index, codes = index[chosen], codes[chosen]
    lowest = int(np.min(index))
    span = int(np.max(index)) - lowest + 1
    group_of = codes * span + (index - lowest)
    order = np.argsort(group_of, kind="stable")
    chosen, group_of = chosen[order], group_of[order]
    starts = np.flatnonzero(np.concatenate(([True], group_of[1:] != group_of[:-1])))
    groups = group_of[starts]

    layout = tiling.layout
    rows = np.empty((len(starts), layout.width), dtype=np.float64)
    rows[:, 0] = groups % span + lowest
    reduce = Reduction(columns, chosen, starts)
    for part in layout.parts:
        rows[:, part.at : part.at + part.width] = reduce.part(part)

    members, counts = np.unique(groups // span, return_counts=True)
    return Family(
        view=tiling.view.name,
        slide=tiling.slide,
        layout=layout,
        entities=[entities[i] for i in members.tolist()],
        counts=counts.astype(np.uint32),
        rows=rows,
        cutoff=cutoff,
        keep=keep,
        expire=expiry_ms(tiling),
    )


def oldest_of(tiling: Tiling, stream_time: int) -> int:
    """Event times (microseconds) below it are in no window of the family that may still be asked for."""
    newest = (stream_time - slack_of(tiling.view)) // tiling.slide
    return (newest - tiling.tiles + 1) * tiling.slide


def _keep(tiling: Tiling) -> int:
    keep = (tiling.window + slack_of(tiling.view)) // tiling.slide + 2
    return keep + keep // 4


def expiry_ms(tiling: Tiling) -> int:
    """How long (wall-clock milliseconds) the tiles of an entity outlive its last new tile.

    A tile that is new now is in a window for no longer than the window takes, and in one that a question may lag behind
    for by the slack. `AWAY` is on top; what is missing after a longer pause the store says by itself (`held`).
    """
    return (tiling.window + slack_of(tiling.view) + AWAY) // 1000


def by_shard(batch: TileBatch, shards: int) -> list[TileBatch]:
    """What each shard gets of `batch`: its own entities, every id (whose event may have entities elsewhere), its own fence."""
    if shards == 1:
        return [batch]
    owners = [np.array([shard_of(e, shards) for e in family.entities]) for family in batch.families]
    parts = []
    for shard in range(shards):
        mine = [(family, of == shard) for family, of in zip(batch.families, owners, strict=True)]
        families = tuple(_only(family, chosen) for family, chosen in mine if chosen.any())
        parts.append(replace(batch, shard=shard, families=families))
    return parts


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
