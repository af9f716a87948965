"""Reads windows from Valkey: many views, entities and times in one round trip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain
from typing import Any

import numpy as np
import redis
import redis.asyncio
from numpy.typing import NDArray
from redis.exceptions import NoScriptError, RedisError

from millstream_tiles.definition import View
from millstream_tiles.errors import StoreUnavailable
from millstream_tiles.keys import entity_text
from millstream_tiles.layout import Ints
from millstream_tiles.partials import shard_of
from millstream_tiles.scripts import Script
from millstream_tiles.tile_keys import TileKeys, entity_bytes
from millstream_tiles.tiling import Tiling, cover, tilings_of
from millstream_tiles.windows import Coarse, Values, window_values

READ = Script(files("millstream_tiles").joinpath("read.lua").read_text())

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
    Connections are made on first use; sync and async reads have each their own.
    """

    def __init__(
        self, url: str, namespace: str, views: Mapping[str, View], *, shards: int = 1, timeout: float = 2.0
    ) -> None:
        self.views = views
        self._keys = TileKeys(namespace, shards)
        self._shapes: dict[str, tuple[View, tuple[_Shape, ...]]] = {}
        self._kinds: dict[tuple[Any, ...], int] = {}
        # `timeout` (seconds): a read takes about 2 ms; one that takes a thousand times as long will not be waited for.
        self._options: dict[str, Any] = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
        self._url = url
        self._sync: redis.Redis | None = None
        self._async: redis.asyncio.Redis | None = None

    def read(self, requests: Sequence[Request], as_of: int | Ints) -> list[Values]:
        """For each request the view's features: arrays with one value a row.

        `as_of` is microseconds, one for all or one a row. A null key has empty windows. Raises StoreUnavailable, and
        KeyError for a view or a join key that is not there.
        """
        plan = self._plan(requests, as_of)
        try:
            # One command needs no pipeline, which takes a tenth of the whole read.
            commands = self._commands(plan)
            client: Any = self._client()
            if len(commands) == 1:
                replies = [client.execute_command(*commands[0])]
            else:
                with client.pipeline(transaction=False) as pipe:
                    replies = _all(pipe, commands).execute()
        except NoScriptError:
            self._load()
            return self.read(requests, as_of)
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"the online store did not answer: {error}") from error
        return _values(plan, as_of, replies)

    async def read_async(self, requests: Sequence[Request], as_of: int | Ints) -> list[Values]:
        """`read` for the event loop."""
        plan = self._plan(requests, as_of)
        try:
            commands = self._commands(plan)
            client: Any = self._async_client()
            if len(commands) == 1:
                replies = [await client.execute_command(*commands[0])]
            else:
                async with client.pipeline(transaction=False) as pipe:
                    replies = await _all(pipe, commands).execute()
        except NoScriptError:
            await self._async_client().script_load(READ.text)
            return await self.read_async(requests, as_of)
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"the online store did not answer: {error}") from error
        return _values(plan, as_of, replies)

    def stream_times(self) -> dict[str, dict[int, int]]:
        """Stream -> partition -> the largest known-at applied (microseconds). Raises StoreUnavailable."""
        streams = sorted({view.stream for view in self.views.values()})
        try:
            with self._client().pipeline(transaction=False) as pipe:
                replies = self._ask_clocks(pipe, streams).execute()
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"the online store did not answer: {error}") from error
        return self._clocks(streams, replies)

    async def stream_times_async(self) -> dict[str, dict[int, int]]:
        """`stream_times` for the event loop."""
        streams = sorted({view.stream for view in self.views.values()})
        try:
            async with self._async_client().pipeline(transaction=False) as pipe:
                replies = await self._ask_clocks(pipe, streams).execute()
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"the online store did not answer: {error}") from error
        return self._clocks(streams, replies)

    def close(self) -> None:
        """Close the connections of the sync reads."""
        if self._sync is not None:
            self._sync.close()
            self._sync = None

    async def aclose(self) -> None:
        """Close all connections."""
        self.close()
        if self._async is not None:
            await self._async.aclose()
            self._async = None

    def _client(self) -> redis.Redis:
        if self._sync is None:
            self._sync = redis.Redis.from_url(self._url, **self._options)
        return self._sync

    def _async_client(self) -> redis.asyncio.Redis:
        if self._async is None:
            self._async = redis.asyncio.Redis.from_url(self._url, **self._options)
        return self._async

    def _load(self) -> None:
        self._client().script_load(READ.text)

    def _plan(self, requests: Sequence[Request], as_of: int | Ints) -> _Plan:
        """What to fetch from each shard: distinct entities only."""
        questions = []
        shards: list[list[_Family]] = [[] for _ in range(self._keys.shards)]
        for name, columns in requests:
            view = self.views[name]
            question = _distinct(view, self._shapes_of(view), [columns[k] for k in view.keys])
            questions.append(question)
            for shard, families in enumerate(shards):
                entities = enumerate(question.entities)
                mine = [(i, entity_bytes(e)) for i, e in entities if shard_of(e, self._keys.shards) == shard]
                texts, numbers = [text for _, text in mine], np.array([i for i, _ in mine], dtype=np.int64)
                number = len(questions) - 1
                for shape in question.shapes if mine else ():
                    for level, ranges in _wanted(shape, as_of):
                        families.append(
                            _Family(
                                question=number,
                                shape=level,
                                shard=shard,
                                entities=texts,
                                numbers=numbers,
                                ranges=ranges,
                            )
                        )
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

    def _commands(self, plan: _Plan) -> list[tuple[Any, ...]]:
        """One a shard that is asked."""
        commands: list[tuple[Any, ...]] = []
        for families in plan.shards:
            keys = [f.shape.prefixes[f.shard] + entity for f in families for entity in f.entities]
            wanted = [n for f in families for n in (len(f.entities), len(f.ranges), *chain.from_iterable(f.ranges))]
            commands.append(("EVALSHA", READ.sha, len(keys), *keys, *wanted))
        return commands

    def _ask_clocks(self, pipe: Any, streams: Iterable[str]) -> Any:
        for stream in streams:
            for shard in range(self._keys.shards):
                pipe.hgetall(self._keys.clock(stream, shard))
        return pipe

    def _clocks(self, streams: list[str], replies: list[dict[bytes, bytes]]) -> dict[str, dict[int, int]]:
        """A partition is as far as its slowest shard."""
        clocks: dict[str, dict[int, int]] = {}
        answers = iter(replies)
        for stream in streams:
            shards = [{int(p): int(t) for p, t in next(answers).items()} for _ in range(self._keys.shards)]
            partitions = set().union(*shards)
            clocks[stream] = {p: min(s.get(p, 0) for s in shards) for p in sorted(partitions)}
        return clocks


def _all(pipe: Any, commands: Iterable[tuple[Any, ...]]) -> Any:
    for command in commands:
        pipe.execute_command(*command)
    return pipe


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
