"""EventLog on Kafka: the runtime's idempotent acks=all publisher."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.runtime.publisher import Outgoing, Publisher
from millstream_ingest.errors import LogAway
from millstream_ingest.ports import Entry


class KafkaLog:
    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    @property
    def source(self) -> str:
        return self._publisher.source

    async def append(self, entries: Sequence[Entry]) -> None:
        if not self._publisher.started:
            raise LogAway("Kafka is not connected yet; nothing was sent")
        await self._publisher.publish([Outgoing(e.topic, e.key, e.value, e.headers) for e in entries])
