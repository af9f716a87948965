"""Two replicas and one Valkey: a retry that reaches the other one is answered as its first try was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from millstream.contracts.envelope import envelope_of
from millstream.testing.ports import free_port
from millstream.testing.valkey import EmbeddedValkey
from millstream_ingest.adapters import valkey_replies
from millstream_ingest.adapters.valkey_replies import ValkeyReplies
from millstream_ingest.domain.replies import Reply
from millstream_ingest.metrics import IngestMetrics

from .conftest import Airport, departure
from .test_ingest_keys import ADA, BOB, guarded, state
from .test_ingest_retries import HeldLog

pytestmark = pytest.mark.connected


@pytest.fixture(autouse=True)
def _on_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that takes a second is slow here, not away; and one that is away is left alone for longer than a test takes."""
    monkeypatch.setattr(valkey_replies, "PATIENCE", 30.0)
    monkeypatch.setattr(valkey_replies, "REST", 300.0)


@pytest.fixture
async def replicas(valkey: EmbeddedValkey) -> AsyncIterator[tuple[Airport, Airport]]:
    made = Airport(valkey=valkey.url), Airport(valkey=valkey.url)
    async with made[0].http, made[1].http:
        yield made
    for one in made:
        for work in one.service._after:
            await work()


async def test_a_retry_at_the_other_replica_is_answered_and_not_written(replicas: tuple[Airport, Airport]) -> None:
    first, other = replicas

    one = await first.send(departure(), idempotency_key="gate-1")
    again = await other.send(departure(), idempotency_key="gate-1")

    assert (again.status_code, again.content) == (one.status_code, one.content)
    assert again.headers["idempotent-replayed"] == "true"
    assert other.log.entries == []
    mismatch = await other.send(departure(flight_id="b"), idempotency_key="gate-1")
    assert mismatch.json()["error"] == "idempotency_mismatch"


async def test_an_events_id_is_known_where_it_was_taken(replicas: tuple[Airport, Airport]) -> None:
    """Without a key the other replica writes it again, as the same event: readers drop the second by its id."""
    for replica in replicas:
        for _ in range(2):
            assert (await replica.send(departure())).status_code == 202
    written = [[envelope_of(entry.headers).id for entry in replica.log.entries] for replica in replicas]
    assert written == [["2013-01-01-UA-1545-EWR"]] * 2


async def test_another_producer_s_key_is_another_one_in_the_store_too(valkey: EmbeddedValkey) -> None:
    keys = state(ADA, "*"), state(BOB, "*")
    first, other = guarded(*keys, valkey=valkey.url), guarded(*keys, valkey=valkey.url)
    async with first.http, other.http:
        await first.send(departure(), idempotency_key="gate-5", x_api_key=ADA)
        foreign = await other.send(departure(flight_id="b"), idempotency_key="gate-5", x_api_key=BOB)
        own = await other.send(departure(), idempotency_key="gate-5", x_api_key=ADA)

    assert (foreign.status_code, "idempotent-replayed" in foreign.headers) == (202, False)
    assert own.headers["idempotent-replayed"] == "true"
    assert len(other.log.entries) == 1
    for one in (first, other):
        for work in one.service._after:
            await work()


async def test_a_retry_that_overtakes_waits_for_the_first(
    replicas: tuple[Airport, Airport], monkeypatch: pytest.MonkeyPatch
) -> None:
    (first, other), held = replicas, HeldLog()
    monkeypatch.setattr(first.log, "append", held.append)
    one = asyncio.create_task(first.send(departure(), idempotency_key="gate-2"))
    await held.asked.wait()
    again = asyncio.create_task(other.send(departure(), idempotency_key="gate-2"))
    held.confirm.set()

    assert (await one).content == (await again).content
    assert (len(held.entries), other.log.entries) == (1, [])


async def test_a_first_try_that_failed_leaves_the_work_to_the_next(replicas: tuple[Airport, Airport]) -> None:
    first, other = replicas
    first.log.away = True
    assert (await first.send(departure(), idempotency_key="gate-3")).status_code == 503

    again = await other.send(departure(), idempotency_key="gate-3")

    assert (again.status_code, len(other.log.entries)) == (202, 1)


async def test_without_the_store_each_replica_knows_its_own() -> None:
    lonely = Airport(valkey=f"redis://127.0.0.1:{free_port()}/0")
    async with lonely.http:
        await lonely.send(departure(), idempotency_key="gate-4")
        again = await lonely.send(departure(), idempotency_key="gate-4")

    assert again.headers["idempotent-replayed"] == "true"
    assert lonely.counted("millstream_ingest_replies_away_total") == 1, "it is left alone for a while"


async def test_a_claim_that_ended_does_not_overwrite_the_answer_of_the_next(valkey: EmbeddedValkey) -> None:
    """The first replica hung for longer than its claim holds; its late answer is not the one that the key has."""
    metrics = IngestMetrics(CollectorRegistry())
    slow = ValkeyReplies(valkey.url, window=60, claim_for=0.05, metrics=metrics)
    other = ValkeyReplies(valkey.url, window=60, claim_for=60, metrics=metrics)
    try:
        assert await slow.claim("slow", b"a")
        async with asyncio.timeout(30):
            while not await other.claim("slow", b"b"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await other.settle("slow", b"b", Reply(b"", 202, b"of b"))
        await slow.settle("slow", b"a", Reply(b"", 202, b"of a"))
        assert await slow.find("slow") == Reply(b"", 202, b"of b")
        await slow.settle("slow", b"a", None)
        assert await slow.find("slow") == Reply(b"", 202, b"of b")
    finally:
        await slow.close()
        await other.close()
