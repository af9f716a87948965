"""How far everybody is: the ends of topics and what consumer groups have committed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from millstream.runtime.kafka_clients import Admin, Consumer
from millstream.runtime.kafka_security import Bootstrap
from millstream_cli.errors import Stuck

T = TypeVar("T")

POLL = 0.0005
"""Seconds between two looks. Rarer ones cost more time than they leave to the services: on two cores a tick takes 19 ms so,
27 with 1 ms, 39 with 2 ms (January by the hour; the cores also take their time to wake up)."""
USUAL = 0.2
"""Share of the usual wait that passes before the first look; 28 ms a tick without."""


class Offsets:
    """Reads positions over one connection. Kafka being away is waited out, up to `patience` seconds without progress."""

    def __init__(self, bootstrap: Bootstrap, *, patience: float = 180.0) -> None:
        self._admin = Admin(bootstrap)
        self._consumer = Consumer(bootstrap, enable_auto_commit=False)
        self._patience = patience
        self._coordinators: dict[str, int] = {}
        self._partitions: dict[str, list[TopicPartition]] = {}
        self._usual: dict[str, float] = {}
        """Seconds that a group usually takes to get there, moving average."""

    async def start(self) -> None:
        await self._admin.start()
        await self._consumer.start()

    async def stop(self) -> None:
        await self._consumer.stop()
        await self._admin.close()

    async def ends(self, topics: Sequence[str]) -> dict[TopicPartition, int]:
        """The offset behind the last record of each partition."""
        partitions = [p for topic in topics for p in await self._partitions_of(topic)]
        found: dict[TopicPartition, int] = await self._patiently(lambda: self._consumer.end_offsets(partitions))
        return found

    async def committed(
        self, group: str, partitions: Sequence[TopicPartition] | None = None
    ) -> dict[TopicPartition, int]:
        """What `group` has committed; partitions without a commit are missing."""

        async def look() -> dict[TopicPartition, int]:
            if group not in self._coordinators:
                self._coordinators[group] = await self._admin.find_coordinator(group)
            try:
                found = await self._admin.list_consumer_group_offsets(
                    group, self._coordinators[group], list(partitions) if partitions is not None else None
                )
            except (KafkaError, AttributeError):
                # The client trips over its own error answer; the coordinator may have moved.
                self._coordinators.pop(group, None)
                raise
            return {p: position.offset for p, position in found.items() if position.offset >= 0}

        return await self._patiently(look)

    async def shares(self, group: str) -> list[str]:
        """The groups in which `group` is at work now: itself, or `group-1`, `group-2` … where its work is divided. Itself where
        nobody is."""
        known = await self._patiently(self._admin.list_consumer_groups)
        names = sorted({name for name, _ in known if name == group or re.fullmatch(rf"{re.escape(group)}-\d+", name)})
        return [name for name in names if await self._patiently(partial(self._is_working, name))] or [group]

    async def _is_working(self, group: str) -> bool:
        # One at a time: aiokafka 0.14 takes the answer to version 3 for one of version 2, which only a single group survives.
        [answer] = await self._admin.describe_consumer_groups([group])
        [(error, _, state, *_)] = answer.groups
        return error == 0 and state not in ("Empty", "Dead")

    async def heard(self, group: str) -> list[str]:
        """Topics of a group; each of our subscribers commits where it starts, so a running group is known at once."""
        return sorted({p.topic for p in await self.committed(group)})

    async def topics(self) -> list[str]:
        """Names of every topic."""
        return sorted(await self._patiently(self._admin.list_topics))

    async def reached(self, group: str, ends: dict[TopicPartition, int]) -> None:
        """Wait until `group` has committed `ends`. Raises Stuck when it does not move for `patience` seconds."""
        clock = asyncio.get_running_loop().time
        began, before = clock(), -1
        moved = began
        targets = list(ends)
        usual = self._usual.get(group, 0.0)
        await asyncio.sleep(USUAL * usual)
        while True:
            found = await self.committed(group, targets)
            left = sum(max(0, end - found.get(p, 0)) for p, end in ends.items())
            now = clock()
            if left == 0:
                # A pause (a rebalance, a training run) is not what is usual.
                self._usual[group] = 0.9 * usual + 0.1 * min(now - began, 0.05)
                return
            if left != before:
                moved, before = now, left
            elif now - moved > self._patience:
                topics = ", ".join(sorted({p.topic for p in targets}))
                raise Stuck(f"{group} has {left} records of {topics} left and did not move for {self._patience:.0f} s")
            await asyncio.sleep(POLL if now - moved < 1.0 else 0.05)

    async def _partitions_of(self, topic: str) -> list[TopicPartition]:
        if topic not in self._partitions:
            description = await self._patiently(lambda: self._admin.describe_topics([topic]))
            numbers = sorted(p["partition"] for p in description[0]["partitions"])
            if not numbers:
                raise Stuck(f"topic {topic} does not exist; start the services with: millstream up")
            self._partitions[topic] = [TopicPartition(topic, n) for n in numbers]
        return self._partitions[topic]

    async def _patiently(self, look: Callable[[], Awaitable[T]]) -> T:
        clock = asyncio.get_running_loop().time
        began = clock()
        while True:
            try:
                return await look()
            except (KafkaError, AttributeError, OSError) as error:
                if clock() - began > self._patience:
                    raise Stuck(f"Kafka did not answer for {self._patience:.0f} s: {error!r}") from error
                await asyncio.sleep(0.25)
