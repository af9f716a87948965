"""Tiles in Valkey (or Redis 7 and newer), one server or a cluster: one atomic script a batch and shard, the fence inside."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError

from millstream_tiles.connection import answering, connect_async, shards_of
from millstream_tiles.errors import ShardsDiffer, StoreUnavailable
from millstream_tiles.partials import TileBatch
from millstream_tiles.ports import Applied, Fence, Outcome
from millstream_tiles.scripts import Script
from millstream_tiles.tile_keys import TileKeys, entity_bytes, fence_of

APPLY = Script(files("millstream_tiles").joinpath("tiles.lua").read_text())


class ValkeyTileStore:
    """A TileStore in Valkey. The server must not evict (`maxmemory-policy noeviction`): a tile lost alone is a wrong number.

    Losing everything of a shard is safe (a failover to a replica that was behind, a restart without a disk), as its fence is
    lost with it. `url` is one server or a cluster (see `connection`); `shards` is 1 and 12 there, unless said.
    """

    def __init__(self, url: str, namespace: str, shards: int | None = None, *, timeout: float = 10.0) -> None:
        self.shards = shards_of(url, shards)
        self._keys = TileKeys(namespace, self.shards)
        # The timeout (seconds) is many times the longest script (100 ms for 10,000 events), so that only a server which is
        # hung or gone meets it.
        self._client = connect_async(url, timeout=timeout)
        self._claimed = False
        """Whether the store knows our number of shards; forgotten as soon as it may have lost something."""

    @property
    def keys(self) -> TileKeys:
        """The names of everything in this store."""
        return self._keys

    @property
    def client(self) -> Any:
        """The asyncio client, for what is not a batch: the table of generations, the removal of old ones."""
        return self._client

    async def apply(self, batch: TileBatch, *, group: str) -> Applied:
        keys, args = self.call(batch, group)
        try:
            with answering():
                await self._claim()
                reply: list[Any] = await self._run(keys, args)
        except StoreUnavailable:
            self._claimed = False
            raise
        outcome = Outcome(reply[0].decode())
        if outcome is Outcome.BEHIND:
            self._claimed = False
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
        return [*keys, names.course(batch.stream, shard), names.revision(shard)], [*args, batch.revision]

    async def fence(self, group: str, stream: str, partition: int) -> Fence | None:
        with answering():
            await self._client.initialize()
            async with self._client.pipeline(transaction=False) as pipe:
                for shard in range(self.shards):
                    pipe.hget(self._keys.fences(group, stream, shard), str(partition))
                stored = await pipe.execute()
        if None in stored:
            return None
        return min((fence_of(one) for one in stored), key=lambda fence: fence.offset)

    async def check(self) -> None:
        """Whether every shard answers, and the namespace has as many as we think. Raises StoreUnavailable, ShardsDiffer."""
        with answering():
            await self._client.initialize()
            self._agree(await self._client.get(self._keys.shard_count()))
            async with self._client.pipeline(transaction=False) as pipe:
                for shard in range(self.shards):
                    pipe.hlen(self._keys.clock("", shard))
                await pipe.execute()

    async def close(self) -> None:
        await self._client.aclose()

    async def _claim(self) -> None:
        """Say in how many shards we write, unless another number was said before. Raises ShardsDiffer."""
        if not self._claimed:
            await self._client.initialize()
            self._agree(await self._client.set(self._keys.shard_count(), self.shards, nx=True, get=True))
            self._claimed = True

    def _agree(self, stored: bytes | None) -> None:
        if stored is not None and int(stored) != self.shards:
            raise ShardsDiffer(self._keys.namespace, int(stored), self.shards)

    async def _run(self, keys: list[bytes], args: list[bytes | int]) -> list[Any]:
        try:
            return list(await self._client.evalsha(APPLY.sha, len(keys), *keys, *args))
        except NoScriptError:  # a fresh server, a replica that was promoted, or one that was told to forget
            return list(await self._client.eval(APPLY.text, len(keys), *keys, *args))
