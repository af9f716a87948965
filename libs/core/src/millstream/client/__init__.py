"""Speaks to a mill from Python: `Client` and `AsyncClient` send events and labels and ask for predictions."""

from millstream.client.asynchronous import AsyncClient
from millstream.client.batches import Progress
from millstream.client.errors import (
    CallFailed,
    EventRejected,
    NotAuthorised,
    NotFound,
    OutcomeUnknown,
    Throttled,
    TooLarge,
    Unavailable,
)
from millstream.client.replies import Accepted
from millstream.client.synchronous import Client

__all__ = [
    "Accepted",
    "AsyncClient",
    "CallFailed",
    "Client",
    "EventRejected",
    "NotAuthorised",
    "NotFound",
    "OutcomeUnknown",
    "Progress",
    "Throttled",
    "TooLarge",
    "Unavailable",
]
