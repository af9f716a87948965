"""One loop's events in stream-time order become matured counts and closed windows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import msgspec

from millstream.contracts.envelope import derived_id
from millstream.contracts.events import LabelsMatured, WindowKind
from millstream.contracts.times import DAY, to_datetime, to_rfc3339
from millstream_drift.domain.events import Heard, Label, Question
from millstream_drift.domain.join import Asked, Join, JoinState
from millstream_drift.domain.memory import Memory
from millstream_drift.domain.windows import Window, Windows

MOST_BOUNDARIES = 31
"""Day boundaries that one silence publishes. After a longer one only its last: nobody needs the clock of a dead month."""


@dataclass(frozen=True, kw_only=True)
class Matured:
    """A day of stream time passed."""

    event: LabelsMatured
    cause: str
    """Id of the last event that counts in it."""


class LoopState(msgspec.Struct, array_like=True):
    """Everything that is known of a loop, as a snapshot keeps it."""

    join: JoinState = msgspec.field(default_factory=JoinState)
    windows: list[Window] = []
    memory: Memory = msgspec.field(default_factory=Memory)
    boundary: int = 0
    """Next day boundary to be published; 0 before the first event."""
    newest: int = 0
    """Largest stream time heard, settled or not."""
    cause: str = ""
    """Id of the last settled event."""
    held: list[Heard] = []
    """Heard and not settled yet, in any order."""


class LoopFold:
    """The fold of one loop. What it gives depends on the set of events alone, not on how they were batched."""

    def __init__(self, loop: str, *, within: int, window: int, span: int = 0, state: LoopState | None = None) -> None:
        state = state or LoopState()
        self.loop = loop
        self._size = window
        self.join = Join(within, state.join)
        self.windows = Windows(window, span, state.windows)
        self.memory = state.memory
        self._boundary, self._newest, self._cause = state.boundary, state.newest, state.cause
        self._held = state.held
        self._held_rows: Counter[str] = Counter(
            one.version for one in state.held if isinstance(one, Question) and one.version is not None
        )
        self._held_labels = sum(isinstance(one, Label) for one in state.held)
        self._out: list[Matured | Window] = []

    def state(self) -> LoopState:
        return LoopState(
            self.join.state(),
            self.windows.state(),
            self.memory,
            self._boundary,
            self._newest,
            self._cause,
            list(self._held),
        )

    @property
    def held(self) -> int:
        return len(self._held)

    @property
    def versions(self) -> set[str]:
        """Versions with rows that wait to be judged, or may get some."""
        return self.windows.versions | self.join.versions | set(self._held_rows)

    def forget(self, version: str) -> None:
        """No reference for this version can be had: its rows are in no window, its questions still have labels."""
        self.windows.drop(version)
        self._held_rows.pop(version, None)
        self._held = [
            msgspec.structs.replace(one, version=None) if isinstance(one, Question) and one.version == version else one
            for one in self._held
        ]
        self.join.disown(version)

    def hear(self, event: Heard) -> None:
        """Hold an event until its time is settled."""
        self._held.append(event)
        self._newest = max(self._newest, event.time)
        if not self._boundary or not self._cause:
            # Nothing is settled yet, so an earlier event may still come and begin the loop on an earlier day.
            first = _next_day(event.time)
            self._boundary = min(self._boundary, first) if self._boundary else first
        if isinstance(event, Label):
            self._held_labels += 1
        elif event.version is not None:
            self._held_rows[event.version] += 1

    def is_due(self) -> bool:
        """Whether settling could publish something: a day has passed, or a window may be full or over."""
        if (self._boundary and self._newest >= self._boundary) or self.windows.may_close(self._newest):
            return True
        if any(self.windows.rows(v, WindowKind.INPUTS) + rows >= self._size for v, rows in self._held_rows.items()):
            return True
        return any(
            self.windows.rows(version, WindowKind.INPUTS) >= self._size
            or self.windows.rows(version, WindowKind.PERFORMANCE) + self._held_labels >= self._size
            for version in self.windows.versions
        )

    def settle(self, settled: int) -> list[Matured | Window]:
        """Everything below `settled` has been heard: what follows from it, in order of its stream time."""
        ready = sorted((one for one in self._held if one.time < settled), key=lambda one: one.order)
        self._held = [one for one in self._held if one.time >= settled]
        for event in ready:
            self._advance(event.time)
            self._cause = event.id
            if isinstance(event, Question):
                self._ask(event)
            else:
                self._tell(event)
        self._out += self.windows.close(settled, by_time=False)
        if any(one.time == settled for one in self._held):
            # Of the time after the last event only its next event may decide: else a boundary in a silence would be
            # published or not as the other loops happen to be read.
            self._advance(settled)
        out, self._out = self._out, []
        return out

    def _ask(self, question: Question) -> None:
        version = question.version
        if version is not None:
            self._held_rows[version] -= 1
            if not self._held_rows[version]:
                del self._held_rows[version]
        asked, label = self.join.ask(question)
        if asked is None:
            return
        if version is not None:
            row = (question.output, question.producer, *question.row)
            self.windows.add(version, WindowKind.INPUTS, question.time, question.id, row)
        if label is not None:
            self._score(asked, label, max(label.time, question.time))

    def _tell(self, label: Label) -> None:
        self._held_labels -= 1
        for asked in self.join.tell(label):
            self._score(asked, label, label.time)

    def _score(self, asked: Asked, label: Label, time: int) -> None:
        """One question found its label; both were known at `time`."""
        if asked.version is not None:
            row = asked.output, label.value, *asked.slices
            self.windows.add(asked.version, WindowKind.PERFORMANCE, time, label.id, row)

    def _advance(self, now: int) -> None:
        """Close windows that ended before `now` and publish the day boundaries up to it."""
        self._out += self.windows.close(now)
        while self._boundary <= now:
            missed = (now - self._boundary) // DAY
            if missed >= MOST_BOUNDARIES:
                self._boundary += missed * DAY
            self.join.advance(self._boundary)
            self._out.append(self._matured(self._boundary))
            self._boundary += DAY
        self.join.advance(now)

    def _matured(self, boundary: int) -> Matured:
        counts = self.join.counts
        event = LabelsMatured(
            id=derived_id(self.loop, "matured", to_rfc3339(boundary)),
            loop=self.loop,
            at=to_datetime(boundary),
            matured=counts.matured,
            pending=self.join.pending,
            expired=counts.expired,
            late=counts.late,
            orphaned=counts.orphaned,
            duplicated=counts.duplicated,
        )
        return Matured(event=event, cause=self._cause)


def _next_day(time: int) -> int:
    return (time // DAY + 1) * DAY
