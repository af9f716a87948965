"""Characters of the features tests: two streams, a handful of departures, and records as Kafka would hand them over."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
from prometheus_client import CollectorRegistry

from millstream.contracts.envelope import Envelope
from millstream.contracts.times import HOUR, MINUTE, from_rfc3339, to_rfc3339
from millstream.project import Stream
from millstream.runtime.delivery import Batch
from millstream.runtime.publisher import Outgoing
from millstream_features.metrics import FeatureMetrics
from millstream_tiles.event_names import EventNames

DEPARTED = Stream.model_validate(
    {
        "stream": "flights-departed",
        "description": "A flight left the gate.",
        "key": "tailnum",
        "id": "flight_id",
        "time": "departed_at",
        "lateness": "1h",
        "schema": {
            "type": "object",
            "required": ["flight_id", "departed_at", "tailnum"],
            "properties": {
                "flight_id": {"type": "string"},
                "departed_at": {"type": "string", "format": "date-time"},
                "tailnum": {"type": "string"},
                "dep_delay": {"type": "number"},
            },
        },
    }
)
NOON = from_rfc3339("2013-06-01T12:00:00Z")
STREAMS = {DEPARTED.name: DEPARTED}
NAMES = {DEPARTED.name: EventNames(fields={name: frozenset({"string"}) for name in ("flight_id", "tailnum")})}


@dataclass
class FakeRecord:
    """A record; `value` may be anything a stranger would write."""

    value: bytes | None
    offset: int
    topic: str = DEPARTED.name
    partition: int = 0
    timestamp: int = NOON // 1000
    key: bytes | None = b"N1"
    headers: list[tuple[str, bytes]] = field(default_factory=list)


def departure(offset: int, *, left: int = NOON, known: int | None = None, delay: float = 5.0) -> FakeRecord:
    """A departure at `left` that was known at `known` (a minute later unless said otherwise)."""
    event = {"flight_id": f"F{offset}", "departed_at": to_rfc3339(left), "tailnum": "N1", "dep_delay": delay}
    envelope = Envelope(id=f"F{offset}", type="t", source="s", known_at=left + MINUTE if known is None else known)
    return FakeRecord(msgspec.json.encode(event), offset, headers=envelope.headers())


def batch(*records: FakeRecord) -> Batch:
    return Batch(records[0].topic, records[0].partition, records[0].offset, records[-1].offset, records)


def metrics() -> FeatureMetrics:
    return FeatureMetrics(CollectorRegistry())


class Outbox:
    """A publisher that keeps what it was given."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []

    async def publish(self, records: list[Outgoing]) -> None:
        self.sent += records


__all__ = [
    "DEPARTED",
    "HOUR",
    "MINUTE",
    "NAMES",
    "NOON",
    "STREAMS",
    "FakeRecord",
    "Outbox",
    "batch",
    "departure",
    "metrics",
]
