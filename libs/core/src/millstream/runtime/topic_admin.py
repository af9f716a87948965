"""Makes sure that topics exist, with the partitions and retention that their business cards ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from aiokafka.admin import NewTopic
from aiokafka.errors import KafkaError, NodeNotReadyError

from millstream.contracts.topics import Topic, dead_letter_topic, late_topic
from millstream.errors import MillstreamError, RetryLater
from millstream.runtime.kafka_clients import Admin, does_not_answer
from millstream.runtime.kafka_security import Bootstrap

LOOKS, LOOK = 50, 0.1
"""For how long brokers are looked at for new topics, and seconds between two looks. Who may create them need not see them."""
_EXISTS, _REPLICATION = 36, 38
MOST_COPIES = 3
"""What survives the loss of one broker while another is being restarted. aiokafka cannot ask for the broker's default."""


@dataclass(frozen=True, kw_only=True)
class TopicSpec:
    """What to create."""

    name: str
    partitions: int
    retention: timedelta | None
    """None: compacted."""

    def config(self) -> dict[str, str]:
        if self.retention is None:
            return {"cleanup.policy": "compact"}
        return {"retention.ms": str(int(self.retention.total_seconds() * 1000))}


def our_topics(topics: Iterable[Topic], partitions: int | None = None) -> list[TopicSpec]:
    """Our own topics; `partitions` caps them (a laptop needs one)."""
    return [
        TopicSpec(name=t.name, partitions=min(t.partitions, partitions or t.partitions), retention=t.retention)
        for t in topics
    ]


def stream_topics(name: str, partitions: int, retention: timedelta, groups: Sequence[str]) -> list[TopicSpec]:
    """A user's stream with its late topic and one dead-letter topic for each group that hears it."""
    side = [late_topic(name), *(dead_letter_topic(name, group) for group in groups)]
    return [
        TopicSpec(name=name, partitions=partitions, retention=retention),
        *(TopicSpec(name=topic, partitions=1, retention=timedelta(days=30)) for topic in side),
    ]


async def topic_exists(bootstrap: Bootstrap, name: str) -> bool:
    """Whether Kafka has the topic. For who can do without: a consumer waits for a missing one for ever. Raises RetryLater."""
    admin = Admin(bootstrap)
    try:
        async with asyncio.timeout(30):
            await admin.start()
            return name in await admin.list_topics()
    except (KafkaError, TimeoutError) as error:
        raise RetryLater(does_not_answer(bootstrap, error)) from error
    finally:
        await admin.close()


class _NobodyServes(Exception):
    """All brokers are fenced: they stood still for longer than their session, or begin. In a moment they serve again."""


async def ensure_topics(
    bootstrap: Bootstrap, specs: Sequence[TopicSpec], *, replication: int | None = None
) -> list[str]:
    """Create what is missing; names of what was created. Existing topics stay as they are.

    Without `replication` there are three copies of each topic, or as many as there are brokers.
    Raises RetryLater when Kafka is not there, MillstreamError when it refuses a topic.
    """
    for _ in range(LOOKS):
        try:
            return await _ensure(bootstrap, specs, replication)
        except _NobodyServes:
            await asyncio.sleep(LOOK)
    raise RetryLater(does_not_answer(bootstrap, "none of its brokers serves"))


async def _ensure(bootstrap: Bootstrap, specs: Sequence[TopicSpec], replication: int | None) -> list[str]:
    admin = Admin(bootstrap)
    try:
        async with asyncio.timeout(30):
            await admin.start()
            brokers = (await admin.describe_cluster())["brokers"]
            if not brokers:
                raise _NobodyServes
            copies = replication or min(MOST_COPIES, len(brokers))
            wanted = [
                NewTopic(s.name, num_partitions=s.partitions, replication_factor=copies, topic_configs=s.config())
                for s in specs
            ]
            response = await admin.create_topics(wanted)
            await _are_there(admin, {topic for topic, code, *_ in response.topic_errors if code == 0})
    except NodeNotReadyError as error:  # the client found no broker in what Kafka listed
        raise _NobodyServes from error
    except (KafkaError, TimeoutError) as error:
        raise RetryLater(does_not_answer(bootstrap, error)) from error
    finally:
        await admin.close()
    created = []
    for topic, code, *detail in response.topic_errors:
        if code == 0:
            created.append(topic)
        elif code == _REPLICATION and "fenced" in str(detail):
            raise _NobodyServes
        elif code != _EXISTS:
            raise MillstreamError(f"Kafka refused topic {topic}: error {code} {detail[0] if detail else ''}")
    return created


async def _are_there(admin: Admin, created: set[str]) -> None:
    """Wait until a broker lists them: they are created by the controller, and who looks for one right after may miss it."""
    for _ in range(LOOKS if created else 0):
        if created <= set(await admin.list_topics()):
            return
        await asyncio.sleep(LOOK)
