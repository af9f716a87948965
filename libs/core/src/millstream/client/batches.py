"""Cuts a run of events into batches and reads what became of each: never more than one batch is held."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from millstream.client.errors import EventRejected
from millstream.client.replies import Reply, rejection, results
from millstream.client.requests import encoded

EVENTS = 500
"""Of a batch. A request costs a millisecond, an event some ten microseconds; larger batches gain nothing."""
BYTES = 1024 * 1024
"""Of a batch, unless one event is larger. Ingest takes 16 MiB; one holds back nobody for long."""

OnRejected = Callable[[EventRejected], None]


class Progress(msgspec.Struct, kw_only=True):
    """How far a run of events is."""

    accepted: int = 0
    """In Kafka."""
    rejected: int = 0

    @property
    def done(self) -> int:
        return self.accepted + self.rejected


OnProgress = Callable[[Progress], None]


class Batches:
    """Collects events until a batch is due, and counts what came of them."""

    def __init__(
        self, *, most_events: int, most_bytes: int, on_rejected: OnRejected | None, on_progress: OnProgress | None
    ) -> None:
        if most_events < 1 or most_bytes < 1:
            raise ValueError("a batch has at least one event and one byte")
        self._most, self._most_bytes = most_events, most_bytes
        self._on_rejected = on_rejected
        self._on_progress = on_progress
        self.progress = Progress()
        self._index = 0
        """Of the next event."""
        self.lines: list[bytes] = []
        self._given: list[tuple[int, Any]] = []
        """Index and event of each line."""
        self._size = 0
        self._late: EventRejected | None = None
        """One that nobody would take, told after those before it."""
        self._spare: tuple[bytes, int, Any] | None = None
        """One that did not fit any more."""

    def add(self, event: Any) -> bool:
        """Take one event; whether the batch is due. Raises EventRejected where nobody wants to go on without it."""
        index, self._index = self._index, self._index + 1
        try:
            line = encoded(event, index)
        except EventRejected as error:
            if self.lines and self._on_rejected is None:
                self._late = error
                return True
            self._reject(error)
            return False
        if self.lines and self._size + len(line) > self._most_bytes:
            self._spare = line, index, event
            return True
        self._put(line, index, event)
        return len(self.lines) >= self._most or self._size >= self._most_bytes

    def settled(self, reply: Reply) -> None:
        """What became of the batch; the next one is begun. Raises CallFailed, EventRejected."""
        found = results(reply, len(self.lines))
        given = self._given
        self.lines, self._given, self._size = [], [], 0
        if self._spare is not None:
            spare, self._spare = self._spare, None
            self._put(*spare)
        # Counted before anybody is told: whoever stops at the first rejection knows what was taken all the same.
        bad = [n for n, result in enumerate(found) if result.get("status") != "accepted"]
        self.progress.accepted += len(found) - len(bad)
        for n in bad:
            index, event = given[n]
            self._reject(rejection(found[n].get("error") or {}, index=index, event=event))
        if self._on_progress is not None:
            self._on_progress(self.progress)
        if self._late is not None:
            late, self._late = self._late, None
            self._reject(late)

    def _put(self, line: bytes, index: int, event: Any) -> None:
        self.lines.append(line)
        self._given.append((index, event))
        self._size += len(line) + 1

    def _reject(self, error: EventRejected) -> None:
        self.progress.rejected += 1
        if self._on_rejected is None:
            raise error
        self._on_rejected(error)
