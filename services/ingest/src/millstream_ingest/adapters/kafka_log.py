"""EventLog on Kafka: the runtime's idempotent acks=all publisher."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.errors import NotSent
from millstream.runtime.publisher import Outgoing, Publisher
from millstream_ingest.errors import LogAway


class KafkaLog:
    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    @property
    def source(self) -> str:
        return self._publisher.source

    async def append(self, entries: Sequence[Outgoing]) -> None:
        if not self._publisher.started:
            raise LogAway("Kafka is not connected yet; nothing was sent")
        try:
            await self._publisher.publish_fitting(entries)  # bounded in bytes, key and id
        except NotSent as error:
            raise LogAway(str(error)) from error
