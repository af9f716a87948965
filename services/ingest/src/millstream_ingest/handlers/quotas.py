"""How much each producer may send: a bucket of events and one of bytes, shared by the replicas and never waited for."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Callable

from millstream.contracts.times import MINUTE
from millstream.errors import Refusal
from millstream_ingest.domain.bucket import Bucket
from millstream_ingest.domain.producer import Producer
from millstream_ingest.errors import QuotasAway
from millstream_ingest.ports import SharedQuotas, Spent

log = logging.getLogger(__name__)

SETTLE_EVERY = 0.1
"""Seconds in which replicas know nothing of each other. What they let through too much then is owed, and paid off first."""
MOST = 10_000
"""Producers remembered, about 1 KB each. They hold credentials, so nobody makes them up; the longest silent one goes."""


class Quota:
    """One producer's. Used from one event loop only."""

    __slots__ = ("_clock", "_quotas", "_said_at", "bytes", "events", "name", "spent")

    def __init__(self, name: str, events: Bucket | None, bytes: Bucket | None, quotas: Quotas) -> None:
        self.name = name
        self.events = events
        self.bytes = bytes
        self.spent = [0.0, 0.0]
        """Events and bytes since the other replicas were told."""
        self._quotas = quotas
        self._clock = quotas.clock
        self._said_at = -MINUTE

    def wait(self, events: float, bytes: float) -> float:
        """Seconds until both may be taken; 0 is now."""
        now = self._clock()
        first = 0.0 if self.events is None else self.events.wait(events, now)
        return first if self.bytes is None else max(first, self.bytes.wait(bytes, now))

    def most(self, events: int, bytes: int) -> int:
        """How many of so many events, of so many bytes together, full buckets hold; 1 at least."""
        share = 1.0
        for bucket, cost in ((self.events, events), (self.bytes, bytes)):
            if bucket is not None and cost > 0:
                share = min(share, bucket.capacity / cost)
        return max(1, int(events * share))

    def take(self, events: float, bytes: float) -> None:
        now = self._clock()
        for bucket, cost in ((self.events, events), (self.bytes, bytes)):
            if bucket is not None:
                bucket.take(cost, now)
        self.spent[0] += events
        self.spent[1] += bytes
        self._quotas.spent(self)

    def refusal(self, wait: float) -> Refusal:
        """What a producer is told that has to wait so long."""
        now = self._clock()
        if now - self._said_at >= MINUTE:
            self._said_at = now
            log.info("producer %s has used up its quota", self.name)
        limits = []
        if self.events is not None:
            limits.append(f"{self.events.rate:g} events/s")
        if self.bytes is not None:
            limits.append(f"{self.bytes.rate:g} bytes/s")
        seconds = max(1, math.ceil(wait))
        text = f"{self.name} may send {' and '.join(limits)}; nothing was taken, try again in {seconds} s"
        return Refusal("quota", text, retry_after=seconds)


class Quotas:
    """All of them. `clock` gives microseconds that never go backwards. `burst`: seconds of a rate that may come at once."""

    def __init__(
        self,
        *,
        events: float | None,
        bytes: float | None,
        burst: float,
        shared: SharedQuotas | None,
        clock: Callable[[], int],
    ) -> None:
        self._default = events, bytes
        self._burst = burst
        self._shared = shared
        self.clock = clock
        self._quotas: OrderedDict[str, Quota] = OrderedDict()
        self._spent: dict[str, Quota] = {}

    def of(self, producer: Producer) -> Quota | None:
        """None without any limit."""
        events = producer.events or self._default[0]
        bytes = producer.bytes or self._default[1]
        if events is None and bytes is None:
            return None
        found = self._quotas.get(producer.name)
        if found is None or not (_has(found.events, events) and _has(found.bytes, bytes)):
            found = Quota(producer.name, self._bucket(events), self._bucket(bytes), self)
            self._quotas[producer.name] = found
            if len(self._quotas) > MOST:
                self._quotas.popitem(last=False)
        self._quotas.move_to_end(producer.name)
        return found

    def spent(self, quota: Quota) -> None:
        """The others are told soon."""
        if self._shared is not None:
            self._spent[quota.name] = quota

    async def run(self) -> None:
        """Tell the other replicas what went through, and hear what is left. Beside the requests, until cancelled."""
        while True:
            await asyncio.sleep(SETTLE_EVERY)
            await self.settle()

    async def settle(self) -> None:
        if self._shared is None or not self._spent:
            return
        quotas, self._spent = list(self._spent.values()), {}
        told = [
            Spent(
                quota.name,
                (_rate(quota.events), _rate(quota.bytes)),
                (_capacity(quota.events), _capacity(quota.bytes)),
                (quota.spent[0], quota.spent[1]),
            )
            for quota in quotas
        ]
        for quota in quotas:
            quota.spent = [0.0, 0.0]
        try:
            levels = await self._shared.settle(told)
        except QuotasAway:
            return  # what went through meanwhile is nobody's debt: later it would stop a producer that did nothing wrong
        now = self.clock()
        for quota, (events, bytes) in zip(quotas, levels, strict=True):
            if quota.events is not None:
                quota.events.set(events - quota.spent[0], now)
            if quota.bytes is not None:
                quota.bytes.set(bytes - quota.spent[1], now)

    def _bucket(self, rate: float | None) -> Bucket | None:
        return None if rate is None else Bucket(rate, max(1.0, rate * self._burst), self.clock())


def _has(bucket: Bucket | None, rate: float | None) -> bool:
    return rate is None if bucket is None else bucket.rate == rate


def _rate(bucket: Bucket | None) -> float:
    return 0.0 if bucket is None else bucket.rate


def _capacity(bucket: Bucket | None) -> float:
    return 0.0 if bucket is None else bucket.capacity
