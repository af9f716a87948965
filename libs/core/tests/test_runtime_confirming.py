"""Batches whose outcome is on its way, on a real Kafka: the next is handled meanwhile, and none is committed too early."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition

from millstream.contracts.topics import dead_letter_topic
from millstream.errors import DeliveryUnknown, RejectEvent
from millstream.runtime.confirming import Confirming
from millstream.runtime.delivery import Batch, Rejected, Rewind

from .runtime_kit import HASTY, committed, flight, new_topic, produce, read, running, service, until

pytestmark = pytest.mark.connected
GROUP = "tower"
TOWER = Path(__file__).with_name("tower_service.py")


class Radio:
    """A handler whose every batch is on its way until the test says what became of it."""

    def __init__(self, *, rejects: bytes = b"") -> None:
        self.batches: list[tuple[list[int], asyncio.Future[None]]] = []
        self._rejects = rejects

    @property
    def offsets(self) -> list[list[int]]:
        return [offsets for offsets, _ in self.batches]

    async def __call__(self, batch: Batch) -> Confirming:
        sent = asyncio.get_running_loop().create_future()
        self.batches.append(([record.offset for record in batch.records], sent))
        odd = [record for record in batch.records if record.value == self._rejects]
        return Confirming(sent=sent, rejected=[Rejected(one, RejectEvent("bad_json", "not JSON")) for one in odd])

    def confirm(self, number: int, error: Exception | None = None) -> None:
        sent = self.batches[number][1]
        if error is None:
            sent.set_result(None)
        else:
            sent.set_exception(error)

    def confirm_all(self) -> None:
        for _, sent in self.batches:
            if not sent.done():
                sent.set_result(None)


async def each_by_itself(bootstrap: str, topic: str, radio: Radio, *numbers: int) -> None:
    """Flights that come as a batch each."""
    for number in numbers:
        before = len(radio.batches)
        await produce(bootstrap, topic, flight(number))
        await until(lambda: len(radio.batches) == before + 1)  # noqa: B023  awaited here


async def test_the_next_batch_is_handled_while_one_is_confirmed_and_each_is_committed_after_its_own(kafka: Any) -> None:
    topic, radio = await new_topic(kafka.bootstrap, GROUP), Radio()
    made = service(kafka.bootstrap)
    made.hears([topic], group=GROUP, handler=radio, retry=HASTY)
    async with running(made):
        await each_by_itself(kafka.bootstrap, topic, radio, 0, 1)
        await produce(kafka.bootstrap, topic, flight(2))
        assert await committed(kafka.bootstrap, GROUP, topic) == 0, "nothing is confirmed"
        assert radio.offsets == [[0], [1]], "one in hand, one on its way, and no more"
        radio.confirm(0)
        await until(lambda: len(radio.batches) == 3)
        assert await committed(kafka.bootstrap, GROUP, topic) == 1
        radio.confirm(1)
        radio.confirm(2)
        await until(lambda: made.metrics.consumed.labels(topic, GROUP)._value.get() == 3)
    assert await committed(kafka.bootstrap, GROUP, topic) == 3


@pytest.mark.parametrize("idle", [True, False], ids=["idle", "behind"])
async def test_what_is_not_confirmed_is_read_again_and_so_is_what_came_behind_it(kafka: Any, idle: bool) -> None:
    """`idle`: nothing comes behind it that would wake the subscriber."""
    topic, radio = await new_topic(kafka.bootstrap, GROUP), Radio()
    made = service(kafka.bootstrap)
    made.hears([topic], group=GROUP, handler=radio, retry=HASTY)
    async with running(made):
        await produce(kafka.bootstrap, topic, flight(0))
        await until(lambda: radio.batches)
        if not idle:
            await produce(kafka.bootstrap, topic, flight(1))
            await until(lambda: len(radio.batches) == 2)
            radio.confirm(1)
        radio.confirm(0, DeliveryUnknown("Kafka did not confirm"))
        before = len(radio.batches)
        await until(lambda: len(radio.batches) > before)
        assert await committed(kafka.bootstrap, GROUP, topic) == 0
        last = 0 if idle else 1
        while True:
            radio.confirm(len(radio.batches) - 1)
            if radio.offsets[-1][-1] == last:
                break
            before = len(radio.batches)
            await until(lambda: len(radio.batches) > before)  # noqa: B023  awaited here
        await until(lambda: made.metrics.consumed.labels(topic, GROUP)._value.get() == last + 1)
        assert made.health.fatal is None
    again = [offset for offsets in radio.offsets[1 if idle else 2 :] for offset in offsets]
    assert again == [*range(last + 1)], "in their order"
    assert await committed(kafka.bootstrap, GROUP, topic) == last + 1


async def test_a_store_that_is_behind_is_told_again_from_where_it_says_and_so_is_what_came_behind_it(
    kafka: Any,
) -> None:
    topic, radio = await new_topic(kafka.bootstrap, GROUP), Radio()
    made = service(kafka.bootstrap)
    heard = made.hears([topic], group=GROUP, handler=radio, retry=HASTY)
    async with running(made):
        await each_by_itself(kafka.bootstrap, topic, radio, 0)
        radio.confirm(0)
        await each_by_itself(kafka.bootstrap, topic, radio, 1, 2)
        assert radio.offsets == [[0], [1], [2]]
        radio.confirm(1, Rewind(0))  # it has lost what it had
        radio.confirm(2, Rewind(0))
        while radio.offsets[-1][-1] < 2 or len(radio.batches) == 3:
            before = len(radio.batches)
            await until(lambda: len(radio.batches) > before)  # noqa: B023  awaited here
            assert await committed(kafka.bootstrap, GROUP, topic) <= 1, "nothing behind it is done"
            radio.confirm_all()
        await until(lambda: heard.handled() == {(topic, 0): 3})
    again = [offset for offsets in radio.offsets[3:] for offset in offsets]
    assert again == [0, 1, 2]
    assert await committed(kafka.bootstrap, GROUP, topic) == 3


async def test_what_is_on_its_way_is_not_said_to_be_there(kafka: Any) -> None:
    topic, radio = await new_topic(kafka.bootstrap, GROUP), Radio()
    made = service(kafka.bootstrap)
    heard = made.hears([topic], group=GROUP, handler=radio, retry=HASTY)
    async with running(made):
        await each_by_itself(kafka.bootstrap, topic, radio, 0, 1)
        assert heard.handled() == {}
        radio.confirm(0)
        await until(lambda: heard.handled() == {(topic, 0): 1})
        radio.confirm(1)
        await until(lambda: heard.handled() == {(topic, 0): 2})


async def test_a_dead_letter_of_a_batch_on_its_way_is_there_before_the_commit(kafka: Any) -> None:
    topic, radio = await new_topic(kafka.bootstrap, GROUP), Radio(rejects=b"poison")
    made = service(kafka.bootstrap)
    made.hears([topic], group=GROUP, handler=radio, retry=HASTY)
    async with running(made):
        await produce(kafka.bootstrap, topic, (None, b"poison", []))
        await until(lambda: radio.batches)
        radio.confirm(0)
        [dead] = await read(kafka.bootstrap, dead_letter_topic(topic, GROUP), 1)
        await until(lambda: made.metrics.consumed.labels(topic, GROUP)._value.get() == 1)
    assert dead.value == b"poison"
    assert await committed(kafka.bootstrap, GROUP, topic) == 1


async def test_a_stop_commits_what_is_confirmed_by_then(kafka: Any) -> None:
    topic, radio = await new_topic(kafka.bootstrap, GROUP), Radio()
    made = service(kafka.bootstrap)
    made.hears([topic], group=GROUP, handler=radio, retry=HASTY)
    async with running(made):
        await produce(kafka.bootstrap, topic, flight(0))
        await until(lambda: radio.batches)
        asyncio.get_running_loop().call_later(0.3, radio.confirm, 0)
    assert await committed(kafka.bootstrap, GROUP, topic) == 1


async def test_an_error_nobody_expected_stops_the_process_and_commits_nothing(kafka: Any) -> None:
    topic, radio, stopped = await new_topic(kafka.bootstrap, GROUP), Radio(), asyncio.Event()
    made = service(kafka.bootstrap)
    made.on_fatal = stopped.set
    made.hears([topic], group=GROUP, handler=radio, retry=HASTY)
    async with running(made):
        await produce(kafka.bootstrap, topic, flight(0))
        await until(lambda: radio.batches)
        radio.confirm(0, ZeroDivisionError("a bug"))
        await until(stopped.is_set)
    assert isinstance(made.health.fatal, ZeroDivisionError)
    assert await committed(kafka.bootstrap, GROUP, topic) == 0


async def test_partitions_that_move_while_a_batch_is_on_its_way_stop_nobody(kafka: Any) -> None:
    """Its commit is refused, and how far its old owner lags is nobody's business: who still has partitions goes on."""
    topic, north, south = await new_topic(kafka.bootstrap, GROUP, partitions=2), Radio(), Radio()
    made, other = service(kafka.bootstrap), service(kafka.bootstrap, instance="south")
    made.hears([topic], group=GROUP, handler=north, retry=HASTY)
    other.hears([topic], group=GROUP, handler=south, retry=HASTY)
    for partition in (0, 1):  # before it starts: one poll has both
        await produce(kafka.bootstrap, topic, flight(0), partition=partition)
    async with running(made):
        await until(lambda: len(north.batches) == 2)
        async with running(other):
            await until(lambda: not other.health.not_ready())
            before = len(north.batches)
            north.confirm_all()
            for partition in (0, 1):
                await produce(kafka.bootstrap, topic, flight(2), partition=partition)
            await until(lambda: len(north.batches) > before and south.batches)
            north.confirm_all()
            south.confirm_all()
            assert made.health.fatal is None


async def test_what_is_confirmed_while_partitions_move_is_not_done_again(kafka: Any) -> None:
    topic, north, south = await new_topic(kafka.bootstrap, GROUP, partitions=2), Radio(), Radio()
    made, other = service(kafka.bootstrap), service(kafka.bootstrap, instance="south")
    made.hears([topic], group=GROUP, handler=north, retry=HASTY)
    other.hears([topic], group=GROUP, handler=south, retry=HASTY)
    moving = asyncio.Event()
    [heard] = made._subscriptions
    revoked = heard.on_partitions_revoked

    async def tell(partitions: set[TopicPartition]) -> None:
        moving.set()
        await revoked(partitions)

    for partition in (0, 1):  # before it starts: one poll has both
        await produce(kafka.bootstrap, topic, flight(0), partition=partition)
    async with running(made):
        await until(lambda: len(north.batches) == 2)
        heard.on_partitions_revoked = tell  # type: ignore[method-assign]
        async with running(other):
            await moving.wait()
            north.confirm_all()
            await until(lambda: not other.health.not_ready())
            for partition in (0, 1):
                await produce(kafka.bootstrap, topic, flight(1), partition=partition)
            await until(lambda: south.batches)
            south.confirm_all()
            north.confirm_all()
            assert south.offsets == [[1]]


async def test_a_kill_between_two_batches_on_their_way_loses_neither(kafka: Any, tmp_path: Path) -> None:
    """kill -9 while the first is not confirmed and the second is handled: who comes next is given both again."""
    topic, handled = await new_topic(kafka.bootstrap, GROUP), tmp_path / "handled"
    environment = {"MILLSTREAM_KAFKA": kafka.bootstrap, "MILLSTREAM_PORT": "0", "MILLSTREAM_SESSION_TIMEOUT_MS": "6000"}
    command = [sys.executable, str(TOWER), topic, str(tmp_path), "on-its-way"]
    (tmp_path / "finish").touch()

    def lines() -> list[bytes]:
        return handled.read_bytes().splitlines() if handled.exists() else []

    for confirms in (False, True):
        if confirms:
            (tmp_path / "confirmed").touch()
        child = await asyncio.create_subprocess_exec(
            *command, env=os.environ | environment, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            if confirms:
                await until(lambda: len(lines()) == 4)
                await until_committed(kafka.bootstrap, topic, 2)
            else:
                for number in (0, 1):
                    await produce(kafka.bootstrap, topic, flight(number))
                    await until(lambda: len(lines()) == number + 1)  # noqa: B023  awaited here
                assert await committed(kafka.bootstrap, GROUP, topic) == 0
        finally:
            child.kill()
            await child.wait()
    assert lines() == [b'{"flight": 0}', b'{"flight": 1}'] * 2


async def until_committed(bootstrap: str, topic: str, offset: int) -> None:
    async with asyncio.timeout(40):
        while await committed(bootstrap, GROUP, topic) < offset:  # noqa: ASYNC110 - Kafka's state
            await asyncio.sleep(0.1)
