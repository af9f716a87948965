"""EventLog on Kafka: the runtime's idempotent acks=all publisher."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.contracts.envelope import INGEST
from millstream.errors import DeliveryUnknown, NotSent, RejectEvent
from millstream.runtime.publisher import Outgoing, Publisher
from millstream_ingest.errors import LogAway


class KafkaLog:
    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    source = INGEST

    async def append(self, entries: Sequence[Outgoing]) -> None:
        if not self._publisher.started:
            raise LogAway("Kafka is not connected yet; nothing was sent")
        try:
            await self._publisher.publish_fitting(entries)  # bounded in bytes, key and id
        except NotSent as error:
            raise LogAway(str(error)) from error
        except RejectEvent as error:  # each fits Kafka's own limit, but this topic's is lower than a batch of them
            raise DeliveryUnknown(
                f"a topic of {', '.join(sorted({e.topic for e in entries}))} takes smaller batches than Kafka does: "
                f"raise its max.message.bytes to 1 MiB ({error})"
            ) from error
