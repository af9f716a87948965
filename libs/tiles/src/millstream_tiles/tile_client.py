"""Asks the online store what it holds: tiles and clocks, from every shard at once, for threads and for the event loop."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from time import monotonic
from typing import Any

from redis.exceptions import NoScriptError

from millstream_tiles.connection import Command, answering, ask, ask_async, connect, connect_async, shards_of
from millstream_tiles.errors import ShardsDiffer
from millstream_tiles.one_command import Direct, send_async
from millstream_tiles.ports import Fence
from millstream_tiles.read_plan import Call
from millstream_tiles.scripts import Script
from millstream_tiles.tile_keys import TileKeys, fence_of

READ = Script(files("millstream_tiles").joinpath("read.lua").read_text())

BELIEVED = 1.0
"""Seconds for which answers without a single tile are believed before the number of shards is looked up again. A store that
was emptied has no tiles for longer than that, whoever fills it."""


class TileClient:
    """Connections are made on first use; threads and the event loop have each their own.

    All methods raise StoreUnavailable, and ShardsDiffer where the store has another number of shards: what stands in others
    than ours would look as if nothing had ever been written.
    """

    def __init__(self, url: str, namespace: str, shards: int | None, *, timeout: float) -> None:
        self.keys = TileKeys(namespace, shards_of(url, shards))
        self._url = url
        self._timeout = timeout
        self._sync: Any = None
        self._async: Any = None
        self._direct: Direct
        self._agreed_at = float("-inf")

    def fetch(self, calls: Sequence[Call], others: Sequence[Command] = ()) -> tuple[list[list[bytes]], list[Any]]:
        """The answers of `read.lua`, in the order of `calls`, and those to `others`, in one round trip.

        The last items of each answer of the script are the clocks that were asked for, and the revision of the table of
        generations.
        """
        with answering():
            try:
                replies = self._ask([*_commands(calls, "EVALSHA", READ.sha), *others])
            except NoScriptError:  # a fresh server, a replica that was promoted, or one that was told to forget
                replies = self._ask([*_commands(calls, "EVAL", READ.text), *others])
            tiles, rest = replies[: len(calls)], replies[len(calls) :]
            if self._doubtful(tiles):
                self._agree(self.sync().get(self.keys.shard_count()))
        return tiles, rest

    async def fetch_async(
        self, calls: Sequence[Call], others: Sequence[Command] = ()
    ) -> tuple[list[list[bytes]], list[Any]]:
        """`fetch` for the event loop."""
        with answering():
            try:
                replies = await self._ask_async([*_commands(calls, "EVALSHA", READ.sha), *others])
            except NoScriptError:
                replies = await self._ask_async([*_commands(calls, "EVAL", READ.text), *others])
            tiles, rest = replies[: len(calls)], replies[len(calls) :]
            if self._doubtful(tiles):
                self._agree(await self._loop().get(self.keys.shard_count()))
        return tiles, rest

    def table(self) -> bytes | None:
        """The table of generations as it lies in the store."""
        with answering():
            found: bytes | None = self.sync().get(self.keys.generations())
        return found

    async def table_async(self) -> bytes | None:
        """`table` for the event loop."""
        with answering():
            await self._loop().initialize()
            found: bytes | None = await self._loop().get(self.keys.generations())
        return found

    def holds_any(self, keys: Sequence[bytes]) -> bool:
        """Whether the store has any of `keys`, which are of one shard."""
        with answering():
            return bool(self.sync().exists(*keys))

    def clocks(self, streams: Sequence[str]) -> dict[str, dict[int, int]]:
        """Stream -> partition -> its stream time in the slowest shard (microseconds)."""
        with answering():
            self._agree(self.sync().get(self.keys.shard_count()))
            with self.sync().pipeline(transaction=False) as pipe:
                replies = self._queue_clocks(pipe, streams).execute()
        return self._slowest(streams, replies)

    async def clocks_async(self, streams: Sequence[str]) -> dict[str, dict[int, int]]:
        """`clocks` for the event loop."""
        with answering():
            client = self._loop()
            await client.initialize()
            self._agree(await client.get(self.keys.shard_count()))
            async with client.pipeline(transaction=False) as pipe:
                replies = await self._queue_clocks(pipe, streams).execute()
        return self._slowest(streams, replies)

    async def fences_async(self, streams: Sequence[str], group: str) -> dict[str, dict[int, Fence]]:
        """Stream -> partition -> how far `group` has applied it in every shard.

        A partition that some shard has nothing of is missing: nothing of it is known to be applied.
        """
        shards = range(self.keys.shards)
        with answering():
            client = self._loop()
            await client.initialize()
            self._agree(await client.get(self.keys.shard_count()))
            async with client.pipeline(transaction=False) as pipe:
                for stream in streams:
                    for shard in shards:
                        pipe.hgetall(self.keys.fences(group, stream, shard))
                replies = iter(await pipe.execute())
        found: dict[str, dict[int, Fence]] = {}
        for stream in streams:
            held = [{int(p): fence_of(said) for p, said in next(replies).items()} for _ in shards]
            everywhere = set(held[0]).intersection(*held)
            found[stream] = {p: min((one[p] for one in held), key=lambda f: f.offset) for p in sorted(everywhere)}
        return found

    def close(self) -> None:
        """Close the connections of threads."""
        if self._sync is not None:
            self._sync.close()
            self._sync = None

    async def aclose(self) -> None:
        """Close all connections."""
        self.close()
        if self._async is not None:
            await self._async.aclose()
            self._async = None

    def sync(self) -> Any:
        """redis-py's client for threads."""
        if self._sync is None:
            client = connect(self._url, timeout=self._timeout)
            self._direct, self._sync = Direct(client), client  # in this order: another thread may look meanwhile
        return self._sync

    def _loop(self) -> Any:
        if self._async is None:
            self._async = connect_async(self._url, timeout=self._timeout)
        return self._async

    def _ask(self, commands: list[Command]) -> list[Any]:
        client = self.sync()
        if len(commands) == 1:  # which needs no pipeline, a tenth of the whole read
            return [self._direct.send(commands[0])]
        return ask(client, commands)

    async def _ask_async(self, commands: list[Command]) -> list[Any]:
        client = self._loop()
        await client.initialize()
        if len(commands) == 1:
            return [await send_async(client, commands[0])]
        return await ask_async(client, commands)

    def _doubtful(self, replies: list[list[bytes]]) -> bool:
        """Whether a shard had nothing at all of what it was asked for, as if the tiles were elsewhere."""
        return any(not any(reply[1:-2:2]) for reply in replies) and monotonic() - self._agreed_at > BELIEVED

    def _agree(self, stored: bytes | None) -> None:
        if stored is not None and int(stored) != self.keys.shards:
            raise ShardsDiffer(self.keys.namespace, int(stored), self.keys.shards)
        self._agreed_at = monotonic()

    def _queue_clocks(self, pipe: Any, streams: Sequence[str]) -> Any:
        for stream in streams:
            for shard in range(self.keys.shards):
                pipe.hgetall(self.keys.clock(stream, shard))
        return pipe

    def _slowest(self, streams: Sequence[str], replies: list[dict[bytes, bytes]]) -> dict[str, dict[int, int]]:
        clocks: dict[str, dict[int, int]] = {}
        answers = iter(replies)
        for stream in streams:
            shards = [{int(p): int(t) for p, t in next(answers).items()} for _ in range(self.keys.shards)]
            partitions = set().union(*shards)
            clocks[stream] = {p: min(s.get(p, 0) for s in shards) for p in sorted(partitions)}
        return clocks


def _commands(calls: Sequence[Call], how: str, script: str) -> list[Command]:
    return [(how, script, len(keys), *keys, *args) for keys, args in calls]
