"""The time that online reads through Feast are asked for: now, unless the caller says when."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from millstream_tiles.durations import micros

_AS_OF: ContextVar[int | None] = ContextVar("millstream_tiles_as_of", default=None)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@contextmanager
def as_of(moment: datetime) -> Iterator[None]:
    """Inside of it `store.get_online_features` answers as of `moment` (naive: UTC). Follows the task, not the thread."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    token = _AS_OF.set(micros(aware - _EPOCH))
    try:
        yield
    finally:
        _AS_OF.reset(token)


def asked_time() -> int:
    """The time asked for, microseconds since the epoch."""
    chosen = _AS_OF.get()
    return time.time_ns() // 1000 if chosen is None else chosen
