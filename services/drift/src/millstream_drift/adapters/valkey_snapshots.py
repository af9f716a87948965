"""The snapshot in Valkey: one key, so that one SET replaces state and position together."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisClusterException, RedisError

from millstream.errors import RetryLater

TIMEOUT = 5.0
"""Seconds. A snapshot has some MB; a server that takes longer is away for us, and the next one comes soon."""


class ValkeySnapshots:
    """The port `Snapshots`."""

    def __init__(self, url: str, namespace: str) -> None:
        self._url = url
        self._key = f"{namespace}:drift:snapshot"
        self._redis = _client(url)

    async def check(self) -> None:
        """Whether the server answers. Raises RetryLater."""
        await self.load()

    async def load(self) -> bytes | None:
        try:
            await self._redis.initialize()  # of a cluster: who has which keys
            found = await self._redis.get(self._key)
        except (RedisError, RedisClusterException, OSError) as error:
            raise RetryLater(f"Valkey does not answer, check MILLSTREAM_VALKEY: {error}") from error
        return found if isinstance(found, bytes) else None

    async def save(self, snapshot: bytes) -> None:
        try:
            await self._redis.initialize()
            await self._redis.set(self._key, snapshot)
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
