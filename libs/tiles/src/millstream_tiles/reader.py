"""Reads windows from Valkey: many views, entities and times in one round trip."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import redis
import redis.asyncio
from numpy.typing import NDArray
from redis.exceptions import NoScriptError, RedisError

from millstream_tiles.definition import Aggregate, View
from millstream_tiles.errors import StoreUnavailable
from millstream_tiles.keys import entity_text
from millstream_tiles.layout import Ints, Layout, layout_of
from millstream_tiles.partials import shard_of
from millstream_tiles.scripts import Script
from millstream_tiles.tile_keys import TileKeys, entity_bytes
from millstream_tiles.windows import Values, window_values

READ = Script(files("millstream_tiles").joinpath("read.lua").read_text())

Request = tuple[str, Mapping[str, Sequence[Any]]]
"""A view, and for each of its join keys one value a row; all requests of one read have the same number of rows."""


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """What every read of one view and slide has in common, resolved once: a read takes a third of a millisecond."""

    slide: int
    layout: Layout
    aggregates: tuple[Aggregate, ...]
    names: tuple[str, ...]
    alike: int
    """The same number for views that aggregate alike on this slide: they are computed as one."""
    prefixes: tuple[bytes, ...]
    """Of the keys, by shard."""


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
    """The tiles to fetch for one question: those of one slide in one shard."""

    question: int
    shape: _Shape
    shard: int
    entities: list[bytes]
    numbers: Ints
    """Their numbers among all entities of the question."""


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
        plan = self._plan(requests)
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
        plan = self._plan(requests)
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

    def _plan(self, requests: Sequence[Request]) -> _Plan:
        """What to fetch from each shard: distinct entities only, one family a view and slide."""
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
                for shape in question.shapes if mine else ():
                    number = len(questions) - 1
                    families.append(_Family(question=number, shape=shape, shard=shard, entities=texts, numbers=numbers))
        return _Plan(questions=questions, shards=[families for families in shards if families])

    def _shapes_of(self, view: View) -> tuple[_Shape, ...]:
        """One a slide. The store may come to know further views while it runs."""
        known = self._shapes.get(view.name)
        if known is not None and known[0] is view:
            return known[1]
        shapes = []
        for slide in view.slides:
            layout, aggregates = layout_of(view, slide), tuple(a for a in view.aggregates if a.slide == slide)
            kinds = (slide, *((a.function, a.column, a.window) for a in aggregates))
            shards = range(self._keys.shards)
            shape = _Shape(
                slide=slide,
                layout=layout,
                aggregates=aggregates,
                names=tuple(a.name for a in aggregates),
                alike=self._kinds.setdefault(kinds, len(self._kinds)),
                prefixes=tuple(self._keys.family(view.name, slide, layout, shard) for shard in shards),
            )
            shapes.append(shape)
        self._shapes[view.name] = view, tuple(shapes)
        return self._shapes[view.name][1]

    def _commands(self, plan: _Plan) -> list[tuple[Any, ...]]:
        """One a shard that is asked."""
        commands: list[tuple[Any, ...]] = []
        for families in plan.shards:
            keys = [f.shape.prefixes[f.shard] + entity for f in families for entity in f.entities]
            commands.append(("EVALSHA", READ.sha, len(keys), *keys, *(len(f.entities) for f in families)))
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
        first_shape = members[0][1]
        width = first_shape.layout.width
        rows, counts, entity_of, times = [np.empty((0, width))], [], [], []
        entities = 0
        for member, shape in members:
            question = plan.questions[member]
            parts = fetched.get((member, shape.slide), [])
            for _, one_counts, one_rows in parts:
                rows.append(one_rows.reshape(-1, width))
                counts.append(one_counts)
            places = _places(question, parts)
            entity_of.append(np.where(question.rows < 0, -1, places[question.rows] + entities))
            entities += len(question.entities)
            times.append(np.broadcast_to(np.asarray(as_of, dtype=np.int64), question.rows.shape))
        results = window_values(
            first_shape.aggregates,
            first_shape.layout,
            np.concatenate(rows),
            _joined(counts),
            _joined(entity_of),
            _joined(times),
        )
        first = 0
        for member, shape in members:
            end = first + len(plan.questions[member].rows)
            values[member] |= {n: r[first:end] for n, r in zip(shape.names, results, strict=True)}
            first = end
    return [
        {a.name: found[a.name] for a in question.view.aggregates}
        for question, found in zip(plan.questions, values, strict=True)
    ]


def _fetched(plan: _Plan, replies: list[list[bytes]]) -> dict[tuple[int, int], list[_Fetched]]:
    """(question, slide) -> for each shard the family, the tiles of each entity and all rows, flat."""
    blobs = (blob for reply in replies for blob in reply)
    fetched: dict[tuple[int, int], list[_Fetched]] = {}
    for families in plan.shards:
        for family in families:
            counts = np.frombuffer(next(blobs), dtype="<u4").astype(np.int64)
            rows = np.frombuffer(next(blobs), dtype="<f8")
            fetched.setdefault((family.question, family.shape.slide), []).append((family, counts, rows))
    return fetched


def _places(question: _Question, parts: list[_Fetched]) -> Ints:
    """Where each entity of the question stands, since they come in the order of their shards (one more for "none")."""
    places = np.zeros(len(question.entities) + 1, dtype=np.int64)
    numbers = _joined([family.numbers for family, _, _ in parts])
    places[numbers] = np.arange(len(numbers))
    return places


def _joined(arrays: list[Ints]) -> Ints:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int64)
