"""SharedQuotas in Valkey or Redis: a bucket of events and one of bytes for each producer, in a script that is atomic."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from millstream_ingest.errors import QuotasAway
from millstream_ingest.metrics import IngestMetrics
from millstream_ingest.ports import Spent

log = logging.getLogger(__name__)

PATIENCE = 0.5
"""Seconds for one answer. No request waits for it."""
REST = 5.0
"""Seconds for which nobody asks again after the store did not answer."""
AT_ONCE = 500
"""Producers of one pipeline: a millisecond of the store's time."""

SCRIPT = """
local t = redis.call('TIME')
local now = t[1] + t[2] / 1e6
local old = redis.call('HMGET', KEYS[1], 'at', 'events', 'bytes')
local past = math.max(0, now - (tonumber(old[1]) or now))
local levels, full = {}, 0
for n = 1, 2 do
  local rate, capacity = tonumber(ARGV[3 * n - 2]), tonumber(ARGV[3 * n - 1])
  local spent = tonumber(ARGV[3 * n])
  local level = 0
  if rate > 0 then
    level = math.min(capacity, (tonumber(old[n + 1]) or capacity) + past * rate) - spent
    full = math.max(full, (capacity - level) / rate)
  end
  levels[n] = string.format('%.6f', level)
end
redis.call('HSET', KEYS[1], 'at', string.format('%.6f', now), 'events', levels[1], 'bytes', levels[2])
redis.call('PEXPIRE', KEYS[1], math.ceil(full * 1000) + 1000)
return levels
"""
"""Time is the store's: clocks of replicas differ. A bucket that is full again is forgotten: an absent one is full."""


class ValkeyQuotas:
    def __init__(self, url: str, *, metrics: IngestMetrics) -> None:
        self._redis: Redis = Redis.from_url(url, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE)
        self._metrics = metrics
        self._rest_until = 0.0

    async def settle(self, spent: Sequence[Spent]) -> Sequence[tuple[float, float]]:
        if time.monotonic() < self._rest_until:
            raise QuotasAway("the store of quotas was away a moment ago")
        try:
            found: list[tuple[float, float]] = []
            for first in range(0, len(spent), AT_ONCE):
                found += await self._pipeline(spent[first : first + AT_ONCE])
            return found
        except (RedisError, OSError) as error:
            self._rest_until = time.monotonic() + REST
            self._metrics.quotas_away.inc()
            log.warning("quotas are not shared for %.0f s: %s", REST, error)
            raise QuotasAway(str(error)) from error

    async def close(self) -> None:
        await self._redis.aclose()

    async def _pipeline(self, spent: Sequence[Spent]) -> list[tuple[float, float]]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for one in spent:
                numbers: list[Any] = []
                for n in range(2):
                    numbers += [one.rates[n], one.capacities[n], one.amounts[n]]
                pipe.eval(SCRIPT, 1, f"millstream:quota:{one.name}", *numbers)
            return [(float(events), float(bytes)) for events, bytes in await pipe.execute()]
