"""Reads windows from Valkey: many views, entities and times in one round trip (on a cluster one a node, all at once)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream_tiles.definition import View
from millstream_tiles.keys import entity_text
from millstream_tiles.layout import Ints
from millstream_tiles.partials import shard_of
from millstream_tiles.ports import Fence
from millstream_tiles.tile_client import Call, TileClient
from millstream_tiles.tile_keys import entity_bytes
from millstream_tiles.tiling import Tiling, cover, tilings_of
from millstream_tiles.windows import Coarse, Values, window_values

MOST_WANTED = 4096
"""Tiles that a read names one by one, twice as many as the longest window takes; questions about times far apart fetch all."""

Request = tuple[str, Mapping[str, Sequence[Any]]]
"""A view, and for each of its join keys one value a row; all requests of one read have the same number of rows."""


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """What every read of one family has in common, resolved once: a read takes a third of a millisecond."""

    tiling: Tiling
    names: tuple[str, ...]
    alike: int
    """The same number for families that aggregate alike: they are computed as one."""
    prefixes: tuple[bytes, ...]
    """Of the keys, by shard."""
    coarse: _Shape | None = None
    """The family of longer tiles beside it."""

    @property
    def levels(self) -> tuple[_Shape, ...]:
        return (self,) if self.coarse is None else (self, self.coarse)


@dataclass(frozen=True, kw_only=True)
class _Question:
    """One request, its rows reduced to the distinct entities."""

    view: View
    shapes: tuple[_Shape, ...]
    entities: list[str]
    rows: Ints
    """Which entity each row means; -1: none, its key is null."""


@dataclass(frozen=True, kw_only=True)
class _Family:
    """The tiles to fetch for one question: those of one family in one shard."""

    question: int
    shape: _Shape
    shard: int
    entities: list[bytes]
    numbers: Ints
    """Their numbers among all entities of the question."""
    ranges: tuple[tuple[int, int], ...]
    """First and last of the tiles that are wanted; none: all."""


@dataclass(frozen=True, kw_only=True)
class _Plan:
    questions: list[_Question]
    shards: list[list[_Family]]


_Fetched = tuple[_Family, Ints, NDArray[np.float64]]


class WindowReader:
    """Window values of `views` as of a time.

    An as-of may lie behind the newest event applied by `partials.slack_of(view)`; it then sees those newer events in its
    newest tile (online state has no memory of when it learned what), and further back windows may miss tiles.
    Connections are made on first use; sync and async reads have each their own. `url` is one server or a cluster (see
    `connection`); `shards` as the writer has them. Another number than the store's is refused, never read as no data.
    """

    def __init__(
        self, url: str, namespace: str, views: Mapping[str, View], *, shards: int | None = None, timeout: float = 2.0
    ) -> None:
        self.views = views
        self._shapes: dict[str, tuple[View, tuple[_Shape, ...]]] = {}
        self._kinds: dict[tuple[Any, ...], int] = {}
        # `timeout` (seconds): a read takes about 2 ms; one that takes a thousand times as long will not be waited for.
        self.client = TileClient(url, namespace, shards, timeout=timeout)
        self._keys = self.client.keys

    def read(self, requests: Sequence[Request], as_of: int | Ints) -> list[Values]:
        """For each request the view's features: arrays with one value a row.

        `as_of` is microseconds, one for all or one a row. A null key has empty windows. Raises StoreUnavailable,
        ShardsDiffer, and KeyError for a view or a join key that is not there.
        """
        plan = self._plan(requests, as_of)
        return _values(plan, as_of, self.client.fetch(_calls(plan)))

    async def read_async(self, requests: Sequence[Request], as_of: int | Ints) -> list[Values]:
        """`read` for the event loop."""
        plan = self._plan(requests, as_of)
        return _values(plan, as_of, await self.client.fetch_async(_calls(plan)))

    def stream_times(self) -> dict[str, dict[int, int]]:
        """Stream -> partition -> the largest known-at applied (microseconds). Raises StoreUnavailable, ShardsDiffer."""
        return self.client.clocks(self._streams())

    async def stream_times_async(self) -> dict[str, dict[int, int]]:
        """`stream_times` for the event loop."""
        return await self.client.clocks_async(self._streams())

    async def fences_async(self, group: str) -> dict[str, dict[int, Fence]]:
        """Stream -> partition -> how far `group` has applied it in every shard. Raises StoreUnavailable, ShardsDiffer."""
        return await self.client.fences_async(self._streams(), group)

    def close(self) -> None:
        """Close the connections of the sync reads."""
        self.client.close()

    async def aclose(self) -> None:
        """Close all connections."""
        await self.client.aclose()

    def _streams(self) -> list[str]:
        return sorted({view.stream for view in self.views.values()})

    def _plan(self, requests: Sequence[Request], as_of: int | Ints) -> _Plan:
        """What to fetch from each shard: distinct entities only."""
        questions = []
        shards: list[list[_Family]] = [[] for _ in range(self._keys.shards)]
        for name, columns in requests:
            view = self.views[name]
            question = _distinct(view, self._shapes_of(view), [columns[k] for k in view.keys])
            questions.append(question)
            levels = [level for shape in question.shapes for level in _wanted(shape, as_of)]
            split: list[list[int]] = [[] for _ in shards]
            for entity, text in enumerate(question.entities):
                split[shard_of(text, len(shards))].append(entity)
            for shard, mine in enumerate(split):
                texts = [entity_bytes(question.entities[entity]) for entity in mine]
                shards[shard] += [
                    _Family(
                        question=len(questions) - 1,
                        shape=shape,
                        shard=shard,
                        entities=texts,
                        numbers=np.array(mine, dtype=np.int64),
                        ranges=ranges,
                    )
                    for shape, ranges in (levels if mine else ())
                ]
        return _Plan(questions=questions, shards=[families for families in shards if families])

    def _shapes_of(self, view: View) -> tuple[_Shape, ...]:
        """One a family. The store may come to know further views while it runs."""
        known = self._shapes.get(view.name)
        if known is not None and known[0] is view:
            return known[1]
        shapes = [self._shape(tiling) for tiling in tilings_of(view)]
        self._shapes[view.name] = view, tuple(shapes)
        return self._shapes[view.name][1]

    def _shape(self, tiling: Tiling) -> _Shape:
        kinds = (tiling.slide, tiling.layout, *((a.function, a.column, a.window, a.k) for a in tiling.aggregates))
        view, layout, shards = tiling.view.name, tiling.layout, range(self._keys.shards)
        return _Shape(
            tiling=tiling,
            names=tuple(a.name for a in tiling.aggregates),
            alike=self._kinds.setdefault(kinds, len(self._kinds)),
            prefixes=tuple(self._keys.family(view, tiling.slide, layout, shard) for shard in shards),
            coarse=None if tiling.coarse is None else self._shape(tiling.coarse),
        )


def _calls(plan: _Plan) -> list[Call]:
    """One a shard that is asked."""
    calls: list[Call] = []
    for families in plan.shards:
        keys = [f.shape.prefixes[f.shard] + entity for f in families for entity in f.entities]
        wanted = [n for f in families for n in (len(f.entities), len(f.ranges), *chain.from_iterable(f.ranges))]
        calls.append((keys, wanted))
    return calls


def _wanted(shape: _Shape, as_of: int | Ints) -> Iterator[tuple[_Shape, tuple[tuple[int, int], ...]]]:
    """Which tiles of the family, and of the coarse one beside it, any of the questions may need."""
    coarse = shape.coarse
    if coarse is None:
        yield shape, ()
        return
    times = np.atleast_1d(np.asarray(as_of, dtype=np.int64))
    many, fine, long = coarse.tiling.layout.coarse, [], []
    for window in sorted({a.tiles for a in shape.tiling.aggregates}) if len(times) else ():
        newest = times // shape.tiling.slide
        parts = cover(newest - window + 1, newest, many)
        fine += [(int(parts.oldest.min()), int(parts.head.max())), (int(parts.tail.min()), int(newest.max()))]
        long.append((int(parts.first.min()), int(parts.last.max())))
    yield shape, _disjoint(fine)
    yield coarse, _disjoint(long)


def _disjoint(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The same tiles, each in one range, ascending; at least one range, though it may be empty. None at all: every tile."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(r for r in ranges if r[0] <= r[1]):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(last, joined[-1][1])
        else:
            joined.append((first, last))
    if sum(last - first + 1 for first, last in joined) > MOST_WANTED:
        return ()
    return tuple(joined) or ((0, -1),)


def _distinct(view: View, shapes: tuple[_Shape, ...], columns: list[Sequence[Any]]) -> _Question:
    index: dict[str, int] = {}
    rows = []
    for values in zip(*columns, strict=True):
        text = entity_text(values)
        rows.append(-1 if text is None else index.setdefault(text, len(index)))
    return _Question(view=view, shapes=shapes, entities=list(index), rows=np.array(rows, dtype=np.int64))


def _values(plan: _Plan, as_of: int | Ints, replies: list[list[bytes]]) -> list[Values]:
    """Compute what was fetched. Views that aggregate alike (and they mostly do) are computed as one."""
    fetched = _fetched(plan, replies)
    alike: dict[int, list[tuple[int, _Shape]]] = {}
    for number, question in enumerate(plan.questions):
        for shape in question.shapes:
            alike.setdefault(shape.alike, []).append((number, shape))
    values: list[Values] = [{} for _ in plan.questions]
    for members in alike.values():
        shape = members[0][1]
        rows, counts, entity_of = _held(plan, fetched, members)
        coarse = None
        if shape.coarse is not None:
            longer = [(member, one.coarse) for member, one in members if one.coarse is not None]
            long_rows, long_counts, _ = _held(plan, fetched, longer)
            coarse = Coarse(many=shape.coarse.tiling.layout.coarse, rows=long_rows, counts=long_counts)
        asked = [plan.questions[member].rows for member, _ in members]
        times = _joined([np.broadcast_to(np.asarray(as_of, dtype=np.int64), rows.shape) for rows in asked])
        tiling = shape.tiling
        results = window_values(tiling.aggregates, tiling.layout, rows, counts, entity_of, times, coarse)
        first = 0
        for member, shape in members:
            end = first + len(plan.questions[member].rows)
            values[member] |= {n: r[first:end] for n, r in zip(shape.names, results, strict=True)}
            first = end
    return [
        {a.name: found[a.name] for a in question.view.aggregates}
        for question, found in zip(plan.questions, values, strict=True)
    ]


def _held(
    plan: _Plan, fetched: dict[tuple[int, int], list[_Fetched]], members: list[tuple[int, _Shape]]
) -> tuple[NDArray[np.float64], Ints, Ints]:
    """The rows of all members, how many each entity has, and which entity each row of the questions asks for."""
    width = members[0][1].tiling.layout.width
    rows, counts, entity_of = [np.empty((0, width))], [], []
    entities = 0
    for member, shape in members:
        question = plan.questions[member]
        parts = fetched.get((member, id(shape)), [])
        for _, one_counts, one_rows in parts:
            rows.append(one_rows.reshape(-1, width))
            counts.append(one_counts)
        places = _places(question, parts)
        entity_of.append(np.where(question.rows < 0, -1, places[question.rows] + entities))
        entities += len(question.entities)
    return np.concatenate(rows), _joined(counts), _joined(entity_of)


def _fetched(plan: _Plan, replies: list[list[bytes]]) -> dict[tuple[int, int], list[_Fetched]]:
    """(question, shape by identity) -> for each shard the family, the tiles of each entity and all rows, flat."""
    blobs = (blob for reply in replies for blob in reply)
    fetched: dict[tuple[int, int], list[_Fetched]] = {}
    for families in plan.shards:
        for family in families:
            counts = np.frombuffer(next(blobs), dtype="<u4").astype(np.int64)
            rows = np.frombuffer(next(blobs), dtype="<f8")
            fetched.setdefault((family.question, id(family.shape)), []).append((family, counts, rows))
    return fetched


def _places(question: _Question, parts: list[_Fetched]) -> Ints:
    """Where each entity of the question stands, since they come in the order of their shards (one more for "none")."""
    places = np.zeros(len(question.entities) + 1, dtype=np.int64)
    numbers = _joined([family.numbers for family, _, _ in parts])
    places[numbers] = np.arange(len(numbers))
    return places


def _joined(arrays: list[Ints]) -> Ints:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int64)
