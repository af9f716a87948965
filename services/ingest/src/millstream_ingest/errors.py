"""What ingest refuses. The code decides the HTTP status, in the one table of `api.py`."""

from __future__ import annotations

from typing import Any

from millstream.errors import MillstreamError, RejectEvent, RetryLater


class Refusal(MillstreamError):
    """The whole request cannot be taken; nothing of it is in Kafka."""

    def __init__(self, code: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.code = code
        """From the table in `api.py`, a closed set."""
        self.more = more
        """Further fields of the answer, e.g. the known streams."""


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
