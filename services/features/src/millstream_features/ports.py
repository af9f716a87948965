"""What features needs from outside, and the duties of whoever provides it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from millstream.contracts.events import Event, PredictionServed
from millstream.runtime.publisher import Outgoing
from millstream.runtime.user_events import UserEvent
from millstream_features.domain.skew import CheckedRead


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What became of a batch."""

    repeated: bool
    """The whole batch had been applied before; nothing changed."""
    behind_at: int | None
    """The store has not seen what comes before this batch: read again from this offset. None: all is well."""


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Good events of one partition, and the offsets that they stand for (dead letters leave holes)."""

    stream: str
    partition: int
    start: int
    end: int
    events: Sequence[UserEvent]


class Tiles(Protocol):
    """Where windows live. Called by one subscriber per stream; may wait for the store, never blocks the loop."""

    async def check(self) -> None:
        """Whether the store is there; called before the first record. Raises StoreUnavailable, which says what to do."""

    async def apply(self, batch: Slice) -> Applied:
        """Merge the batch and move its fence, together or not at all. Safe to call twice.

        Raises StoreUnavailable.
        """


class History(Protocol):
    """Where every event is kept for good. Called from one flusher at a time."""

    async def append(self, slices: Sequence[Slice]) -> None:
        """Append the slices of one stream in one commit that carries their offsets; what is there already adds nothing.

        Slices of one partition are consecutive. Raises LakeUnavailable: nothing was added, call again.
        """

    async def positions(self, stream: str, partitions: Sequence[int]) -> dict[int, int]:
        """Last offset of each partition that is in the lake; a partition without rows is missing. Raises LakeUnavailable."""


class Recompute(Protocol):
    """Computes the features of predictions again, from history. Called from one task, which it may keep waiting."""

    async def check(self, loop: str, served: Sequence[PredictionServed]) -> list[CheckedRead]:
        """What became of each prediction of `loop`, in their order, once the lake has all that is in the streams now.

        Raises LakeBehind, LakeUnavailable, RetryLater; nothing has changed then.
        """

    async def close(self) -> None:
        """Let go of connections. Safe to call twice."""


class Speaker(Protocol):
    """Publishes, and returns when it is safe. `millstream.runtime.publisher.Publisher` fits."""

    def outgoing(self, topic: str, event: Event, *, id: str, key: str, caused_by: str | None = None) -> Outgoing:
        """One of our own events, wrapped for its topic."""

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Raises DeliveryUnknown (retry: ids make a repeat harmless)."""
