"""What ingest needs from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from millstream.runtime.publisher import Outgoing
from millstream_ingest.domain.counted import TopicCount
from millstream_ingest.domain.producer import Producer
from millstream_ingest.domain.replies import Reply


class EventLog(Protocol):
    """Where accepted events are kept. Called by many requests at once; may wait, bounded, never block the loop."""

    @property
    def source(self) -> str:
        """`ce_source` of what goes through here and does not say its own."""
        ...

    async def append(self, entries: Sequence[Outgoing]) -> None:
        """Return when every in-sync replica has all `entries`; order is kept per (topic, key).

        Twice is harmless to readers: they know an event by its id.
        Raises LogAway (nothing was sent) or DeliveryUnknown (all, some or none of them may be there).
        """
        ...


class SharedReplies(Protocol):
    """What all replicas remember of Idempotency-Keys. Called by many requests at once; bounded waits."""

    async def claim(self, key: str) -> bool:
        """Whether nobody has `key` yet, and the caller does now. A claim ends by itself after a while. Raises RepliesAway."""
        ...

    async def find(self, key: str) -> Reply | None:
        """The reply; None while there is only a claim, or nothing. Raises RepliesAway."""
        ...

    async def settle(self, key: str, reply: Reply | None) -> None:
        """End a claim: with a reply, which is remembered for the window, or without. Never raises."""
        ...


class DeadLetterBox(Protocol):
    """Where the consumer groups of the project's topics put what they cannot use. Called once at a time; waits, bounded."""

    async def count(self) -> Sequence[TopicCount]:
        """The newest letters of each topic. Raises RetryLater."""
        ...


class Tokens(Protocol):
    """Verifies what another system signed. Called by many requests at once; waits, bounded."""

    async def producer(self, text: str) -> Producer:
        """Whose token it is. Raises Refusal(`unauthorized`), RetryLater."""
        ...


class Spent(NamedTuple):
    """What one producer took since it was last told, and its limits: (events, bytes) each."""

    name: str
    rates: tuple[float, float]
    """A second; 0 is no limit."""
    capacities: tuple[float, float]
    amounts: tuple[float, float]


class SharedQuotas(Protocol):
    """What all replicas let through. Called by one task, beside the requests; bounded waits."""

    async def settle(self, spent: Sequence[Spent]) -> Sequence[tuple[float, float]]:
        """Take it out of everybody's buckets: the levels after that, which may be below zero. Raises QuotasAway."""
        ...


class Backlog(Protocol):
    """How far behind the readers of streams are. Called by one task; bounded waits."""

    async def behind(self, longest: float) -> Mapping[str, int]:
        """Streams with a record that features has left unread for over `longest` seconds → records left. Raises RetryLater."""
        ...
