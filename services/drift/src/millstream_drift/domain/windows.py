"""Windows of one loop: rows per model version and kind, closed only between two stream times."""

from __future__ import annotations

from typing import Any

import msgspec

from millstream.contracts.events import WindowKind

VERSIONS = 8
"""Versions with rows per loop: champion, previous, challenger and some history. The longest silent one goes first."""
REMEMBERED = 64
"""Versions whose next index is remembered per loop, so that a version that comes back repeats no verdict's id."""


class Window(msgspec.Struct, array_like=True):
    """An open or just closed window."""

    version: str
    kind: WindowKind
    index: int
    rows: list[tuple[Any, ...]] = []
    """Inputs: (output, producer, *cells of the reference's columns). Performance: (output, label, *cells of `gate.slices`)."""
    start: int = 0
    end: int = 0
    """Stream times of the first and last row (microseconds)."""
    last: str = ""
    """Event id of the last row."""


class Windows:
    """Every row is in exactly one window, and all rows of one stream time are in the same: so neither the batching nor the
    order among them decides which window a row falls into."""

    def __init__(self, size: int, state: list[Window] | None = None) -> None:
        self._size = size
        self._open = {(window.version, window.kind): window for window in state or []}
        self._full = {place for place, window in self._open.items() if len(window.rows) >= size}
        self.dropped = 0
        """Rows of versions that were forgotten before their window was full."""

    def state(self) -> list[Window]:
        return list(self._open.values())

    def rows(self, version: str, kind: WindowKind) -> int:
        window = self._open.get((version, kind))
        return 0 if window is None else len(window.rows)

    @property
    def versions(self) -> set[str]:
        """Versions with rows that wait."""
        return {version for (version, _), window in self._open.items() if window.rows}

    def add(self, version: str, kind: WindowKind, time: int, id: str, row: tuple[Any, ...]) -> None:
        """Put a row into its version's open window. Call `close(time)` first when `time` is later than all before."""
        place = version, kind
        window = self._open.get(place)
        if window is None:
            window = self._open[place] = Window(version, kind, 0)
        if not window.rows:
            self._make_room(version)
            window.start, window.end, window.last = time, time, id
        elif (time, id) > (window.end, window.last):
            window.end, window.last = time, id
        elif time < window.start:
            window.start = time
        window.rows.append(row)
        if len(window.rows) >= self._size:
            self._full.add(place)

    def close(self, now: int) -> list[Window]:
        """Close what is full and has all rows of its last stream time, because it is `now`, which is later."""
        if not self._full:
            return []
        closed = []
        for place in sorted(self._full):
            window = self._open[place]
            if window.end < now:
                closed.append(window)
                self._full.discard(place)
                self._open[place] = Window(window.version, window.kind, window.index + 1, [], window.end, window.end)
        return sorted(closed, key=lambda window: (window.end, window.kind, window.version))

    def drop(self, version: str) -> None:
        """Forget a version's rows; its next index stays."""
        for kind in WindowKind:
            window = self._open.get((version, kind))
            if window is not None:
                self._full.discard((version, kind))
                self.dropped += len(window.rows)
                window.rows = []

    def _make_room(self, newcomer: str) -> None:
        while newcomer not in self.versions and len(self.versions) >= VERSIONS:
            self.drop(min(self.versions, key=lambda version: (self._last_row(version), version)))
        while len(self._open) > REMEMBERED * len(WindowKind):
            oldest = min((w for w in self._open.values() if not w.rows), key=lambda w: (w.end, w.version))
            del self._open[oldest.version, oldest.kind]

    def _last_row(self, version: str) -> int:
        return max(window.end for place, window in self._open.items() if place[0] == version)
