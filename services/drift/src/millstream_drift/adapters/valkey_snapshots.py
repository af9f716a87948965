"""The snapshot in Valkey: one key, so that one SET replaces state and position together."""

from __future__ import annotations

from redis.asyncio import Redis
from redis.exceptions import RedisError

from millstream.errors import RetryLater

TIMEOUT = 5.0
"""Seconds. A snapshot has some MB; a server that takes longer is away for us, and the next one comes soon."""


class ValkeySnapshots:
    """The port `Snapshots`."""

    def __init__(self, url: str, namespace: str) -> None:
        self._url = url
        self._key = f"{namespace}:drift:snapshot"
        self._redis = Redis.from_url(url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT)

    async def check(self) -> None:
        """Whether the server answers. Raises RetryLater."""
        await self.load()

    async def load(self) -> bytes | None:
        try:
            found = await self._redis.get(self._key)
        except (RedisError, OSError) as error:
            raise RetryLater(f"Valkey does not answer, check MILLSTREAM_VALKEY: {error}") from error
        return found if isinstance(found, bytes) else None

    async def save(self, snapshot: bytes) -> None:
        try:
            await self._redis.set(self._key, snapshot)
        except (RedisError, OSError) as error:
            raise RetryLater(f"Valkey did not take the snapshot: {error}") from error

    async def close(self) -> None:
        await self._redis.aclose()
