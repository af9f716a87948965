"""Labels that come after their window was judged: pooled by window, and handed over when it is to be judged anew.

A label that comes in time is known by `asked_at + label.within` at the latest. So the window of a late one is the one that was
open at that moment, and where that is judged it is corrected; what is open when the label comes has nothing to do with it.
"""

from __future__ import annotations

import msgspec

from millstream_drift.domain.windows import Row, Window

LAST = 4
"""Windows of a version that are corrected. By default `drift.confirm` looks at three; older ones decide nothing any more."""
VERSIONS = 8
"""Versions with closed windows, as many as have open ones."""
MOST_WAITING = 1_000
"""Late labels of a version that wait for their correction: with so many it comes at once."""


class Closed(msgspec.Struct, array_like=True):
    """A performance window that was handed over to be judged."""

    version: str
    index: int
    start: int
    end: int
    """Stream times of its first and last row (microseconds)."""
    late: list[Row] = []
    """Rows whose labels came since, and wait to be told; as a window of labels has them."""
    last: str = ""
    """Event id of the last of them."""


class Correction(msgspec.Struct, frozen=True):
    """What came too late for one window."""

    version: str
    index: int
    late: list[Row]
    last: str
    at: int
    """Stream time at which it is told."""


class Corrections:
    """The last windows of each version, and what is to be corrected of them."""

    def __init__(self, state: list[Closed] | None = None) -> None:
        self._closed: dict[str, list[Closed]] = {}
        for one in state or []:
            self._closed.setdefault(one.version, []).append(one)

    def state(self) -> list[Closed]:
        return [one for some in self._closed.values() for one in some]

    def closed(self, window: Window) -> None:
        """A window is handed over to be judged. Tell what waits (`due`) first: the oldest one is corrected no more."""
        mine = self._closed.pop(window.version, [])
        mine.append(Closed(window.version, window.index, window.start, window.end))
        self._closed[window.version] = mine[-LAST:]
        while len(self._closed) > VERSIONS:
            del self._closed[next(iter(self._closed))]

    def take(self, version: str, until: int, row: Row, id: str) -> bool:
        """A late label whose question could have had one `until` then; False where none of the last windows was open then."""
        mine = self._closed.get(version, [])
        one = next((one for one in mine if until <= one.end), None)
        if one is None or until < mine[0].start:
            return False
        one.late.append(row)
        one.last = id
        return True

    def due(self, at: int, version: str | None = None) -> list[Correction]:
        """What was taken since the last time; of one version or of all, oldest window first."""
        found = []
        for one in (one for name in sorted(self._closed) if version in (None, name) for one in self._closed[name]):
            if one.late:
                found.append(Correction(one.version, one.index, one.late, one.last, at))
                one.late, one.last = [], ""
        return found

    def are_many(self, version: str) -> bool:
        """Whether so many wait that they are told at once."""
        return sum(len(one.late) for one in self._closed.get(version, ())) >= MOST_WAITING

    @property
    def versions(self) -> set[str]:
        """Versions of which something waits to be told."""
        return {version for version, some in self._closed.items() if any(one.late for one in some)}

    def forget(self, version: str) -> None:
        self._closed.pop(version, None)
