"""The snapshots in Valkey: one hash with a field for each loop, so that one HSET replaces states and positions together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisClusterException, RedisError

from millstream.errors import RetryLater

TIMEOUT = 5.0
"""Seconds. A snapshot has some MB; a server that takes longer is away for us, and the next one comes soon."""


class ValkeySnapshots:
    """The port `Snapshots`."""

    def __init__(self, url: str, namespace: str, loops: Collection[str]) -> None:
        """`loops`: all of the project; what is kept of another has left it."""
        self._url = url
        self._loops = set(loops)
        self._key = f"{namespace}:drift:loops"
        self._before = f"{namespace}:drift:snapshot"
        """What releases before wrote, of all loops in one; none reads it any more."""
        self._redis = _client(url)

    async def check(self) -> None:
        """Whether the server answers; forgets what nobody reads any more. Raises RetryLater."""
        try:
            await self._redis.initialize()  # of a cluster: who has which keys
            gone = {field.decode() for field in await self._redis.hkeys(self._key)} - self._loops
            if gone:
                await self._redis.hdel(self._key, *gone)
            await self._redis.unlink(self._before)
        except (RedisError, RedisClusterException, OSError) as error:
            raise RetryLater(f"Valkey does not answer, check MILLSTREAM_VALKEY: {error}") from error

    async def load(self, loops: Sequence[str]) -> dict[str, bytes]:
        try:
            await self._redis.initialize()
            found = await self._redis.hmget(self._key, list(loops))
        except (RedisError, RedisClusterException, OSError) as error:
            raise RetryLater(f"Valkey does not answer, check MILLSTREAM_VALKEY: {error}") from error
        return {loop: raw for loop, raw in zip(loops, found, strict=True) if isinstance(raw, bytes)}

    async def save(self, snapshots: Mapping[str, bytes]) -> None:
        try:
            await self._redis.initialize()
            await self._redis.hset(self._key, mapping=dict(snapshots))
        except (RedisError, RedisClusterException, OSError) as error:
            raise RetryLater(f"Valkey did not take the snapshot: {error}") from error

    async def close(self) -> None:
        await self._redis.aclose()


def _client(url: str) -> Any:
    """One server, or a cluster by any of its nodes: redis+cluster://host:6379,host:6379, as features and serving take it."""
    options: dict[str, Any] = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT}
    if "+cluster://" not in url:
        return Redis.from_url(url, **options)
    first, *others = url.replace("+cluster", "", 1).split(",")
    nodes = [ClusterNode(host, int(port or 6379)) for host, _, port in (other.partition(":") for other in others)]
    return RedisCluster.from_url(first, startup_nodes=nodes, **options)
