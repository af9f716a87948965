"""Times on the wire are RFC 3339; times in code are int64 microseconds since the epoch, UTC."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

REMEMBERED = 4096
"""Times that are remembered as text: events of one moment come together, and a clock has few ticks at once."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_LAST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


@lru_cache(maxsize=REMEMBERED)
def from_rfc3339(text: str) -> int:
    """Microseconds of an RFC 3339 time. Raises ValueError when it is not one or has no UTC offset."""
    return parse_rfc3339(text)


def parse_rfc3339(text: str) -> int:
    """`from_rfc3339` of a time that was hardly said before: to look for it and to remember it costs as much as to read it."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no UTC offset; write it like 2013-01-31T09:30:00Z")
    micros = from_datetime(moment)
    if not _FIRST <= micros <= _LAST:
        # An offset can push a legal local time out of the calendar; nobody could write such a time back.
        raise ValueError(f"{text!r} is not within the years 1 to 9999 in UTC")
    return micros


def from_datetime(moment: datetime) -> int:
    """Microseconds of an aware datetime."""
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * SECOND + since.microseconds  # half the time of a division


def to_datetime(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


@lru_cache(maxsize=REMEMBERED)
def to_rfc3339(micros: int) -> str:
    """RFC 3339 with a `Z`, microseconds only where there are any."""
    return to_datetime(micros).isoformat().replace("+00:00", "Z")


def now() -> int:
    """The wall clock. Domain code never calls this: time comes in with the event."""
    return time.time_ns() // 1000
