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

Requests = Mapping[str, Mapping[str, Sequence[Any]]]
"""View name -> join key -> one value a row; all rows of one read have the same length."""


@dataclass(frozen=True, kw_only=True)
class _Family:
    view: View
    slide: int
    entities: list[bytes]
    """The distinct entities asked for in this shard."""
    numbers: Ints
    """Their numbers among all distinct entities of the view."""


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """The questions of one view: which distinct entity each row means (-1: none)."""

    entities: list[str]
    rows: Ints


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
        self._options = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
        self._url = url
        self._sync: redis.Redis | None = None
        self._async: redis.asyncio.Redis | None = None

    def read(self, requests: Requests, as_of: int | Ints) -> dict[str, Values]:
        """For each view asked for, its features: arrays with one value a row.

        `as_of` is microseconds, one for all or one a row. A null key has empty windows. Raises StoreUnavailable, and
        KeyError for a view or a join key that is not there.
        """
        asked, plans = self._plan(requests)
        try:
            with self._client().pipeline(transaction=False) as pipe:
                replies = _send(pipe, self._calls(plans)).execute()
        except NoScriptError:
            self._load()
            return self.read(requests, as_of)
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"the online store did not answer: {error}") from error
        return self._values(requests, as_of, asked, plans, replies)

    async def read_async(self, requests: Requests, as_of: int | Ints) -> dict[str, Values]:
        """`read` for the event loop."""
        asked, plans = self._plan(requests)
        try:
            async with self._async_client().pipeline(transaction=False) as pipe:
                replies = await _send(pipe, self._calls(plans)).execute()
        except NoScriptError:
            await self._async_client().script_load(READ.text)
            return await self.read_async(requests, as_of)
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"the online store did not answer: {error}") from error
        return self._values(requests, as_of, asked, plans, replies)

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

    def _plan(self, requests: Requests) -> tuple[dict[str, _Asked], list[list[_Family]]]:
        """What to fetch from each shard: distinct entities only, one family a view and slide."""
        asked = {}
        plans: list[list[_Family]] = [[] for _ in range(self._keys.shards)]
        for name, keys in requests.items():
            view = self.views[name]
            asked[name] = questions = _distinct([keys[k] for k in view.keys])
            shards = [shard_of(e, self._keys.shards) for e in questions.entities]
            for shard, plan in enumerate(plans):
                numbers = [i for i, s in enumerate(shards) if s == shard]
                texts = [entity_bytes(questions.entities[i]) for i in numbers]
                for slide in view.slides if numbers else ():
                    plan.append(_Family(view=view, slide=slide, entities=texts, numbers=np.array(numbers)))
        return asked, plans

    def _calls(self, plans: list[list[_Family]]) -> list[tuple[list[bytes], list[int]]]:
        calls = []
        for shard, plan in enumerate(plans):
            keys = []
            for family in plan:
                layout = layout_of(family.view, family.slide)
                prefix = self._keys.family(family.view.name, family.slide, layout, shard)
                keys += [prefix + entity for entity in family.entities]
            if keys:
                calls.append((keys, [len(f.entities) for f in plan]))
        return calls

    def _values(
        self,
        requests: Requests,
        as_of: int | Ints,
        asked: dict[str, _Asked],
        plans: list[list[_Family]],
        replies: list[list[bytes]],
    ) -> dict[str, Values]:
        answers = iter([blob for reply in replies for blob in reply])
        found: dict[tuple[str, int], list[tuple[_Family, Ints, NDArray[np.float64]]]] = {}
        for family in [f for plan in plans for f in plan]:
            counts = np.frombuffer(next(answers), dtype="<u4").astype(np.int64)
            width = layout_of(family.view, family.slide).width
            rows = np.frombuffer(next(answers), dtype="<f8").reshape(-1, width)
            found.setdefault((family.view.name, family.slide), []).append((family, counts, rows))
        values: dict[str, Values] = {}
        for name in requests:
            view, questions = self.views[name], asked[name]
            times = np.broadcast_to(np.asarray(as_of, dtype=np.int64), questions.rows.shape)
            values[name] = computed = {}
            for slide in view.slides:
                parts = found.get((name, slide), [])
                width = layout_of(view, slide).width
                rows = np.concatenate([r for _, _, r in parts]) if parts else np.empty((0, width))
                counts = np.concatenate([c for _, c, _ in parts]) if parts else np.empty(0, dtype=np.int64)
                where = questions.rows
                if len(parts) > 1:  # entities came in the order of their shards
                    place = np.empty(len(counts), dtype=np.int64)
                    place[np.concatenate([f.numbers for f, _, _ in parts])] = np.arange(len(counts))
                    where = np.where(where < 0, -1, place[where])
                computed |= window_values(view, slide, rows, counts, where, times)
            values[name] = {a.name: computed[a.name] for a in view.aggregates}
        return values

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


def _send(pipe: Any, calls: list[tuple[list[bytes], list[int]]]) -> Any:
    for keys, counts in calls:
        pipe.execute_command("EVALSHA", READ.sha, len(keys), *keys, *counts)
    return pipe


def _distinct(columns: list[Sequence[Any]]) -> _Asked:
    index: dict[str, int] = {}
    rows = []
    for values in zip(*columns, strict=True):
        text = entity_text(values)
        rows.append(-1 if text is None else index.setdefault(text, len(index)))
    return _Asked(entities=list(index), rows=np.array(rows, dtype=np.int64))
