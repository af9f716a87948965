"""Asks Kafka how far the streams are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from millstream.errors import RetryLater
from millstream_trainer.domain.run import Positions


class KafkaEnds:
    """See `ports.StreamEnds`. A short-lived consumer without a group: runs are rare, connections are not free to keep."""

    def __init__(self, bootstrap: str, timeout: float = 30.0) -> None:
        self._bootstrap = bootstrap
        self._timeout = timeout

    async def ends(self, streams: Sequence[str]) -> Positions:
        consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap, enable_auto_commit=False)
        try:
            async with asyncio.timeout(self._timeout):
                await consumer.start()
                await consumer._client.force_metadata_update()
                partitions = [
                    TopicPartition(stream, partition)
                    for stream in streams
                    for partition in sorted(consumer.partitions_for_topic(stream) or ())
                ]
                ends = await consumer.end_offsets(partitions) if partitions else {}
        except (KafkaError, TimeoutError) as error:
            raise RetryLater(f"Kafka does not say how far the streams are: {error or 'timeout'}") from error
        finally:
            await consumer.stop()
        found: Positions = {stream: {} for stream in streams}
        for partition, end in ends.items():
            found[partition.topic][partition.partition] = int(end) - 1
        return found
