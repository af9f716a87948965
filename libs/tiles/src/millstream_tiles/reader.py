"""Reads windows from Valkey: many views, entities and times in one round trip."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import NoScriptError, RedisError

from millstream_tiles.definition import View
from millstream_tiles.errors import StoreUnavailable
from millstream_tiles.layout import Ints
from millstream_tiles.one_command import send, send_async
from millstream_tiles.read_plan import READ, Command, Planner, Request
from millstream_tiles.read_values import values_of
from millstream_tiles.tile_keys import TileKeys
from millstream_tiles.windows import Values


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
        self._planner = Planner(views, self._keys)
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
        return self.read_along(requests, as_of, ())[0]

    async def read_async(self, requests: Sequence[Request], as_of: int | Ints) -> list[Values]:
        """`read` for the event loop."""
        return (await self.read_along_async(requests, as_of, ()))[0]

    def read_along(
        self, requests: Sequence[Request], as_of: int | Ints, others: Sequence[Command]
    ) -> tuple[list[Values], list[Any]]:
        """`read`, and in the same round trip the replies to other commands."""
        plan = self._planner.plan(requests, as_of)
        commands = [*plan.commands(), *others]
        try:
            client: Any = self._client()
            if len(commands) == 1:  # it needs no pipeline, which takes a tenth of the whole read
                replies = [send(client, commands[0])]
            else:
                with client.pipeline(transaction=False) as pipe:
                    replies = _all(pipe, commands).execute()
        except NoScriptError:
            self._load()
            return self.read_along(requests, as_of, others)
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"the online store did not answer: {error}") from error
        own = len(plan.shards)
        return values_of(plan, as_of, replies[:own]), replies[own:]

    async def read_along_async(
        self, requests: Sequence[Request], as_of: int | Ints, others: Sequence[Command]
    ) -> tuple[list[Values], list[Any]]:
        """`read_along` for the event loop."""
        plan = self._planner.plan(requests, as_of)
        commands = [*plan.commands(), *others]
        try:
            client: Any = self._async_client()
            if len(commands) == 1:
                replies = [await send_async(client, commands[0])]
            else:
                async with client.pipeline(transaction=False) as pipe:
                    replies = await _all(pipe, commands).execute()
        except NoScriptError:
            await self._async_client().script_load(READ.text)
            return await self.read_along_async(requests, as_of, others)
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"the online store did not answer: {error}") from error
        own = len(plan.shards)
        return values_of(plan, as_of, replies[:own]), replies[own:]

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


def _all(pipe: Any, commands: Iterable[Command]) -> Any:
    for command in commands:
        pipe.execute_command(*command)
    return pipe
