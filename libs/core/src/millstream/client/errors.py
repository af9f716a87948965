"""What a call can fail with. Each says what was wrong, and whether anything was taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from millstream.errors import MillstreamError


class CallFailed(MillstreamError):
    """The request was refused, or something answered that is no mill; the others here are kinds of it."""

    def __init__(self, message: str, *, code: str = "", status: int = 0) -> None:
        super().__init__(message)
        self.code = code
        """The mill's own short code, from a closed set; empty where nobody answered."""
        self.status = status
        """HTTP status of the answer; 0 where there was none."""


class EventRejected(CallFailed):
    """An event does not fit its stream. Trying again does not help: change the event, or the stream's schema."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        status: int = 0,
        pointer: str = "",
        expected: str | None = None,
        got: str | None = None,
        index: int = 0,
        event: Any = None,
    ) -> None:
        super().__init__(message, code=code, status=status)
        self.pointer = pointer
        """JSON Pointer (RFC 6901) to the value that is wrong; empty is the whole event."""
        self.expected = expected
        self.got = got
        """The value that is wrong, as JSON."""
        self.index = index
        """Which event of `send_many`, from 0."""
        self.event = event
        """The event as it was given."""

    def __str__(self) -> str:
        said = super().__str__()
        place = f"{self.pointer}: " if self.pointer else ""
        wanted = f" (expected {self.expected}, got {self.got})" if self.expected is not None else ""
        return f"{place}{said}{wanted}"


class TooLarge(EventRejected):
    """An event, or a request, is larger than the mill takes."""


class NotAuthorised(CallFailed):
    """The key is missing or wrong, or may not do this."""


class NotFound(CallFailed):
    """There is no such stream or loop; `known` has those there are."""

    def __init__(self, message: str, *, code: str = "", status: int = 0, known: Sequence[str] = ()) -> None:
        super().__init__(message, code=code, status=status)
        self.known = tuple(known)


class Unavailable(CallFailed):
    """The mill was away, or busy, for longer than the client's patience. Nothing was taken: try again later."""


class Throttled(Unavailable):
    """As `Unavailable`: this producer's quota is used up, or features is behind, for longer than the client's patience."""

    def __init__(self, message: str, *, code: str = "", status: int = 0, retry_after: float = 0.0) -> None:
        super().__init__(message, code=code, status=status)
        self.retry_after = retry_after
        """Seconds that the mill asked for."""


class OutcomeUnknown(Unavailable):
    """As `Unavailable`, or the mill has a fault, and a try may have got through: the events are taken, or not. The same
    events may be sent again, their ids make that harmless."""
