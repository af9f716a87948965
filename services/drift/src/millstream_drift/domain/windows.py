"""Windows of one loop: rows per model version and kind, closed only between two stream times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from millstream.contracts.events import WindowKind
from millstream_drift.domain.content import Sample
from millstream_drift.domain.events import Contents

MINIMUM_ROWS = 100
"""Below this PSI over ten bins is noise: (10 - 1) / 100 = 0.09. A stretch of time with fewer rows is judged with the next."""
MOST_ROWS = 100_000
"""Rows at which a window by time is judged before its time is over: 40 MB of 20 columns, and PSI's noise is long gone."""
VERSIONS = 8
"""Versions with rows per loop: champion, previous, challenger and some history. The longest silent one goes first."""
REMEMBERED = 64
"""Versions whose next index is remembered per loop, so that a version that comes back repeats no verdict's id."""


Row = tuple[Any, ...]
ASKED, SLICES = 2, 3
"""Where in a row of labels stands when it was asked (microseconds), and where its cells of `gate.slices` begin."""


class Window(msgspec.Struct, array_like=True):
    """An open or just closed window."""

    version: str
    kind: WindowKind
    index: int
    """From 0, for each version and kind."""
    rows: list[Row] = []
    """Inputs: (output, producer, *cells of the reference's columns). Performance: (output, label, asked, *cells of
    `gate.slices`)."""
    start: int = 0
    end: int = 0
    """Stream times of the first and last row (microseconds)."""
    last: str = ""
    """Event id of the last row."""
    content: Sample = msgspec.field(default_factory=Sample)
    """Inputs, where texts or embeddings are watched."""
    heard: int = 0
    """Inputs: how many questions the loop's versions had answered together by its last row."""
    left: int = 0
    """Inputs: stream time (microseconds) at which it is looked at before it is full, for its version answers no more; 0: it
    was not since its last row. Then only that it is broken may come of it."""


Place = tuple[str, WindowKind]


class Windows:
    """Every row is in exactly one window, and all rows of one stream time are in the same: so neither the batching nor the
    order among them decides which window a row falls into."""

    def __init__(self, size: int, span: int = 0, state: list[Window] | None = None) -> None:
        """`size` rows close a window, and so does a multiple of `span` (microseconds since the epoch; 0: rows alone)."""
        self._size = size
        self._span = span
        self._stretch = 0
        """The stretch of time that was looked at last."""
        self._open = {(window.version, window.kind): window for window in state or []}
        self._full = {place for place, window in self._open.items() if len(window.rows) >= size}
        self._answered = max((window.heard for window in self._open.values()), default=0)
        self.dropped = 0
        """Rows of versions that were forgotten, or answered nobody for long, before their window was full."""

    def state(self) -> list[Window]:
        return list(self._open.values())

    def rows(self, version: str, kind: WindowKind) -> int:
        window = self._open.get((version, kind))
        return 0 if window is None else len(window.rows)

    @property
    def versions(self) -> set[str]:
        """Versions with rows that wait."""
        return {version for (version, _), window in self._open.items() if window.rows}

    def may_close(self, now: int) -> bool:
        """Whether a stretch of time has ended by `now` and its windows were not looked at since."""
        return self._span > 0 and now // self._span > self._stretch

    def add(
        self,
        version: str,
        kind: WindowKind,
        time: int,
        id: str,
        row: tuple[Any, ...],
        contents: Contents | None = None,
    ) -> None:
        """Put a row into its version's open window. Call `close(time)` first when `time` is later than all before.
        `contents` is None where no text or embedding is watched."""
        place = version, kind
        window = self._open.get(place)
        if window is None:
            window = self._open[place] = Window(version, kind, 0)
        if kind is WindowKind.INPUTS:
            if self._was_away(window, time):
                # It comes back, as after a rollback: what it was asked so long ago and what it is asked now are no one window.
                self._empty(place)
            self._answered += 1
            window.heard, window.left = self._answered, 0
        if not window.rows:
            self._make_room(version)
            window.start, window.end, window.last = time, time, id
        elif (time, id) > (window.end, window.last):
            window.end, window.last = time, id
        elif time < window.start:
            window.start = time
        window.rows.append(row)
        if contents is not None:
            window.content.add(id, contents)
        if len(window.rows) >= self._size:
            self._full.add(place)

    def _was_away(self, window: Window, time: int) -> bool:
        """Whether others answered instead of its version for as many questions as a window has rows; by time, for longer than a
        stretch, and than it was open: a version that answers few fills it in many stretches, with pauses."""
        others, silent = self._answered - window.heard, time - window.end
        if self._span and others >= MINIMUM_ROWS and silent > max(self._span, window.end - window.start):
            return True
        return others >= self._size and silent > 0

    def close(self, now: int, by_time: bool = True) -> list[Window]:
        """Close what has all rows of its last stream time, because `now` is later, and is full or of an earlier stretch.

        Stretches end (`by_time`) with an event of the loop alone, as its days do: not with how far others were read.
        """
        by_time = by_time and self._span > 0 and now // self._span > self._stretch
        ended = self._ended(now) if by_time else self._full
        if not ended:
            return []
        closed = []
        for place in sorted(ended):
            window = self._open[place]
            if window.end < now:
                closed.append(window)
                self.over(window)
        closed += self._left(closed)
        # Of windows that end together inputs are judged first: what was asked while they were broken says nothing of the model.
        return sorted(closed, key=lambda window: (self.closed_at(window), window.kind, window.version))

    def closed_at(self, window: Window) -> int:
        """Stream time at which a window closed: with its last row, or with its stretch of time."""
        if window.left:
            return window.left
        return window.end if len(window.rows) >= self._size else self._end_of_stretch(window.end)

    def over(self, window: Window) -> None:
        """A window was closed, or was left and turned out to be broken: its version's next rows are in the next."""
        place = window.version, window.kind
        self._full.discard(place)
        self._open[place] = Window(
            window.version, window.kind, window.index + 1, [], window.end, window.end, heard=window.heard
        )

    def _left(self, closed: Sequence[Window]) -> list[Window]:
        """Windows of inputs of versions that others answer instead of, each once: they may never be full. They stay open.

        Told a microsecond before the first window that closed since, so that verdicts in their order make one spell.
        """
        ends = [self.closed_at(one) for one in closed if one.kind is WindowKind.INPUTS]
        found = []
        for (_, kind), window in self._open.items() if ends else ():
            silent = self._answered - window.heard >= MINIMUM_ROWS
            if kind is WindowKind.INPUTS and silent and len(window.rows) >= MINIMUM_ROWS and not window.left:
                window.left = min((end - 1 for end in ends if end > window.end), default=0)
                found += [window] if window.left else []
        return found

    def _ended(self, now: int) -> set[Place]:
        self._stretch = now // self._span
        return self._full | {
            place
            for place, window in self._open.items()
            if len(window.rows) >= MINIMUM_ROWS and self._end_of_stretch(window.end) <= now
        }

    def _end_of_stretch(self, time: int) -> int:
        return (time // self._span + 1) * self._span if self._span else time

    def drop(self, version: str) -> None:
        """Forget a version's rows; its next index stays."""
        for kind in WindowKind:
            if (version, kind) in self._open:
                self._empty((version, kind))

    def _empty(self, place: Place) -> None:
        window = self._open[place]
        self._full.discard(place)
        self.dropped += len(window.rows)
        window.rows, window.content = [], Sample()

    def _make_room(self, newcomer: str) -> None:
        while newcomer not in self.versions and len(self.versions) >= VERSIONS:
            self.drop(min(self.versions, key=lambda version: (self._last_row(version), version)))
        while len(self._open) > REMEMBERED * len(WindowKind):
            oldest = min((w for w in self._open.values() if not w.rows), key=lambda w: (w.end, w.version))
            del self._open[oldest.version, oldest.kind]

    def _last_row(self, version: str) -> int:
        return max(window.end for place, window in self._open.items() if place[0] == version)
