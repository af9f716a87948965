"""What can go wrong, and what happens next: each error says so by its class."""

from __future__ import annotations

from typing import Any


class MillstreamError(Exception):
    """Base of every error we raise on purpose."""


class BadSetup(MillstreamError):
    """We cannot run as we were set up, and trying again changes nothing: the message says what to mend. Exit status 2."""


class ShutOut(BadSetup):
    """Another process took over what only one may do: this one stops, and says how to have one of them."""


class WriterLost(MillstreamError):
    """Kafka no longer knows who we are: the process ends, and what starts it again mends that."""


class RejectEvent(MillstreamError):
    """This one event can never be handled: it goes to the dead letters with its reason, and the stream goes on."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        """A short code from a closed set: metrics are labelled with it."""
        self.detail = detail
        """What was wrong and what to write instead, for a person."""


class Refusal(MillstreamError):
    """This request cannot be taken, and nothing of it was: the client changes it, or tries later."""

    def __init__(self, code: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.code = code
        """From a closed set; the table of the doorway has its HTTP status."""
        self.more = more
        """Further fields of the answer, e.g. the known streams."""


class RetryLater(MillstreamError):
    """Something we depend on is away for the moment: back off and do the same again; nothing is lost meanwhile."""


class DeliveryUnknown(RetryLater):
    """Kafka did not confirm in time. The event may or may not be in the topic; its id makes a retry harmless."""

    def __init__(self, message: str = "", *, confirmed: frozenset[int] = frozenset()) -> None:
        super().__init__(message)
        self.confirmed = confirmed
        """Of many, the places of those that are in the topic all the same."""


class NotSent(DeliveryUnknown):
    """Known after all: Kafka did not confirm in time, and nothing of it was sent. A later try is a first try."""
