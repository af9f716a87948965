"""What a replica says of itself: which model state it obeys, which it refuses, and that it leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from millstream.contracts.envelope import envelope_of
from millstream.contracts.events import ReplicaObeyed, decode_event
from millstream.contracts.times import SECOND
from millstream.runtime.publisher import Outgoing
from millstream_serving.handlers import Replica, replica

from .conftest import NOON, Stage
from .test_serving_trials import not_a_number, old


@pytest.fixture(autouse=True)
def _soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "AGAIN", 0.01)


@asynccontextmanager
async def speaking(stage: Stage, every: float = 60.0, known: asyncio.Event | None = None) -> AsyncIterator[Replica]:
    """A replica called serving-0; its clock goes on by a second with each word."""
    words = iter(range(1_000_000))
    one = Replica(
        instance="serving-0",
        roster=stage.roster,
        publisher=stage.publisher,
        clock=lambda: NOON + next(words) * SECOND,
        every=every,
    )
    stage.listeners.append(one.changed)
    speaks = asyncio.create_task(one.run(known or stage.keeper.known))
    try:
        yield one
    finally:
        speaks.cancel()
        with suppress(asyncio.CancelledError):
            await speaks


def said(stage: Stage) -> list[ReplicaObeyed]:
    found = []
    for record in stage.publisher.sent:
        assert (record.topic, record.key) == ("millstream-replicas", b"flight-delay")
        event = decode_event(envelope_of(record.headers).type, record.value)
        assert isinstance(event, ReplicaObeyed)
        assert event.instance == "serving-0"
        found.append(event)
    return found


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_replica_says_what_it_obeys_and_what_it_had_to_refuse(stage: Stage) -> None:
    async with speaking(stage) as one:
        await until(lambda: len(said(stage)) == 1)
        champion = stage.package("1", old)
        await stage.obey(champion)
        await until(lambda: len(said(stage)) == 2)
        stage.promote(2, stage.package("2", not_a_number))
        await stage.heard(2)
        await until(lambda: len(said(stage)) == 3)
        await one.leave()
    fresh, obeyed, refused, left = said(stage)
    assert (fresh.revision, fresh.version, fresh.refused, fresh.leaving) == (0, None, 0, False)
    assert (obeyed.revision, obeyed.version, obeyed.refused) == (1, "1", 0)
    assert (refused.revision, refused.version, refused.refused, refused.refused_version) == (1, "1", 2, "2")
    assert "nan" in refused.reason
    assert left.leaving
    assert len({event.id for event in said(stage)}) == 4
    causes = [envelope_of(record.headers).causation_id for record in stage.publisher.sent]
    assert causes[:3] == [None, "state-flight-delay-1", "state-flight-delay-2"]


async def test_a_replica_without_news_is_heard_all_the_same(stage: Stage) -> None:
    async with speaking(stage, every=0.02):
        await until(lambda: len(said(stage)) >= 4)
    assert {event.revision for event in said(stage)} == {0}


async def test_a_replica_that_still_reads_the_models_says_nothing(stage: Stage) -> None:
    known = asyncio.Event()
    async with speaking(stage, every=0.001, known=known):
        await stage.obey(stage.package("1", old))
        await stage.obey(stage.package("2", old))
        assert said(stage) == []
        known.set()
        await until(lambda: len(said(stage)) > 0)
    assert said(stage)[0].revision == 2


async def test_what_kafka_did_not_hear_is_said_again_as_it_stands_then(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries, publish = 0, stage.publisher.publish

    async def counted(records: Sequence[Outgoing]) -> None:
        nonlocal tries
        tries += 1
        await publish(records)

    monkeypatch.setattr(stage.publisher, "publish", counted)
    stage.publisher.away = True
    async with speaking(stage) as one:
        await stage.obey(stage.package("1", old))
        await stage.obey(stage.package("2", old))
        await one.leave()
        heard = tries
        await until(lambda: tries > heard + 1)
        assert said(stage) == []
        stage.publisher.away = False
        await until(lambda: len(said(stage)) > 0)
    assert [event.version for event in said(stage)] == ["2"]


async def test_a_replica_that_leaves_does_not_wait_for_a_kafka_that_hangs(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs(records: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(replica, "LAST_WORDS", 0.05)
    monkeypatch.setattr(stage.publisher, "publish", hangs)
    one = Replica(instance="serving-0", roster=stage.roster, publisher=stage.publisher)
    leaving: Awaitable[None] = one.leave()
    async with asyncio.timeout(30):
        await leaving
