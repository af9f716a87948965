"""How records come out of the Kafka library untouched: its own poll sleeps, and its parser trips over strangers' bytes."""

from __future__ import annotations

from itertools import chain
from typing import Any

from faststream.kafka import KafkaMessage

from millstream.runtime.records import Record


async def wait_for_records(consumer: Any, *, most: int) -> tuple[Record, ...]:
    """One poll: records of any partitions, as soon as there are some; empty after a second, to see whether to stop."""
    found = await consumer.getmany(timeout_ms=1000, max_records=most)
    return tuple(chain.from_iterable(found.values()))


async def raw_parser(message: Any, original: Any) -> KafkaMessage:
    """Leave the records as they are: the library's parser decodes headers as UTF-8 and trips over strangers' bytes."""
    parser = original.__self__
    parsed: KafkaMessage = parser.msg_class(body=b"", raw_message=message, consumer=parser._consumer)
    return parsed


async def raw_decoder(message: KafkaMessage) -> KafkaMessage:
    return message
