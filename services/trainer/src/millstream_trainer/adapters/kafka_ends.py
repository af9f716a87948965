"""Asks Kafka how far the streams are."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.runtime.kafka_security import Bootstrap
from millstream.runtime.topic_bounds import TopicBounds
from millstream_trainer.domain.run import Positions


class KafkaEnds:
    """See `ports.StreamEnds`. Connects for the asking: runs are rare, connections are not free to keep."""

    def __init__(self, bootstrap: Bootstrap) -> None:
        self._bootstrap = bootstrap

    async def ends(self, streams: Sequence[str]) -> Positions:
        bounds = TopicBounds(self._bootstrap)
        try:
            found: Positions = {stream: {} for stream in streams}
            for (topic, partition), (first, after) in (await bounds.of(streams)).items():
                if first < after or not after:
                    found[topic][partition] = after - 1
        finally:
            await bounds.close()
        return found
