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

from millstream_tiles.definition import View
from millstream_tiles.errors import StoreUnavailable
from millstream_tiles.keys import entity_text
from millstream_tiles.layout import Ints, layout_of
from millstream_tiles.partials import shard_of
from millstream_tiles.scripts import Script
from millstream_tiles.tile_keys import TileKeys, entity_bytes
from millstream_tiles.windows import Values, window_values

READ = Script(files("millstream_tiles").joinpath("read.lua").read_text())

Request = tuple[str, Mapping[str, Sequence[Any]]]
"""A view, and for each of its join keys one value a row; all requests of one read have the same number of rows."""


@dataclass(frozen=True, kw_only=True)
class _Question:
    """One request, its rows reduced to the distinct entities."""

    view: View
    entities: list[str]
    rows: Ints
    """Which entity each row means; -1: none, its key is null."""


@dataclass(frozen=True, kw_only=True)
class _Family:
    """The tiles to fetch for one question: those of one slide in one shard."""

    question: int
    slide: int
    prefix: bytes
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
            with self._client().pipeline(transaction=False) as pipe:
                replies = self._ask(pipe, plan).execute()
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
            async with self._async_client().pipeline(transaction=False) as pipe:
                replies = await self._ask(pipe, plan).execute()
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
            question = _distinct(view, [columns[k] for k in view.keys])
            questions.append(question)
            for shard, families in enumerate(shards):
                entities = enumerate(question.entities)
                mine = [(i, entity_bytes(e)) for i, e in entities if shard_of(e, self._keys.shards) == shard]
                for slide in view.slides if mine else ():
                    families.append(
                        _Family(
                            question=len(questions) - 1,
                            slide=slide,
                            prefix=self._keys.family(name, slide, layout_of(view, slide), shard),
                            entities=[text for _, text in mine],
                            numbers=np.array([i for i, _ in mine]),
                        )
                    )
        return _Plan(questions=questions, shards=[families for families in shards if families])

    def _ask(self, pipe: Any, plan: _Plan) -> Any:
        for families in plan.shards:
            keys = [family.prefix + entity for family in families for entity in family.entities]
            pipe.execute_command("EVALSHA", READ.sha, len(keys), *keys, *(len(f.entities) for f in families))
        return pipe

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


def _distinct(view: View, columns: list[Sequence[Any]]) -> _Question:
    index: dict[str, int] = {}
    rows = []
    for values in zip(*columns, strict=True):
        text = entity_text(values)
        rows.append(-1 if text is None else index.setdefault(text, len(index)))
    return _Question(view=view, entities=list(index), rows=np.array(rows, dtype=np.int64))


def _values(plan: _Plan, as_of: int | Ints, replies: list[list[bytes]]) -> list[Values]:
    """Compute what was fetched. Views that aggregate alike (and they mostly do) are computed as one."""
    fetched = _fetched(plan, replies)
    alike: dict[tuple[Any, ...], list[int]] = {}
    for number, question in enumerate(plan.questions):
        for slide in question.view.slides:
            kinds = tuple((a.function, a.column, a.window) for a in question.view.aggregates if a.slide == slide)
            alike.setdefault((slide, kinds), []).append(number)
    values: list[Values] = [{} for _ in plan.questions]
    for (slide, _), members in alike.items():
        views = [plan.questions[m].view for m in members]
        layout = layout_of(views[0], slide)
        rows, counts, entity_of, times = [np.empty((0, layout.width))], [], [], []
        entities = 0
        for member in members:
            question = plan.questions[member]
            for _, one_counts, one_rows in fetched.get((member, slide), []):
                rows.append(one_rows.reshape(-1, layout.width))
                counts.append(one_counts)
            places = _places(question, fetched.get((member, slide), []))
            entity_of.append(np.where(question.rows < 0, -1, places[question.rows] + entities))
            entities += len(question.entities)
            times.append(np.broadcast_to(np.asarray(as_of, dtype=np.int64), question.rows.shape))
        aggregates = [a for a in views[0].aggregates if a.slide == slide]
        results = window_values(
            aggregates, layout, np.concatenate(rows), _joined(counts), _joined(entity_of), _joined(times)
        )
        first = 0
        for member, view in zip(members, views, strict=True):
            end = first + len(plan.questions[member].rows)
            names = [a.name for a in view.aggregates if a.slide == slide]
            values[member] |= {n: r[first:end] for n, r in zip(names, results, strict=True)}
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
            fetched.setdefault((family.question, family.slide), []).append((family, counts, rows))
    return fetched


def _places(question: _Question, parts: list[_Fetched]) -> Ints:
    """Where each entity of the question stands, since they come in the order of their shards (one more for "none")."""
    places = np.zeros(len(question.entities) + 1, dtype=np.int64)
    numbers = _joined([family.numbers for family, _, _ in parts])
    places[numbers] = np.arange(len(numbers))
    return places


def _joined(arrays: list[Ints]) -> Ints:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int64)
