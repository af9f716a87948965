"""What a group has committed when nothing, or nothing new, comes: what KEDA sees as lag is work that somebody has to do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import GroupCoordinatorNotAvailableError, UnknownError

from millstream.runtime.delivery import Record

from .runtime_kit import HASTY, Ledger, flight, new_topic, produce, running, service, until

pytestmark = pytest.mark.connected
GROUP = "belt"


async def position(bootstrap: str, topic: str) -> int | None:
    """Where the group would go on; None where it never committed."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        found = (await admin.list_consumer_group_offsets(GROUP)).get(TopicPartition(topic, 0))
    except GroupCoordinatorNotAvailableError:  # the first group of a new Kafka
        return None
    finally:
        await admin.close()
    return None if found is None or found.offset < 0 else int(found.offset)


async def becomes(bootstrap: str, topic: str, wanted: int) -> None:
    async with asyncio.timeout(30):
        while await position(bootstrap, topic) != wanted:  # noqa: ASYNC110 - Kafka's state
            await asyncio.sleep(0.05)


async def test_a_new_group_commits_its_beginning_before_anything_comes(kafka: Any) -> None:
    topic = await new_topic(kafka.bootstrap, GROUP)
    made = service(kafka.bootstrap)
    made.hears([topic], group=GROUP, handler=Ledger(), retry=HASTY)
    async with running(made):
        await becomes(kafka.bootstrap, topic, 0)


async def test_who_is_ready_has_committed_its_beginning(kafka: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay asks Kafka what the groups hear as soon as everybody is ready, and waits for nothing else."""
    topic, asked, may = await new_topic(kafka.bootstrap, GROUP), asyncio.Event(), asyncio.Event()
    make = GroupCoordinator._do_commit_offsets

    async def slowly(self: Any, assignment: Any, offsets: Any) -> None:
        asked.set()
        await may.wait()
        await make(self, assignment, offsets)

    monkeypatch.setattr(GroupCoordinator, "_do_commit_offsets", slowly)
    made = service(kafka.bootstrap)
    made.hears([topic], group=GROUP, handler=Ledger(), retry=HASTY)
    async with running(made):
        await asyncio.wait_for(asked.wait(), 30)
        assert f"partitions of {topic}" in made.health.not_ready()
        may.set()
        await until(lambda: not made.health.not_ready())
        assert await position(kafka.bootstrap, topic) == 0


async def test_a_new_group_does_not_commit_what_is_still_in_hand(kafka: Any) -> None:
    """The client's own position is behind the batch as soon as it was handed over."""
    topic = await new_topic(kafka.bootstrap, GROUP)
    ledger, done = Ledger(), asyncio.Event()

    async def busy(_: Record) -> None:
        await done.wait()

    ledger.on[flight(0)[1]] = busy
    await produce(kafka.bootstrap, topic, flight(0), flight(1))
    made = service(kafka.bootstrap)
    made.hears([topic], group=GROUP, handler=ledger, retry=HASTY)
    async with running(made):
        await becomes(kafka.bootstrap, topic, 0)
        done.set()
        await becomes(kafka.bootstrap, topic, 2)


async def test_what_the_store_has_is_committed_though_nothing_new_comes(kafka: Any) -> None:
    """A worker applied records and lost the partition before its commit: its successor has nothing to do, and says so."""
    topic = await new_topic(kafka.bootstrap, GROUP)
    await produce(kafka.bootstrap, topic, flight(0), flight(1), flight(2))
    await commit(kafka.bootstrap, topic, 1)
    ledger = Ledger()

    async def has_all(partitions: Any) -> dict[tuple[str, int], int]:
        return dict.fromkeys(partitions, 3)

    made = service(kafka.bootstrap)
    made.hears([topic], group=GROUP, handler=ledger, retry=HASTY, assigned=has_all)
    async with running(made):
        await becomes(kafka.bootstrap, topic, 3)
    assert ledger.records == []


async def test_a_store_that_lost_something_takes_no_commit_back(kafka: Any) -> None:
    """It is read again from there, and a worker that dies meanwhile asks the store again."""
    topic = await new_topic(kafka.bootstrap, GROUP)
    await produce(kafka.bootstrap, topic, flight(0), flight(1), flight(2))
    await commit(kafka.bootstrap, topic, 2)
    ledger, done = Ledger(), asyncio.Event()

    async def busy(_: Record) -> None:
        await done.wait()

    async def has_less(partitions: Any) -> dict[tuple[str, int], int]:
        return dict.fromkeys(partitions, 1)

    ledger.on[flight(1)[1]] = busy
    made = service(kafka.bootstrap)
    made.hears([topic], group=GROUP, handler=ledger, retry=HASTY, assigned=has_less)
    async with running(made):
        await until(lambda: ledger.batches)
        assert await position(kafka.bootstrap, topic) == 2
        done.set()
        await becomes(kafka.bootstrap, topic, 3)


async def test_a_commit_that_failed_is_made_again_though_nothing_more_comes(
    kafka: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, refused = await new_topic(kafka.bootstrap, GROUP), asyncio.Event()
    make = GroupCoordinator._do_commit_offsets

    async def once(self: Any, assignment: Any, offsets: Any) -> None:
        if self.group_id == GROUP and not refused.is_set() and any(one.offset == 1 for one in offsets.values()):
            refused.set()
            raise UnknownError("of the broker")
        await make(self, assignment, offsets)

    monkeypatch.setattr(GroupCoordinator, "_do_commit_offsets", once)
    made = service(kafka.bootstrap)
    made.hears([topic], group=GROUP, handler=Ledger(), retry=HASTY)
    async with running(made):
        await becomes(kafka.bootstrap, topic, 0)
        await produce(kafka.bootstrap, topic, flight(0))
        await becomes(kafka.bootstrap, topic, 1)
    assert refused.is_set()


async def commit(bootstrap: str, topic: str, offset: int) -> None:
    """As a worker did that is no more."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=GROUP, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        await consumer.commit({TopicPartition(topic, 0): offset})
    finally:
        await consumer.stop()
