"""How much a producer may send: a bucket that keeps its promise, and replicas that share it and never wait."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from millstream.contracts.times import SECOND
from millstream.errors import Refusal
from millstream.testing.valkey import EmbeddedValkey
from millstream_ingest import app as front_door
from millstream_ingest.adapters import valkey_quotas
from millstream_ingest.domain.bucket import Bucket
from millstream_ingest.domain.producer import ANONYMOUS, Producer
from millstream_ingest.errors import QuotasAway
from millstream_ingest.handlers import Permit, Quotas
from millstream_ingest.handlers.quotas import MOST, SETTLE_EVERY
from millstream_ingest.ports import Spent

from .conftest import Airport, departure, lines
from .test_ingest_keys import ADA, BOB, guarded, state

STEPS = st.lists(st.tuples(st.integers(0, 3 * SECOND), st.floats(0.01, 50.0)), max_size=60)


@settings(deadline=None)
@given(rate=st.floats(0.1, 1000.0), burst=st.floats(0.1, 10.0), steps=STEPS)
def test_no_time_sees_more_than_the_burst_and_the_rate_and_the_last_one(
    rate: float, burst: float, steps: Sequence[tuple[int, float]]
) -> None:
    capacity = max(1.0, rate * burst)
    bucket, now, taken = Bucket(rate, capacity, 0), 0, []
    for after, cost in steps:
        now += after
        if bucket.wait(cost, now) == 0:
            bucket.take(cost, now)
            taken.append((now, cost))
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            spent = sum(cost for _, cost in taken[first : last + 1])
            flowed = (taken[last][0] - taken[first][0]) * rate / SECOND
            over = max(0.0, taken[last][1] - capacity)
            assert spent <= capacity + flowed + over + 1e-3


@settings(deadline=None)
@given(rate=st.floats(0.1, 1000.0), burst=st.floats(0.1, 10.0), steps=STEPS, cost=st.floats(0.01, 1e6))
def test_who_waits_as_long_as_told_is_let_through_and_not_much_earlier(
    rate: float, burst: float, steps: Sequence[tuple[int, float]], cost: float
) -> None:
    bucket, now = Bucket(rate, max(1.0, rate * burst), 0), 0
    for after, earlier in steps:
        now += after
        bucket.take(earlier, now)
    wait = bucket.wait(cost, now)
    if wait > 0.01:
        assert bucket.wait(cost, now + int(wait * SECOND * 0.9)) > 0
    assert bucket.wait(cost, now + int(wait * SECOND) + 1) == 0


class Hour:
    """The time of all buckets. It goes on when it is told to: nothing flows in while a busy machine stands still."""

    def __init__(self) -> None:
        self.micros = SECOND

    def goes_on(self, seconds: float) -> None:
        self.micros += round(seconds * SECOND)


@pytest.fixture
def hour(monkeypatch: pytest.MonkeyPatch) -> Hour:
    made = Hour()
    monkeypatch.setattr(front_door, "time", SimpleNamespace(monotonic_ns=lambda: made.micros * 1000))
    return made


async def test_who_has_used_up_a_quota_is_told_how_long_and_nothing_is_taken(hour: Hour) -> None:
    airport = Airport(quota_events="2/s", quota_burst=2.0)
    async with airport.http:
        for n in range(4):
            assert (await airport.send(departure(flight_id=str(n)))).status_code == 202
        refused = await airport.send(departure(flight_id="more"))

    assert (refused.status_code, refused.json()["error"], refused.json()["outcome"]) == (429, "quota", "not_accepted")
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["message"] == "anonymous may send 2 events/s; nothing was taken, try again in 1 s"
    assert len(airport.log.entries) == 4
    assert airport.counted("millstream_requests_refused_total", reason="quota") == 1


async def test_a_batch_is_charged_by_its_events_and_one_that_is_larger_than_the_burst_goes_through_when_it_is_full(
    hour: Hour,
) -> None:
    airport = Airport(quota_events="10/s", quota_burst=1.0)
    async with airport.http:
        large = await airport.batch(lines(*(departure(flight_id=str(n)) for n in range(30))))
        then = await airport.batch(lines(departure(flight_id="x")))

    assert large.status_code == 202
    assert (then.status_code, then.headers["retry-after"]) == (429, "3"), "20 are owed, and one more is wanted"


async def test_bytes_are_counted_as_they_are_unpacked(hour: Hour) -> None:
    import gzip

    airport = Airport(quota_bytes="1kB/s", quota_burst=1.0)
    body = json.dumps(departure(note="x" * 5000)).encode()
    async with airport.http:
        first = await airport.post("flights-departed/events", gzip.compress(body), content_encoding="gzip")
        then = await airport.send(departure())

    assert first.status_code == 202
    assert (then.status_code, then.json()["message"][:33]) == (429, "anonymous may send 1000 bytes/s; ")


async def test_a_stream_is_slowed_down_and_not_refused() -> None:
    """Eighty events in pieces of twenty at 100 a second, 20 at once: it takes six tenths of a second, and all are there."""
    airport = Airport(quota_events="100/s", quota_burst=0.2)

    async def body() -> AsyncIterator[bytes]:
        for n in range(0, 80, 20):
            yield lines(*(departure(flight_id=str(k)) for k in range(n, n + 20)))

    async with airport.http:
        began = time.monotonic()
        answer = await airport.post("flights-departed/events", body(), content_type="application/x-ndjson")
        took = time.monotonic() - began

    assert json.loads(answer.text.splitlines()[-1])["accepted"] == 80
    assert took >= 0.55


async def test_a_stream_that_would_stand_still_ends_and_says_why() -> None:
    airport = Airport(quota_events="1/min", quota_burst=1.0, body_timeout=30)

    async def body() -> AsyncIterator[bytes]:
        yield lines(departure(flight_id="a"))
        yield lines(*(departure(flight_id=str(k)) for k in range(20)))

    async with airport.http:
        answer = await airport.post("flights-departed/events", body(), content_type="application/x-ndjson")

    last = json.loads(answer.text.splitlines()[-1])
    assert (last["accepted"], last["error"]) == (1, "quota")
    assert len(airport.log.entries) == 1


async def test_each_key_has_its_own_bucket_and_its_own_limit_where_it_says_one(hour: Hour) -> None:
    airport = guarded(state(ADA, "*", events_per_second=1.0), state(BOB, "*"), quota_events="1000/s", quota_burst=1.0)
    async with airport.http:
        ada = [(await airport.send(departure(flight_id=str(n)), x_api_key=ADA)).status_code for n in range(3)]
        bob = [(await airport.send(departure(flight_id=str(n)), x_api_key=BOB)).status_code for n in range(3)]
    assert (ada, bob) == ([202, 429, 429], [202, 202, 202])


async def test_a_retry_by_its_idempotency_key_costs_nothing() -> None:
    airport = Airport(quota_events="1/min", quota_burst=120.0)
    async with airport.http:
        for _ in range(5):
            assert (await airport.send(departure(), idempotency_key="gate-1")).status_code == 202
        assert (await airport.send(departure(flight_id="b"))).status_code == 202
        assert (await airport.send(departure(flight_id="c"))).status_code == 429


def test_the_producers_remembered_are_bounded() -> None:
    quotas = Quotas(events=1.0, bytes=None, burst=1.0, shared=None, clock=lambda: 0)
    for n in range(MOST + 10):
        quotas.of(Producer(f"jwt:{n}", frozenset()))
    assert len(quotas._quotas) == MOST


def test_without_a_limit_nothing_is_kept() -> None:
    quotas = Quotas(events=None, bytes=None, burst=1.0, shared=None, clock=lambda: 0)
    assert quotas.of(ANONYMOUS) is None
    assert not quotas._quotas


class FarStore:
    """What the other replica says."""

    def __init__(self) -> None:
        self.level = 0.0
        self.away = False
        self.heard: list[Spent] = []

    async def settle(self, spent: Sequence[Spent]) -> Sequence[tuple[float, float]]:
        self.heard += spent
        if self.away:
            raise QuotasAway("no")
        return [(self.level, 0.0) for _ in spent]


async def test_what_the_others_took_is_heard_and_what_is_owed_is_paid_off_first() -> None:
    now, store = 0, FarStore()
    quotas = Quotas(events=10.0, bytes=None, burst=1.0, shared=store, clock=lambda: now)
    quota = quotas.of(ANONYMOUS)
    assert quota is not None
    quota.take(4, 0)
    store.level = -5.0
    await quotas.settle()

    assert store.heard == [Spent("anonymous", (10.0, 0.0), (10.0, 0.0), (4.0, 0.0))]
    with pytest.raises(Refusal, match="try again in 1 s"):
        Permit(ANONYMOUS.name, quota).charge(1, 1)
    now = round(0.6 * SECOND)
    Permit(ANONYMOUS.name, quota).charge(1, 1)

    store.away = True
    await quotas.settle()
    store.away = False
    quota.take(1, 0)
    await quotas.settle()
    assert store.heard[-1].amounts == (1.0, 0.0), "what went through while the store was away is nobody's debt"


class SharedHour(Hour):
    """The store's as well, which goes by what it is told in place of its own clock."""

    def __init__(self, store: Redis) -> None:
        super().__init__()
        self._store = store

    async def passes(self, seconds: float) -> None:
        self.goes_on(seconds)
        await self._store.mset({"hour:s": self.micros // SECOND, "hour:us": self.micros % SECOND})


@pytest.fixture
async def shared_hour(valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SharedHour]:
    valkey.flush()
    script = valkey_quotas.SCRIPT.replace("redis.call('TIME')", "redis.call('MGET', 'hour:s', 'hour:us')")
    assert script != valkey_quotas.SCRIPT
    monkeypatch.setattr(valkey_quotas, "SCRIPT", script)
    monkeypatch.setattr(valkey_quotas, "PATIENCE", 30.0)  # a store that is slow is not away
    async with Redis.from_url(valkey.url) as store:
        made = SharedHour(store)
        monkeypatch.setattr(front_door, "time", SimpleNamespace(monotonic_ns=lambda: made.micros * 1000))
        await made.passes(0)
        yield made


@pytest.fixture
async def replicas(valkey: EmbeddedValkey, shared_hour: SharedHour) -> AsyncIterator[tuple[Airport, Airport]]:
    made = [Airport(valkey=valkey.url, quota_events="100/s", quota_burst=1.0) for _ in range(2)]
    async with made[0].http, made[1].http:
        yield made[0], made[1]
    for one in made:
        for work in one.service._after:
            await work()


def sharing(airport: Airport) -> Any:
    [found] = [work.__self__ for what, work in airport.service._loops if what == "sharing quotas"]
    return found


async def taking(airport: Airport, most: int) -> int:
    """How many of `most` events are taken before one is refused."""
    for n in range(most):
        if (await airport.send(departure(flight_id=str(n)))).status_code != 202:
            return n
    return most


@pytest.mark.connected
async def test_the_sum_of_two_replicas_holds(replicas: tuple[Airport, Airport], shared_hour: SharedHour) -> None:
    """100 events/s, 100 at once, for four seconds: 500. Too much is what both take before they hear of each other, at most."""
    seconds, taken = 4.0, 0
    for _ in range(round(seconds / SETTLE_EVERY)):
        await shared_hour.passes(SETTLE_EVERY)
        first, other, *_ = await asyncio.gather(
            *(taking(one, 15) for one in replicas), *(sharing(one).settle() for one in replicas)
        )
        taken += first + other

    burst, rate, unheard = 100, 100, 2 * 100 * 0.2
    print(f"{taken} of {burst + rate * seconds:g} taken")
    assert taken <= burst + rate * seconds + unheard
    assert taken >= 0.85 * (burst + rate * seconds)


@pytest.mark.connected
async def test_a_frozen_valkey_makes_nobody_wait_and_each_replica_counts_for_itself(
    replicas: tuple[Airport, Airport], shared_hour: SharedHour, valkey: EmbeddedValkey
) -> None:
    seconds, taken = 2.5, [0, 0]
    for one in replicas:
        await taking(one, 1)
        await sharing(one).settle()
        await taking(one, 1)
    valkey.pause()
    try:
        asked = [asyncio.create_task(sharing(one).settle()) for one in replicas]
        for _ in range(10):
            shared_hour.goes_on(seconds / 10)
            for n, one in enumerate(replicas):
                taken[n] += await taking(one, 120)
        assert not any(task.done() for task in asked), "nobody waited until Valkey answered, or was given up"
    finally:
        valkey.resume()
        await asyncio.gather(*asked)

    assert all(0.7 * 100 * seconds <= each <= 100 + 100 * seconds for each in taken), taken


@pytest.mark.connected
async def test_a_valkey_that_does_not_answer_is_counted_as_away(valkey: EmbeddedValkey) -> None:
    airport = Airport(valkey=valkey.url, quota_events="100/s")
    running = asyncio.create_task(sharing(airport).run())
    valkey.pause()
    try:
        async with airport.http, asyncio.timeout(30):
            assert (await airport.send(departure())).status_code == 202
            while not airport.counted("millstream_ingest_quotas_away_total"):  # noqa: ASYNC110 - another task's state
                await asyncio.sleep(0.02)
    finally:
        valkey.resume()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        for work in airport.service._after:
            await work()


@pytest.mark.connected
async def test_a_bucket_that_is_full_is_forgotten_and_no_hostile_name_breaks_the_store(
    valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prometheus_client import CollectorRegistry

    from millstream_ingest.metrics import IngestMetrics

    monkeypatch.setattr(valkey_quotas, "PATIENCE", 30.0)
    valkey.flush()
    store = valkey_quotas.ValkeyQuotas(valkey.url, metrics=IngestMetrics(CollectorRegistry()))
    names = ["anonymous", "jwt:a b\r\nFLUSHALL\r\n", "jwt:é\x00"]
    spent = [Spent(name, (0.1, 10.0), (10.0, 2000.0), (5.0, 500.0)) for name in names]
    async with Redis.from_url(valkey.url) as redis:
        found: Any = await store.settle(spent)
        assert found == [pytest.approx((5.0, 1500.0), abs=0.2)] * 3
        assert await redis.dbsize() == 3
        told_at = 1000 * float(await redis.hget("millstream:quota:anonymous", "at") or 0)
        gone_at = await redis.pexpiretime("millstream:quota:anonymous")
        assert gone_at - told_at == pytest.approx(51_000, abs=10), "fifty seconds until it is full, and one more"
        unlimited = await store.settle([Spent("x", (0.0, 10.0), (0.0, 10.0), (1e9, 20.0))])
        assert unlimited == [pytest.approx((0.0, -10.0))]
    await store.close()
