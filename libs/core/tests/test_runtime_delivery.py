"""A subscription on a real Kafka: nothing is lost, nothing is skipped, whatever a record or a dependency does."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from millstream.contracts.topics import dead_letter_topic
from millstream.errors import RejectEvent, RetryLater
from millstream.runtime.delivery import Record, Rejected, Rewind
from millstream.runtime.service import Service
from millstream.runtime.topic_admin import TopicSpec, ensure_topics

from .runtime_kit import (
    DAY,
    HASTY,
    Ledger,
    Sent,
    committed,
    flight,
    length,
    new_topic,
    produce,
    read,
    running,
    service,
    until,
)

pytestmark = pytest.mark.connected
GROUP = "tower"


async def tower(kafka: Any, ledger: Ledger, **more: Any) -> tuple[Service, str]:
    """A service that hears one fresh topic."""
    topic = await new_topic(kafka.bootstrap, GROUP, partitions=more.pop("partitions", 1))
    made = service(kafka.bootstrap)
    made.hears([topic], group=GROUP, handler=ledger, retry=HASTY, **more)
    return made, topic


async def test_a_commit_is_explicit_and_comes_after_the_handling(kafka: Any) -> None:
    ledger = Ledger()
    seen: list[int] = []
    made, topic = await tower(kafka, ledger)

    async def look(_: Record) -> None:
        seen.append(await committed(kafka.bootstrap, GROUP, topic))

    ledger.on[b'{"flight": 1}'] = look
    async with running(made):
        await produce(kafka.bootstrap, topic, flight(1))
        await until(lambda: ledger.records)
        await until(lambda: made.metrics.consumed.labels(topic, GROUP)._value.get() == 1)

    assert seen == [0], "nothing may be committed while the record is being handled"
    assert await committed(kafka.bootstrap, GROUP, topic) == 1


async def test_a_restart_goes_on_where_the_last_one_ended(kafka: Any) -> None:
    first, second = Ledger(), Ledger()
    made, topic = await tower(kafka, first)
    await produce(kafka.bootstrap, topic, flight(1), flight(2))
    async with running(made):
        await until(lambda: len(first.records) == 2)
    await produce(kafka.bootstrap, topic, flight(3))

    again = service(kafka.bootstrap)
    again.hears([topic], group=GROUP, handler=second)
    async with running(again):
        await until(lambda: second.records)

    assert second.values == [b'{"flight": 3}']


async def test_a_poison_record_is_buried_with_its_headers_and_its_neighbours_are_untouched(kafka: Any) -> None:
    ledger = Ledger()
    made, topic = await tower(kafka, ledger)
    ledger.on[b"poison"] = lambda record: Rejected(record, RejectEvent("bad_json", "not JSON: byte 0"))
    poison = (b"N2", b"poison", [("ce_id", b"2"), ("x-strange", b"\xff\xfe")])

    await produce(kafka.bootstrap, topic, flight(1), poison, flight(3))
    async with running(made):
        [dead] = await read(kafka.bootstrap, dead_letter_topic(topic, GROUP), 1)
        await produce(kafka.bootstrap, topic, flight(4))
        await until(lambda: len(ledger.records) == 4)

    assert (dead.key, dead.value) == (b"N2", b"poison")
    headers = dict(dead.headers)
    assert (headers["ce_id"], headers["x-strange"]) == (b"2", b"\xff\xfe")
    assert headers["millstream-dlq-reason"] == b"bad_json"
    assert headers["millstream-dlq-detail"] == b"not JSON: byte 0"
    assert headers["millstream-dlq-group"] == GROUP.encode()
    assert (headers["millstream-dlq-topic"], headers["millstream-dlq-offset"]) == (topic.encode(), b"1")
    assert ledger.values == [b'{"flight": 1}', b"poison", b'{"flight": 3}', b'{"flight": 4}'], "each once, in order"
    assert await committed(kafka.bootstrap, GROUP, topic) == 4


async def test_a_dead_letter_is_confirmed_before_the_commit(kafka: Any) -> None:
    """The dead-letter topic is missing: nothing is committed past the poison, and it is buried once the topic is there."""
    ledger = Ledger()
    topic = await new_topic(kafka.bootstrap)
    made = service(kafka.bootstrap, publish_timeout=0.3)
    made.hears([topic], group=GROUP, handler=ledger, retry=HASTY)
    ledger.on[b"poison"] = lambda record: Rejected(record, RejectEvent("bad_json", "not JSON"))
    await produce(kafka.bootstrap, topic, flight(1), (None, b"poison", []), flight(3))

    async with running(made):
        await until(lambda: ledger.values.count(b"poison") >= 2)
        assert await committed(kafka.bootstrap, GROUP, topic) == 0
        late = TopicSpec(name=dead_letter_topic(topic, GROUP), partitions=1, retention=DAY)
        await ensure_topics(kafka.bootstrap, [late])
        [dead] = await read(kafka.bootstrap, dead_letter_topic(topic, GROUP), 1)
        await until(lambda: made.metrics.consumed.labels(topic, GROUP)._value.get() == 3)

    assert dead.value == b"poison"
    assert await committed(kafka.bootstrap, GROUP, topic) == 3


@pytest.mark.parametrize("fat", ["value", "headers", "key"])
async def test_a_poison_record_that_just_fits_into_kafka_is_cut_and_buried(kafka: Any, fat: str) -> None:
    """With what we add to it the whole record would be too large: it must not stop the process for ever."""
    ledger = Ledger()
    made, topic = await tower(kafka, ledger)
    much = b"x" * (1024 * 1024 - 500)
    poison: Sent = {
        "value": (b"N2", much, [("ce_id", b"2")]),
        "headers": (b"N2", b"poison", [("note", much)]),
        "key": (much, b"poison", []),
    }[fat]
    ledger.on[poison[1]] = lambda record: Rejected(record, RejectEvent("bad_json", "not JSON"))

    await produce(kafka.bootstrap, topic, poison, flight(3))
    async with running(made):
        [dead] = await read(kafka.bootstrap, dead_letter_topic(topic, GROUP), 1)
        await until(lambda: len(ledger.records) == 2)

    headers = dict(dead.headers)
    assert int(headers["millstream-dlq-cut"]) > 1024 * 1024 - 500
    assert (headers["millstream-dlq-reason"], headers["millstream-dlq-offset"]) == (b"bad_json", b"0")
    assert poison[1].startswith(dead.value)
    assert made.health.fatal is None
    assert await committed(kafka.bootstrap, GROUP, topic) == 2


async def test_headers_that_are_no_utf8_reach_the_handler(kafka: Any) -> None:
    ledger = Ledger()
    made, topic = await tower(kafka, ledger)
    strange = ("ce_id", b"\xff\xfe")

    async with running(made):
        await produce(kafka.bootstrap, topic, flight(1, strange), flight(2), (None, b"", []))
        await until(lambda: len(ledger.records) == 3)

    assert list(ledger.records[0].headers) == [strange]


async def test_a_dependency_that_is_away_is_waited_for_and_nothing_is_lost(kafka: Any) -> None:
    """Three failures in a row, then it is back: the same batch again, in order, and the next ones behind it."""
    ledger = Ledger()
    failures: list[int] = []
    made, topic = await tower(kafka, ledger)

    def away(_: Record) -> None:
        if len(failures) < 3:
            failures.append(1)
            raise RetryLater("the tile store is away")

    ledger.on[b'{"flight": 2}'] = away
    await produce(kafka.bootstrap, topic, flight(1), flight(2), flight(3))
    async with running(made):
        await until(lambda: len(ledger.records) == 3)
        assert made.metrics.retries.labels(topic, GROUP)._value.get() == 3

    assert ledger.values == [b'{"flight": 1}', b'{"flight": 2}', b'{"flight": 3}']
    assert await committed(kafka.bootstrap, GROUP, topic) == 3


async def test_after_its_patience_a_batch_is_given_back_and_read_again(kafka: Any) -> None:
    """Away for longer than the patience: polling goes on, so the member stays in its group, and the batch comes again."""
    ledger, back = Ledger(), asyncio.Event()
    made, topic = await tower(kafka, ledger)
    began = asyncio.get_running_loop().time()

    def away(_: Record) -> None:
        if asyncio.get_running_loop().time() - began < 5 * HASTY.patience + 2:
            raise RetryLater("the tile store is away")
        back.set()

    ledger.on[b'{"flight": 1}'] = away
    await produce(kafka.bootstrap, topic, flight(1), flight(2))
    async with running(made):
        await until(back.is_set)
        await until(lambda: len(ledger.records) == 2)
        assert made.health.not_alive() == []

    assert ledger.values == [b'{"flight": 1}', b'{"flight": 2}']
    assert await committed(kafka.bootstrap, GROUP, topic) == 2


async def test_a_store_that_lost_its_data_gets_it_again(kafka: Any) -> None:
    """The store's fence went back to offset 1: the handler asks for it, and records 1 and 2 come once more."""
    ledger = Ledger()
    asked: list[object] = []
    made, topic = await tower(kafka, ledger)

    def lost(_: Record) -> None:
        if not asked:
            asked.append(1)
            raise Rewind(1)

    async with running(made):
        await produce(kafka.bootstrap, topic, flight(0), flight(1), flight(2))
        await until(lambda: len(ledger.records) == 3)
        ledger.on[b'{"flight": 3}'] = lost
        await produce(kafka.bootstrap, topic, flight(3))
        await until(lambda: ledger.values[-1] == b'{"flight": 3}')

    assert [record.offset for record in ledger.records] == [0, 1, 2, 1, 2, 3]
    assert all(batch.start == batch.records[0].offset for batch in ledger.batches)
    assert await committed(kafka.bootstrap, GROUP, topic) == 4


async def test_the_store_may_say_where_to_start(kafka: Any) -> None:
    ledger = Ledger()

    async def fence(partitions: Any) -> dict[tuple[str, int], int]:
        return {partition: 2 for partition in partitions}

    made, topic = await tower(kafka, ledger, assigned=fence)
    await produce(kafka.bootstrap, topic, flight(0), flight(1), flight(2))
    async with running(made):
        await until(lambda: ledger.records)

    assert ledger.values == [b'{"flight": 2}']


async def test_no_record_comes_before_the_store_has_said_where_to_start(kafka: Any) -> None:
    """Kafka hands out records at once; the store needs four tries to answer. What it has already is not handled again."""
    ledger = Ledger()
    asked: list[object] = []

    async def slow_fence(partitions: Any) -> dict[tuple[str, int], int]:
        asked.append(partitions)
        if len(asked) < 4:
            raise RetryLater("the tile store is away")
        return {(topic, partition): 2 for topic, partition in partitions if partition == 0}

    made, topic = await tower(kafka, ledger, partitions=2, assigned=slow_fence)
    for partition in (0, 1):
        await produce(kafka.bootstrap, topic, flight(0), flight(1), flight(2), partition=partition)
    async with running(made):
        await until(lambda: len(ledger.records) == 4)
        await produce(kafka.bootstrap, topic, flight(3))
        await until(lambda: len(ledger.records) == 5)

    assert [r.offset for r in ledger.records if r.partition == 0] == [2, 3]
    assert [r.offset for r in ledger.records if r.partition == 1] == [0, 1, 2]


async def test_a_stop_does_not_wait_for_a_store_that_never_says_where_to_start(kafka: Any) -> None:
    ledger, asked = Ledger(), asyncio.Event()

    async def away(_: Any) -> dict[tuple[str, int], int]:
        asked.set()
        raise RetryLater("the tile store is away")

    made, topic = await tower(kafka, ledger, assigned=away)
    await produce(kafka.bootstrap, topic, flight(0))
    async with asyncio.timeout(None) as stop, running(made):
        await asked.wait()
        await until(lambda: "the tile store is away" in made.health.not_ready().values())
        stop.reschedule(asyncio.get_running_loop().time() + 15)  # the poll in hand would have 20 s

    assert ledger.records == []
    assert await committed(kafka.bootstrap, GROUP, topic) == 0


async def test_a_store_with_a_bug_stops_the_process_before_the_first_record(kafka: Any) -> None:
    ledger, stopped = Ledger(), asyncio.Event()

    async def bug(_: Any) -> dict[tuple[str, int], int]:
        raise ZeroDivisionError("a bug")

    made, topic = await tower(kafka, ledger, assigned=bug)
    made.on_fatal = stopped.set
    await produce(kafka.bootstrap, topic, flight(0))
    async with running(made):
        await until(stopped.is_set)

    assert ledger.records == []


async def test_an_error_nobody_expected_stops_the_process_and_commits_nothing(kafka: Any) -> None:
    ledger, stopped = Ledger(), asyncio.Event()
    made, topic = await tower(kafka, ledger)
    made.on_fatal = stopped.set

    def bug(_: Record) -> None:
        raise ZeroDivisionError("a bug")

    ledger.on[b'{"flight": 2}'] = bug
    await produce(kafka.bootstrap, topic, flight(1), flight(2))
    async with running(made):
        await until(stopped.is_set)
        assert isinstance(made.health.fatal, ZeroDivisionError)
        assert made.health.not_alive() == ["ZeroDivisionError: a bug"]
        await produce(kafka.bootstrap, topic, flight(3))

    assert b'{"flight": 3}' not in ledger.values
    assert await committed(kafka.bootstrap, GROUP, topic) == 0
    assert await length(kafka.bootstrap, dead_letter_topic(topic, GROUP)) == 0


async def test_a_stop_finishes_the_batch_in_hand(kafka: Any) -> None:
    ledger, begun, finish = Ledger(), asyncio.Event(), asyncio.Event()
    made, topic = await tower(kafka, ledger)

    async def slowly(_: Record) -> None:
        begun.set()
        await finish.wait()

    ledger.on[b'{"flight": 1}'] = slowly
    await produce(kafka.bootstrap, topic, flight(1), flight(2))

    async def stopping() -> None:
        async with running(made):
            await begun.wait()

    stop = asyncio.create_task(stopping())
    await begun.wait()
    await produce(kafka.bootstrap, topic, flight(3))
    finish.set()
    await stop

    assert ledger.values == [b'{"flight": 1}', b'{"flight": 2}'], "the batch in hand is finished, no other is begun"
    assert await committed(kafka.bootstrap, GROUP, topic) == 2


async def test_a_stop_does_not_wait_for_a_dependency_that_is_away(kafka: Any) -> None:
    ledger = Ledger()
    made, topic = await tower(kafka, ledger)

    def away(_: Record) -> None:
        raise RetryLater("the tile store is away")

    ledger.on[b'{"flight": 1}'] = away
    await produce(kafka.bootstrap, topic, flight(1))
    async with running(made):
        await until(lambda: ledger.batches)
    assert await committed(kafka.bootstrap, GROUP, topic) == 0


async def test_two_replicas_share_the_partitions_and_one_takes_over_when_the_other_leaves(kafka: Any) -> None:
    north, south = Ledger(), Ledger()
    made, topic = await tower(kafka, north, partitions=2)
    other = service(kafka.bootstrap, instance="south")
    other.hears([topic], group=GROUP, handler=south, retry=HASTY)

    async with running(made):
        async with running(other):
            await until(lambda: not made.health.not_ready() and not other.health.not_ready())
            number = 0

            async def both_work() -> None:
                nonlocal number
                while not (north.records and south.records):
                    for partition in (0, 1):
                        await produce(kafka.bootstrap, topic, flight(number), partition=partition)
                        number += 1

            await asyncio.wait_for(both_work(), 60)
        await produce(kafka.bootstrap, topic, flight(900), partition=0)
        await produce(kafka.bootstrap, topic, flight(901), partition=1)
        await until(lambda: {b'{"flight": 900}', b'{"flight": 901}'} <= set(north.values))

    handled = set(north.values) | set(south.values)
    assert handled == {b'{"flight": %d}' % n for n in (*range(number), 900, 901)}, (
        "a move repeats at most, it loses nothing"
    )


async def test_batches_say_which_offsets_they_cover(kafka: Any) -> None:
    ledger = Ledger()
    made, topic = await tower(kafka, ledger, partitions=2)
    async with running(made):
        for partition in (0, 1):
            await produce(kafka.bootstrap, topic, *(flight(n) for n in range(5)), partition=partition)
        await until(lambda: len(ledger.records) == 10)

    for partition in (0, 1):
        mine = [batch for batch in ledger.batches if batch.partition == partition]
        assert [record.offset for batch in mine for record in batch.records] == list(range(5))
        assert mine[0].start == 0
        assert all(after.start == before.end + 1 for before, after in pairwise(mine))
