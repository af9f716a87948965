"""A question: one event that asks one loop for one prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from millstream.contracts.envelope import derived_id

Transport = Literal["kafka", "http", "grpc"]


class Question(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is asked, as of when."""

    loop: str
    id: str
    """Event id of the asking event."""
    key: str
    """What will join it with its label."""
    asked_at: int
    """Known-at of the asking event, microseconds: features are read as of then."""
    transport: Transport
    event: Mapping[str, Any]
    """The asking event, valid by its stream's schema."""
    cause: str
    """Id of the event that led to it, for `ce_causationid`."""
    trace: str | None = None
    """Traceparent that the answer's record goes on with."""
    producer: str = ""
    """Who sent it (`ce_source`); empty where it was not over Kafka."""
    place: tuple[int, int] | None = None
    """Partition and offset of the asking event in its stream; None where it was not over Kafka."""

    @property
    def prediction_id(self) -> str:
        """The same for the same question to the same loop, however often and on whatever way it comes."""
        return derived_id(self.loop, self.id)
