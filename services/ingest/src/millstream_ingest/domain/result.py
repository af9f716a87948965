"""What is said about each event of a request."""

from __future__ import annotations

from typing import Literal

import msgspec

from millstream_ingest.errors import BadEvent


class Fault(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why an event was rejected, for the producer's developer."""

    code: str
    message: str
    pointer: str
    """JSON Pointer (RFC 6901) to the value that is wrong; empty is the whole event."""
    expected: str | None = None
    got: str | None = None

    @classmethod
    def of(cls, error: BadEvent) -> Fault:
        return cls(
            code=error.reason, message=error.detail, pointer=error.pointer, expected=error.expected, got=error.got
        )


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One event's answer; those of a batch stand in the order of its events."""

    index: int
    status: Literal["accepted", "rejected", "not_accepted", "unknown"]
    """`not_accepted` and `unknown` are of streams only: Kafka went away after the answer had begun."""
    id: str | None = None
    """The event's id, where one could be read."""
    error: Fault | None = None
