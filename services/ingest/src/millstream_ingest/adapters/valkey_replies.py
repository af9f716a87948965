"""SharedReplies in Valkey or Redis: one key each, set if absent, gone by itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable
from typing import Any, TypeVar

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from millstream_ingest.domain.replies import Reply
from millstream_ingest.errors import RepliesAway
from millstream_ingest.metrics import IngestMetrics

log = logging.getLogger(__name__)

PATIENCE = 0.25
"""Seconds for one answer: a request waits for it before it is even checked."""
REST = 5.0
"""Seconds for which nobody asks again after the store did not answer: else every request would wait to find it away."""
LARGEST = 1024 * 1024
"""Bytes of a reply, which is one of a batch of 10,000 events. A larger one is remembered by the replica that gave it alone."""
CLAIM = b"\xc1"
"""Begins a claim; MessagePack, in which replies are, never uses this byte."""
_SETTLE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1
"""
"""Whoever was so slow that its claim ended must not overwrite what the next one answered."""

T = TypeVar("T")


class ValkeyReplies:
    """`window` and `claim_for` in seconds. A replica that dies in the middle leaves a claim that ends after `claim_for`."""

    def __init__(self, url: str, *, window: float, claim_for: float, metrics: IngestMetrics) -> None:
        self._redis: Redis = Redis.from_url(url, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE)
        self._settle = self._redis.register_script(_SETTLE)
        self._window = round(window * 1000)
        self._claim_for = round(claim_for * 1000)
        self._metrics = metrics
        self._rest_until = 0.0

    async def claim(self, key: str, claim: bytes) -> bool:
        return bool(await self._asked(self._redis.set(_name(key), CLAIM + claim, nx=True, px=self._claim_for)))

    async def find(self, key: str) -> Reply | None:
        found: Any = await self._asked(self._redis.get(_name(key)))
        return msgspec.msgpack.decode(found, type=Reply) if found and found[:1] != CLAIM else None

    async def settle(self, key: str, claim: bytes, reply: Reply | None) -> None:
        kept = b"" if reply is None or len(reply.body) > LARGEST else msgspec.msgpack.encode(reply)
        try:
            await self._asked(self._settle(keys=[_name(key)], args=[CLAIM + claim, kept, self._window]))
        except RepliesAway:
            return  # the claim ends by itself

    async def close(self) -> None:
        await self._redis.aclose()

    async def _asked(self, answer: Awaitable[T]) -> T:
        if time.monotonic() < self._rest_until:
            if hasattr(answer, "close"):
                answer.close()
            raise RepliesAway("the store of replies was away a moment ago")
        try:
            return await answer
        except (RedisError, OSError) as error:
            self._rest_until = time.monotonic() + REST
            self._metrics.replies_away.inc()
            log.warning("replies are not shared for %.0f s: %s", REST, error)
            raise RepliesAway(str(error)) from error


def _name(key: str) -> str:
    return f"millstream:reply:{key}"
