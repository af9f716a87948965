"""What features needs from outside, and the duties of whoever provides it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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


@dataclass(frozen=True, kw_only=True)
class Tidied:
    """What was done to one stream's table."""

    joined: int
    """Files that became part of larger ones."""
    deleted: int
    """Files that no reader can need any more."""
    files: int
    """In use now."""


class Tiles(Protocol):
    """Where windows live. Called by one subscriber per stream; may wait for the store, never blocks the loop."""

    async def check(self) -> None:
        """Whether the store is there, and which views it has; called before the first record, perhaps again.

        Raises StoreUnavailable, which says what to do.
        """

    async def applied(self, stream: str, partitions: Sequence[int]) -> dict[int, int]:
        """Last offset of each partition that the windows have; one of which they have nothing is missing.

        Less than before where the store lost what it had. Raises StoreUnavailable.
        """

    async def apply(self, batch: Slice, after: asyncio.Future[Any] | None = None) -> Applied:
        """Merge the batch and move its fence, together or not at all. Safe to call twice.

        The store hears nothing of it before `after` (the batch before) is done. Raises StoreUnavailable, and what `after` does.
        """

    async def close(self) -> None:
        """Let go of connections. Safe to call twice."""


class History(Protocol):
    """Where every event is kept for good. Appends come from one flusher at a time."""

    async def append(self, slices: Sequence[Slice]) -> None:
        """Append the slices of one stream in one commit that carries their offsets; what is there already adds nothing.

        Slices of one partition are consecutive. Raises LakeUnavailable (nothing was added, call again) and LakeRefuses
        (nothing was added, and calling again will not help).
        """

    async def refusal(self, stream: str) -> str | None:
        """Why the stream's events do not fit what is kept of it, and what to do; None where they do. Raises LakeUnavailable."""

    async def positions(self, stream: str, partitions: Sequence[int]) -> dict[int, int]:
        """Last offset of each partition that is in the lake; a partition without rows is missing. Raises LakeUnavailable."""

    async def tidy(self, stream: str) -> Tidied:
        """Join small files and delete unused ones, as much as a bounded time allows; appends go on meanwhile.

        Safe to call twice, and by several at once. Raises LakeUnavailable: nothing is lost, call later.
        """


@dataclass(frozen=True, kw_only=True)
class ViewTime:
    """How far one view has come. Times are known-at, microseconds."""

    view: str
    stream: str
    stream_time: int | None
    """The newest event that is counted; None: none yet."""
    waits_since: int | None
    """The first event that lies in Kafka and is not counted; None: all are, the view is as fresh as its stream."""
    filled: bool
    """Whether it has tiles of its definition; one that is new or changed waits for a rebuild, and cannot be read."""


class ViewTimes(Protocol):
    """Where views stand. Asked by people and scripts, now and then."""

    async def all(self) -> list[ViewTime]:
        """Every windowed view, by name. Raises StoreUnavailable, RetryLater."""

    async def close(self) -> None:
        """Let go of connections. Safe to call twice."""


class Door(Protocol):
    """Another way in to read features, beside HTTP."""

    async def open(self, host: str, port: int) -> int:
        """Listen; the port (0 picks one). Called once, when the definitions are read. Raises BadSetup."""

    async def close(self) -> None:
        """Take no new calls, and give those under way some seconds. Safe to call twice."""


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
