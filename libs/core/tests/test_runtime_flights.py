"""What flies together and what waits, with a Kafka that confirms when the test says so."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from millstream.runtime import flights
from millstream.runtime.flights import MANY, Flights
from millstream.runtime.murmur2 import of_many
from millstream.runtime.publisher import Outgoing


class Sky:
    """A producer: one broker leads every partition, unless `leaders` says otherwise."""

    def __init__(self) -> None:
        self.leaders: dict[TopicPartition, int] = {}
        self.sent: list[tuple[TopicPartition, asyncio.Future[None]]] = []
        self.client = SimpleNamespace(cluster=self)

    def leader_for_partition(self, partition: TopicPartition) -> int:
        return self.leaders.get(partition, 1)

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(1024, 0)

    async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[None]:
        landing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sent.append((TopicPartition(topic, partition), landing))
        return landing

    def topics(self) -> list[str]:
        return [partition.topic for partition, _ in self.sent]


def record(topic: str) -> Outgoing:
    return Outgoing(topic, b"N14228", b"{}", [])


ONE = {"departed": [0], "landed": [0]}


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_partition_that_is_stuck_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flights, "OVERDUE", 0.01)
    sky: Any = Sky()
    waiting = Flights(sky)
    waiting.board([record("departed")], ONE, 5)
    await turns()  # on a busy machine it may be under way only when the sleep is over
    await asyncio.sleep(0.05)
    behind = waiting.board([record("departed")], ONE, 5)
    landed = waiting.board([record("landed")], ONE, 5)
    await turns()

    assert sky.topics() == ["departed", "landed"], "the second of departed waits for the first"
    sky.sent[1][1].set_result(None)
    await landed.done
    assert not behind.departed
    sky.sent[0][1].set_result(None)
    await turns()
    assert sky.topics() == ["departed", "landed", "departed"]


async def test_a_partition_whose_leader_moved_keeps_its_order() -> None:
    sky: Any = Sky()
    waiting = Flights(sky)
    waiting.board([record("departed")], ONE, 5)
    await turns()
    sky.leaders[TopicPartition("departed", 0)] = 2
    waiting.board([record("departed")], ONE, 5)
    await turns()

    assert len(sky.sent) == 1, "the old leader has not confirmed yet"


async def test_what_was_given_up_does_not_pile_up_while_kafka_stalls() -> None:
    sky: Any = Sky()
    waiting = Flights(sky)
    waiting.board([record("departed")], ONE, 5)
    await turns()
    for _ in range(100):
        given_up = waiting.board([record("departed")], ONE, 0.001)
        with pytest.raises(TimeoutError):
            await given_up.done

    assert len(waiting._waiting[TopicPartition("departed", 0)]) == 1


@given(st.binary(max_size=70))
def test_a_key_goes_where_every_client_of_kafka_puts_it(key: bytes) -> None:
    assert flights._hash(key) == murmur2(key) & 0x7FFFFFFF


async def test_of_a_delivery_that_failed_it_is_known_what_is_in_kafka() -> None:
    sky: Any = Sky()
    waiting = Flights(sky)
    records = [record("departed"), record("landed"), record("departed"), record("boarded")]
    places = {**ONE, "boarded": [0]}
    delivery = waiting.board(records, places, 5)
    await turns()
    assert sky.topics() == ["departed", "landed", "boarded"]
    sky.sent[0][1].set_result(None)
    await turns()
    sky.sent[1][1].set_exception(KafkaError("no leader"))
    with pytest.raises(KafkaError):
        await delivery.done
    assert waiting.confirmed(delivery, records, places) == {0, 2}, "of boarded nobody knows yet"
    sky.sent[2][1].set_result(None)
    await turns()

    alone = waiting.board([record("landed")], ONE, 5)
    await turns()
    sky.sent[-1][1].set_exception(KafkaError("no leader"))
    with pytest.raises(KafkaError):
        await alone.done
    assert waiting.confirmed(alone, [record("landed")], ONE) == frozenset()


@given(words=st.integers(1, 12), many=st.integers(1, 70), data=st.data())
def test_many_keys_are_hashed_like_one(words: int, many: int, data: st.DataObject) -> None:
    keys = data.draw(st.lists(st.binary(min_size=4 * words, max_size=4 * words), min_size=many, max_size=many))
    assert list(of_many(keys)) == [murmur2(key) & 0x7FFFFFFF for key in keys]


@pytest.mark.parametrize("sizes", [(32,), (32, 31), (7,), (0, 4)])
async def test_a_crowd_goes_where_each_would_go_alone(sizes: tuple[int, ...]) -> None:
    keys = [
        f"{number:0{sizes[number % len(sizes)] or 1}d}"[: sizes[number % len(sizes)]].encode() for number in range(MANY)
    ]
    records = [Outgoing("stream", key or None, b"x", []) for key in keys]
    where = {"stream": [0, 1, 2, 3, 4]}
    assert flights._chosen(records, where) == [flights._chosen([record], where)[0] for record in records]
