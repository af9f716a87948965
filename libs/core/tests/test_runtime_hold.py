"""A partition that waits for a person, on a real Kafka: the others go on, and nothing of it is skipped."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.runtime.delivery import Hold, Record

from .runtime_kit import Ledger, committed, flight, new_topic, produce, running, service, until

pytestmark = pytest.mark.connected
GROUP = "tower"


async def test_a_partition_that_is_held_back_stays_where_it_is_until_a_restart(kafka: Any) -> None:
    topic = await new_topic(kafka.bootstrap, GROUP, partitions=2)
    first, second, tries = Ledger(), Ledger(), []

    def hold(record: Record) -> None:
        tries.append(record.offset)
        raise Hold("the runway is being mended")

    first.on[b'{"flight": 1}'] = hold
    made = service(kafka.bootstrap, stall_after=0.0)
    made.hears([topic], group=GROUP, handler=first)
    async with running(made):
        await produce(kafka.bootstrap, topic, flight(0))
        await until(lambda: len(first.records) == 1)
        await produce(kafka.bootstrap, topic, flight(1), flight(2))
        await until(lambda: tries)
        for number in (5, 6):  # two polls more
            await produce(kafka.bootstrap, topic, flight(number), partition=1)
            await until(lambda: first.values[-1] == b'{"flight": %d}' % number)  # noqa: B023  awaited here
        # Until its batch is committed too, what was handled last waits still.
        await until(lambda: made.metrics.consumed.labels(topic, GROUP)._value.get() == 3)
        assert made.health.not_alive() == [], "a restart by the orchestrator would change nothing"
    assert tries == [1], "it is not tried again and again"
    assert [await committed(kafka.bootstrap, GROUP, topic, p) for p in (0, 1)] == [1, 2]

    again = service(kafka.bootstrap)
    again.hears([topic], group=GROUP, handler=second)
    async with running(again):
        await until(lambda: len(second.records) == 2)
    assert second.values == [b'{"flight": 1}', b'{"flight": 2}']
