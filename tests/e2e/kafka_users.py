"""A Kafka with an authorizer and the five users of our services, each with the ACLs of its KafkaUser; and what it lets them do.

Kafka is asked by single requests: a client would wait, and ask again, for what it may not even see.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from aiokafka.protocol.admin import CreateAclsRequest, DescribeAclsRequest
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from millstream.runtime.kafka_clients import Admin
from millstream.runtime.kafka_security import Bootstrap
from millstream.testing.kafka_guard import GuardedKafka
from millstream_cli.kafka_rights import Rights
from millstream_cli.strimzi import acls

KINDS = {"topic": 2, "group": 3, "transactionalId": 5}
OPERATIONS = {"Read": 3, "Write": 4, "Describe": 8}
LITERAL, ALLOW, ANY = 3, 3, 1
NOT_THE_TOPIC, NOT_THE_GROUP, NOT_THE_TRANSACTION = 29, 30, 53
"""Kafka's codes for `may not`."""
LATEST = -1


def name_of(service: str) -> str:
    return f"millstream-{service}"


def password_of(service: str) -> str:
    return f"weir-{service}-7"


def as_user(kafka: GuardedKafka, service: str) -> GuardedKafka:
    """The same Kafka, as the service's user sees it."""
    return replace(kafka, guard=replace(kafka.guard, user=name_of(service), password=password_of(service)))


async def grant(kafka: GuardedKafka, rights: Sequence[Rights]) -> None:
    """As Strimzi's user operator does from our KafkaUsers. It is the controller that answers; returns when the broker has heard
    of all, and so of the topics that were made before."""
    granted = 0
    async with asker(kafka.bootstrap) as kafka_:
        for one in rights:
            principal = f"User:{name_of(one.service)}"
            for kind, name, operations in acls(one):
                for operation in operations:
                    asked = CreateAclsRequest(KINDS[kind], name, LITERAL, principal, "*", OPERATIONS[operation], ALLOW)
                    answer = await kafka_.ask(asked)
                    assert [code for code, *_ in answer.creation_responses] == [0], answer
                    granted += 1
        async with asyncio.timeout(60):
            while await kafka_.acls() < granted:  # noqa: ASYNC110 - Kafka's state
                await asyncio.sleep(0.05)


@asynccontextmanager
async def asker(where: Bootstrap | str) -> AsyncIterator[Asker]:
    admin = Admin(where)
    await admin.start()
    try:
        yield Asker(admin)
    finally:
        await admin.close()


@dataclass(frozen=True)
class Asker:
    """One user, of a Kafka of one broker whose topics have one partition each."""

    admin: Any

    async def ask(self, request: Any) -> Any:
        node = self.admin._client.get_random_node()
        return await asyncio.wait_for(self.admin._client.send(node, request), 60)

    async def acls(self) -> int:
        """How many the broker goes by."""
        answer = await self.ask(DescribeAclsRequest(ANY, None, ANY, None, None, ANY, ANY))
        return sum(len(acls) for *_, acls in answer.resources)

    async def writes(self, topics: Sequence[str]) -> set[str]:
        """Those that it may write. Writes a record to them."""
        batch = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 64 * 1024)
        batch.append(0, 0, b"key", b"{}", [])  # compacted topics take none without a key
        raw = bytes(batch.build())
        return _allowed(await self.ask(ProduceRequest(None, -1, 30_000, [(one, [(0, raw)]) for one in topics])))

    async def reads(self, topics: Sequence[str]) -> set[str]:
        return _allowed(await self.ask(FetchRequest(10, 0, 1 << 20, 0, [(one, [(0, 0, 1024)]) for one in topics])))

    async def describes(self, topics: Sequence[str]) -> set[str]:
        return _allowed(await self.ask(OffsetRequest(-1, 0, [(one, [(0, LATEST)]) for one in topics])))

    async def joins(self, groups: Sequence[str]) -> set[str]:
        """A member of nobody's: who may join is told so, who may not is told that."""
        said = {group: (await self.ask(HeartbeatRequest(group, 1, "nobody"))).error_code for group in groups}
        return {group for group, code in said.items() if code != NOT_THE_GROUP}

    async def looks_at(self, groups: Sequence[str]) -> set[str]:
        said = {group: (await self.ask(OffsetFetchRequest(group, None))).error_code for group in groups}
        return {group for group, code in said.items() if code != NOT_THE_GROUP}

    async def transacts(self, name: str) -> bool:
        code: int = (await self.ask(InitProducerIdRequest(name, 10_000))).error_code
        return code != NOT_THE_TRANSACTION


def _allowed(answer: Any) -> set[str]:
    found = set()
    for topic, partitions in answer.topics:
        (code,) = {one[1] for one in partitions}
        assert code in (0, NOT_THE_TOPIC), (topic, code)
        if code == 0:
            found.add(topic)
    return found
