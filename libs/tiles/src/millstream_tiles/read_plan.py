"""What a read fetches: its questions reduced to distinct entities, and the tiles of each by shard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from struct import Struct
from typing import Any, NamedTuple

import numpy as np

from millstream_tiles.definition import View
from millstream_tiles.errors import ViewNotReady
from millstream_tiles.few_windows import Step, steps_of
from millstream_tiles.generation import name_at
from millstream_tiles.held import Course
from millstream_tiles.keys import entity_text
from millstream_tiles.known_table import KnownTable
from millstream_tiles.layout import Ints
from millstream_tiles.partials import shard_of
from millstream_tiles.tile_keys import TileKeys, entity_bytes
from millstream_tiles.tiling import Tiling, cover, tilings_of

MOST_WANTED = 4096
"""Tiles that a read names one by one, twice as many as the longest window takes; questions about times far apart fetch all."""

Request = tuple[str, Mapping[str, Sequence[Any]]]
"""A view, and for each of its join keys one value a row."""

Call = tuple[Sequence[bytes], Sequence[int]]
"""Keys and arguments of `read.lua`, all of one shard."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What every read of one family has in common, resolved once: a read takes an eighth of a millisecond."""

    tiling: Tiling
    names: tuple[str, ...]
    counts: tuple[str, ...]
    """Those of them that are whole numbers."""
    alike: int
    """The same number for families that aggregate alike: they are computed as one."""
    prefixes: tuple[bytes, ...]
    """Of the keys, by shard."""
    stream: str
    """The view's, as it is called in the generation that is read; its clock says which tiles may have been dropped."""
    clocks: tuple[tuple[bytes, bytes], ...]
    """The keys of that clock and of the stream's course, by shard; none for a view that stands in: it is read as its tiles
    lie."""
    row: Struct
    """One tile as it is packed."""
    steps: tuple[Step, ...] | None
    """How a few rows are computed; None: as many are."""
    coarse: Shape | None = None
    """The family of longer tiles beside it."""


# Tuples, for a frozen dataclass takes four times as long to make.


class Question(NamedTuple):
    """One request, its rows reduced to the distinct entities."""

    view: View
    shapes: tuple[Shape, ...]
    entities: list[str]
    rows: list[int]
    """Which entity each row means; -1: none, its key is null."""


class Family(NamedTuple):
    """The tiles to fetch for one question: those of one family in one shard."""

    question: int
    shape: Shape
    shard: int
    entities: list[bytes]
    numbers: list[int]
    """Their numbers among all entities of the question."""
    ranges: tuple[tuple[int, int], ...]
    """First and last of the tiles that are wanted; none: all."""


class Plan(NamedTuple):
    questions: list[Question]
    shards: list[list[Family]]
    """Of each shard that is asked."""
    revisions: Sequence[bytes]
    """Of the table of generations: the key in each shard."""
    missing: str | None = None
    """A view that has no tiles to be read; nothing is asked then."""

    def whole(self) -> Plan:
        """This plan. Raises ViewNotReady."""
        if self.missing is not None:
            raise ViewNotReady(
                f"view {self.missing!r} has no tiles of this definition yet: "
                f"millstream features rebuild --view {self.missing}"
            )
        return self

    def calls(self) -> list[Call]:
        """One a shard that is asked."""
        calls: list[Call] = []
        for families in self.shards:
            keys = tile_keys(families)
            wanted = [n for f in families for n in (len(f.entities), len(f.ranges), *chain.from_iterable(f.ranges))]
            keys += chain.from_iterable(_clocks(families).values())
            keys.append(self.revisions[families[0].shard])
            calls.append((keys, wanted))
        return calls

    def courses(self, replies: Sequence[list[bytes]]) -> dict[str, Course]:
        """Stream -> by what tiles were dropped in any shard that was asked. Takes the courses off the replies."""
        found: dict[str, Course] = {}
        for families, reply in zip(self.shards, replies, strict=True):
            *said, now = reply.pop().split(b";")
            for stream, one in zip(_clocks(families), said, strict=True):
                course = Course.told(now, *one.split())
                found[stream] = course.joined(found[stream]) if stream in found else course
        return found


def tile_keys(families: Sequence[Family]) -> list[bytes]:
    """The keys of the tiles of `families`, which are of one shard."""
    return [f.shape.prefixes[f.shard] + entity for f in families for entity in f.entities]


def _clocks(families: Sequence[Family]) -> dict[str, tuple[bytes, bytes]]:
    """Stream -> the keys of its clock and its course in the shard of `families`."""
    return {f.shape.stream: f.shape.clocks[f.shard] for f in families if f.shape.clocks}


class Planner:
    """Plans reads of `views`, which may come to be more while it is used."""

    def __init__(self, views: Mapping[str, View], keys: TileKeys, known: KnownTable) -> None:
        self._views = views
        self._keys = keys
        self._known = known
        self._revisions = [keys.revision(shard) for shard in range(keys.shards)]
        self._shapes: dict[str, tuple[View, int, tuple[Shape, ...]]] = {}
        self._kinds: dict[tuple[Any, ...], int] = {}

    def plan(self, requests: Sequence[Request], as_of: int | Ints) -> Plan:
        """What to fetch from each shard: distinct entities only.

        Raises KeyError for a view or a join key that is not there.
        """
        questions: list[Question] = []
        shards: list[list[Family]] = [[] for _ in range(self._keys.shards)]
        for name, columns in requests:
            view = self._views[name]
            generation = self._known.generation_of(view)
            if generation is None:
                return Plan([], [], self._revisions, missing=name)
            shapes = self._shapes_of(view, generation)
            number, question = len(questions), _distinct(view, shapes, [columns[k] for k in view.keys])
            questions.append(question)
            for shard, numbers in self._by_shard(question.entities):
                texts = [entity_bytes(question.entities[i]) for i in numbers]
                for shape in question.shapes:
                    for level, ranges in _wanted(shape, as_of):
                        shards[shard].append(Family(number, level, shard, texts, numbers, ranges))
        return Plan(questions, [families for families in shards if families], self._revisions)

    def _by_shard(self, entities: list[str]) -> Iterable[tuple[int, list[int]]]:
        """Each shard that has some of them, with their numbers."""
        if self._keys.shards == 1:
            return [(0, list(range(len(entities))))] if entities else []
        shards: dict[int, list[int]] = {}
        for number, entity in enumerate(entities):
            shards.setdefault(shard_of(entity, self._keys.shards), []).append(number)
        return shards.items()

    def _shapes_of(self, view: View, generation: int) -> tuple[Shape, ...]:
        """One a family, of the tiles of `generation`."""
        known = self._shapes.get(view.name)
        if known is not None and known[0] is view and known[1] == generation:
            return known[2]
        shapes = tuple(self._shape(tiling, generation) for tiling in tilings_of(view))
        self._shapes[view.name] = view, generation, shapes
        return shapes

    def _shape(self, tiling: Tiling, generation: int) -> Shape:
        kinds = (tiling.slide, tiling.layout, *((a.function, a.column, a.window, a.k) for a in tiling.aggregates))
        layout, shards = tiling.layout, range(self._keys.shards)
        called, stream = (name_at(name, generation) for name in (tiling.view.name, tiling.view.stream))
        return Shape(
            tiling=tiling,
            names=tuple(a.name for a in tiling.aggregates),
            counts=tuple(a.name for a in tiling.aggregates if a.function.counts),
            alike=self._kinds.setdefault(kinds, len(self._kinds)),
            prefixes=tuple(self._keys.family(called, tiling.slide, layout, shard) for shard in shards),
            stream=stream,
            clocks=()
            if self._known.stands_in(tiling.view)
            else tuple((self._keys.clock(stream, s), self._keys.course(stream, s)) for s in shards),
            row=Struct(f"<{layout.width}d"),
            steps=steps_of(tiling.aggregates, layout) if tiling.coarse is None else None,
            coarse=None if tiling.coarse is None else self._shape(tiling.coarse, generation),
        )


def _wanted(shape: Shape, as_of: int | Ints) -> Iterator[tuple[Shape, tuple[tuple[int, int], ...]]]:
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


def _distinct(view: View, shapes: tuple[Shape, ...], columns: list[Sequence[Any]]) -> Question:
    index: dict[str, int] = {}
    rows = []
    for values in zip(*columns, strict=True):
        text = entity_text(values)
        rows.append(-1 if text is None else index.setdefault(text, len(index)))
    return Question(view, shapes, list(index), rows)
