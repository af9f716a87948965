"""Speaks on Kafka: each event goes to the topic that its business card names."""

from __future__ import annotations

from millstream.contracts.events import Event
from millstream.contracts.topics import MODELS, RETRAIN, TRAINING
from millstream.runtime.publisher import Publisher

_TOPIC_OF = {event: topic.name for topic in (TRAINING, MODELS, RETRAIN) for event in topic.events}


class KafkaAnnouncer:
    """See `ports.Announcer`."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def announce(self, event: Event, *, caused_by: str) -> None:
        id, loop = str(getattr(event, "id")), str(getattr(event, "loop"))  # noqa: B009  (every event of ours has both)
        topic = _TOPIC_OF[type(event)]
        await self._publisher.publish([self._publisher.outgoing(topic, event, id=id, key=loop, caused_by=caused_by)])
