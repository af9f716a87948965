"""Which windows the online store still holds.

By stream time it drops tiles that are in no window which may be asked for, and by its clock those of entities of which nothing
more is heard. A tile of event time e was applied when the stream was at e or later: by the store's clock at e plus what the
stream was behind it, or later. From then on it is there for as long as it takes to expire.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from millstream_tiles.definition import Aggregate, View
from millstream_tiles.layout import Ints
from millstream_tiles.partials import AWAY, expiry_ms, oldest_of, slack_of
from millstream_tiles.tiling import Tiling, tilings_of
from millstream_tiles.windows import Values


class Course(NamedTuple):
    """How far a stream has come, and how its time stood to the clock of the store; all in microseconds, the store's words."""

    now: int = 0
    """The store's clock; 0: it forgets nothing by a clock."""
    newest: int = 0
    """The largest known-at applied; 0: nothing yet."""
    behind: int = 0
    """How far the stream's time is behind the clock, at the least since `stood_at`."""
    stood_at: int = 0
    """Stream time at which it last stood still for more than a day; 0: never."""
    behind_before: int = 0
    """`behind` of what is older."""

    @classmethod
    def told(cls, now: bytes, newest: bytes, *course: bytes) -> Course:
        """As `read.lua` says it.

        A stream that only an older version has written has no course. Nobody knows for how long it stood still before, so what
        may have expired has: its events count as applied when they became known, as in `tiles.lua` (5).
        """
        if course:
            return cls(int(now), int(newest), *map(int, course))
        if newest == b"0":
            return NOTHING
        behind = min(0, int(now) - int(newest))
        return cls(int(now), int(newest), behind=behind, stood_at=int(newest), behind_before=behind)

    def joined(self, other: Course) -> Course:
        """Of two shards: what both hold. One that tells of no clock has had no batch yet since it can."""
        if not (self.now and other.now):
            return (self if self.now else other)._replace(newest=max(self.newest, other.newest))
        return Course(
            now=max(self.now, other.now),
            newest=max(self.newest, other.newest),
            behind=min(self.behind, other.behind),
            stood_at=max(self.stood_at, other.stood_at),
            behind_before=min(self.behind_before, other.behind_before),
        )


NOTHING = Course()

Gone = dict[str, NDArray[np.bool_]]
"""Feature -> for each row whether tiles of its window may have been dropped. What is whole in every row is not in it."""


def gone_of(tiling: Tiling, times: Ints, keyed: NDArray[np.bool_], course: Course) -> Gone:
    """The features of a family whose windows at `times` (microseconds) are not held any more.

    The family's longest window says how long a tile stays; shorter ones beside it reach as much further back. A row that is
    not `keyed` has windows of nothing at any time.
    """
    oldest = oldest_of(tiling, course.newest)
    found: Gone = {}
    for aggregate in tiling.aggregates:
        first = (times // aggregate.slide - aggregate.tiles + 1) * aggregate.slide
        behind = np.where(first <= course.stood_at, course.behind_before, course.behind)
        expired = (first <= course.newest) & (first + behind + expiry_ms(tiling) * 1000 < course.now)
        gone = ((first < oldest) | expired) & keyed
        if gone.any():
            found[aggregate.name] = gone
    return found


def all_held(view: View, times: int | Ints, course: Course) -> bool:
    """Whether every window of `view` is held at `times`, by one look: what nearly every read needs to know."""
    earliest = times if isinstance(times, int) else np.min(times, initial=course.newest)
    slack = slack_of(view)
    expired = course.now - AWAY - slack - min(course.behind, course.behind_before)
    return bool(earliest >= course.newest - slack and earliest >= expired)


def holds(view: View, aggregate: Aggregate, t: int, newest: int) -> bool:
    """Whether a store that never expires anything promises to have every tile of the window at `t`."""
    [tiling] = [tiling for tiling in tilings_of(view) if aggregate in tiling.aggregates]
    course = Course(newest=newest)
    return aggregate.name not in gone_of(tiling, np.array([t], dtype=np.int64), np.array([True]), course)


def without(values: Values, gone: Gone) -> Values:
    """`values` with NaN for what is gone; a count that needs one becomes float64."""
    masked = dict(values)
    for name, rows in gone.items():
        column = values[name].astype(np.float64)
        column[rows] = np.nan
        masked[name] = column
    return masked
