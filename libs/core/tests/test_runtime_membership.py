"""A member whose client gives up by itself joins again, or its process ends: nobody stands by for ever, alive and deaf."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import KafkaError

from millstream.runtime.service import Service

from .runtime_kit import HASTY, Ledger, committed, flight, new_topic, produce, running, service, until

pytestmark = pytest.mark.connected
GROUP = "wardens"


async def test_heartbeats_that_end_are_begun_again(kafka: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    topic, ledger, broken = await new_topic(kafka.bootstrap, GROUP), Ledger(), asyncio.Event()
    beat = GroupCoordinator._do_heartbeat

    async def answered_strangely(self: Any) -> bool:
        if self.group_id == GROUP and not broken.is_set():
            broken.set()
            raise KafkaError("Unexpected exception in heartbeat task: UnknownError()")  # as the client does
        return bool(await beat(self))

    made = service(kafka.bootstrap)
    made.hears([topic], group=GROUP, handler=ledger, retry=HASTY)
    async with running(made):
        await produce(kafka.bootstrap, topic, flight(0))
        await until(lambda: made.metrics.consumed.labels(topic, GROUP)._value.get() == 1)
        monkeypatch.setattr(GroupCoordinator, "_do_heartbeat", answered_strangely)
        await broken.wait()
        await produce(kafka.bootstrap, topic, flight(1))
        await until(lambda: made.metrics.consumed.labels(topic, GROUP)._value.get() == 2)
        assert made.health.fatal is None
    assert await committed(kafka.bootstrap, GROUP, topic) == 2


@asynccontextmanager
async def at_work(kafka: Any) -> AsyncIterator[tuple[Service, asyncio.Event]]:
    """A service that has read one record, and what is set when it asks for its process' end."""
    topic, stopped = await new_topic(kafka.bootstrap, GROUP), asyncio.Event()
    made = service(kafka.bootstrap)
    made.on_fatal = stopped.set
    made.hears([topic], group=GROUP, handler=Ledger(), retry=HASTY)
    async with running(made):
        await produce(kafka.bootstrap, topic, flight(0))
        await until(lambda: made.metrics.consumed.labels(topic, GROUP)._value.get() == 1)
        yield made, stopped


async def stumbles(self: Any, *_: Any) -> Any:
    raise KeyError(("node", 1))


async def test_a_coordination_that_ends_ends_the_process(kafka: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with at_work(kafka) as (made, stopped):
        monkeypatch.setattr(GroupCoordinator, "_maybe_do_autocommit", stumbles)
        for heard in made._subscriptions:
            heard._subscriber.consumer._coordinator.request_rejoin()
        async with asyncio.timeout(30):
            await stopped.wait()
    assert "Unexpected error during coordination" in str(made.health.fatal)


async def test_a_fetching_that_ends_ends_the_process(kafka: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client goes on to beat its heart, and hands nothing out: nobody could tell it from a stream that is quiet."""
    async with at_work(kafka) as (made, stopped):
        monkeypatch.setattr(Fetcher, "_proc_fetch_request", stumbles)
        async with asyncio.timeout(30):
            await stopped.wait()
    assert "Unexpected error during data retrieval" in str(made.health.fatal)
