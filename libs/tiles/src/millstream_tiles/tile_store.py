"""Tiles in Valkey (or Redis 7 and newer): one atomic script a batch, with the fence inside."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import redis.asyncio
from redis.exceptions import NoScriptError, RedisError

from millstream_tiles.errors import StoreUnavailable
from millstream_tiles.partials import TileBatch
from millstream_tiles.ports import Applied, Fence, Outcome
from millstream_tiles.scripts import Script
from millstream_tiles.tile_keys import TileKeys, entity_bytes

APPLY = Script(files("millstream_tiles").joinpath("tiles.lua").read_text())


class ValkeyTileStore:
    """A TileStore in Valkey. The server must not evict (`maxmemory-policy noeviction`): a tile lost alone is a wrong number.

    Losing everything is safe, as the fences are lost with it.
    """

    def __init__(self, url: str, namespace: str, shards: int = 1, *, timeout: float = 10.0) -> None:
        self._keys = TileKeys(namespace, shards)
        self.shards = shards
        # The timeout (seconds) is many times the longest script (50 ms for 5,000 events), so that only a server which is
        # hung or gone meets it.
        self._client = redis.asyncio.Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout)

    async def apply(self, batch: TileBatch, *, group: str) -> Applied:
        keys, args = self.call(batch, group)
        reply: list[Any] = await self._run(keys, args)
        outcome = Outcome(reply[0].decode())
        seen = (
            frozenset(i.decode("utf-8", "surrogatepass") for i in reply[2]) if outcome is Outcome.SEEN else frozenset()
        )
        return Applied(outcome=outcome, fence=int(reply[1]), seen=seen)

    def call(self, batch: TileBatch, group: str) -> tuple[list[bytes], list[bytes | int]]:
        """Keys and arguments of the script, in the order that `tiles.lua` states."""
        shard, names = batch.shard, self._keys
        ids = names.ids(batch.stream, shard)
        keys: list[bytes] = [names.fences(group, batch.stream, shard), names.clock(batch.stream, shard), ids]
        args: list[bytes | int] = [batch.partition, batch.start, batch.end, batch.stream_time, int(batch.accept_gap)]
        args += [len(batch.ids), len(batch.families), batch.dedupe_span]
        for bucket, members in batch.ids.items():
            keys += [b"%b:%d" % (ids, near) for near in (bucket - 1, bucket, bucket + 1)]
            args += [bucket, ids + b":", len(members), *map(entity_bytes, members)]
        for family in batch.families:
            prefix = names.family(family.view, family.slide, family.layout, shard)
            keys += [prefix + entity_bytes(e) for e in family.entities]
            args += [family.layout.ops.encode(), len(family.entities)]
            args += [family.counts.astype("<u4").tobytes(), family.rows.astype("<f8").tobytes()]
            args += [family.cutoff, family.keep, family.expire]
        return keys, args

    async def fence(self, group: str, stream: str, partition: int) -> Fence | None:
        try:
            async with self._client.pipeline(transaction=False) as pipe:
                for shard in range(self.shards):
                    pipe.hget(self._keys.fences(group, stream, shard), str(partition))
                stored = await pipe.execute()
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"the online store did not answer: {error}") from error
        if None in stored:
            return None
        offset, stream_time = min(tuple(map(int, s.split())) for s in stored)
        return Fence(offset=offset, stream_time=stream_time)

    async def check(self) -> None:
        """Whether the server answers. Raises StoreUnavailable."""
        try:
            await self._client.ping()
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"the online store did not answer: {error}") from error

    async def close(self) -> None:
        await self._client.aclose()

    async def _run(self, keys: list[bytes], args: list[bytes | int]) -> list[Any]:
        try:
            try:
                return list(await self._client.evalsha(APPLY.sha, len(keys), *keys, *args))
            except NoScriptError:  # a fresh server, or one that was told to forget
                return list(await self._client.eval(APPLY.text, len(keys), *keys, *args))
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"the online store did not answer: {error}") from error
