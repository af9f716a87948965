"""The snapshots in Valkey: one hash with a field for each loop, so that one HSET replaces states and positions together."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisClusterException, RedisError

from millstream.errors import RetryLater

TIMEOUT = 5.0
"""Seconds. A snapshot has some MB; a server that takes longer is away for us, and the next one comes soon."""

KEPT = 90 * 86_400
"""Seconds by the wall clock. A loop that no start has known for so long is forgotten. Not sooner: who runs another project for
a while comes back to this one, and without its snapshot all that Kafka has is judged again, by the rules of that day."""


class ValkeySnapshots:
    """The port `Snapshots`."""

    def __init__(
        self, url: str, namespace: str, loops: Collection[str], clock: Callable[[], float] = time.time
    ) -> None:
        """`loops`: all of the project. `clock`: seconds since the epoch."""
        self._loops = set(loops)
        self._clock = clock
        self._key = f"{namespace}:drift:loops"
        self._away = f"{namespace}:drift:away"
        """When a start did not know a loop for the first time since one did (seconds), by loop."""
        self._before = f"{namespace}:drift:snapshot"
        """What releases before wrote, of all loops in one; none reads it any more."""
        self._redis = _client(url)

    async def check(self) -> None:
        """Whether the server answers; forgets what nobody has read for long. Raises RetryLater."""
        try:
            await self._redis.initialize()  # of a cluster: who has which keys
            await self._forget()
            await self._redis.unlink(self._before)
        except (RedisError, RedisClusterException, OSError) as error:
            raise RetryLater(f"Valkey does not answer, check MILLSTREAM_VALKEY: {error}") from error

    async def _forget(self) -> None:
        """Of loops that other projects have, or that left this one, those that were away for too long."""
        now = self._clock()
        kept = {field.decode() for field in await self._redis.hkeys(self._key)}
        since = {field.decode(): float(at) for field, at in (await self._redis.hgetall(self._away)).items()}
        here = since.keys() & self._loops
        gone = {loop for loop in kept - self._loops if now - since.get(loop, now) > KEPT}
        news = kept - self._loops - since.keys()
        if gone:
            await self._redis.hdel(self._key, *gone)
        if here or gone:
            await self._redis.hdel(self._away, *here, *gone)
        if news:
            await self._redis.hset(self._away, mapping=dict.fromkeys(news, now))

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
