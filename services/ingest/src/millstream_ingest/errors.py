"""What ingest refuses of a batch, one event at a time; a whole request is refused by `millstream.errors.Refusal`."""

from __future__ import annotations

from millstream.errors import MillstreamError, RejectEvent, RetryLater


class BadEvent(RejectEvent):
    """One event that does not fit its stream; the other events of its batch are not touched by it."""

    def __init__(
        self, reason: str, detail: str, *, pointer: str = "", expected: str | None = None, got: str | None = None
    ) -> None:
        super().__init__(reason, detail)
        self.pointer = pointer
        """JSON Pointer (RFC 6901) to the value that is wrong; empty is the whole event."""
        self.expected = expected
        self.got = got
        """The value that is wrong, as JSON, cut where nobody reads on."""


class LogAway(RetryLater):
    """Kafka is not connected: nothing was sent, and a later try is a first try."""


class RepliesAway(MillstreamError):
    """The store of shared replies does not answer: this replica goes by its own memory meanwhile."""


class QuotasAway(MillstreamError):
    """The store of shared quotas does not answer: this replica counts for itself meanwhile."""
