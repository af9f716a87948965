"""Which windows the online store still holds. It drops tiles that are in no window which may be asked for, by stream time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from millstream_tiles.definition import Aggregate, View
from millstream_tiles.layout import Ints
from millstream_tiles.partials import oldest_of, slack_of
from millstream_tiles.tiling import Tiling, tilings_of
from millstream_tiles.windows import Values

Gone = dict[str, NDArray[np.bool_]]
"""Feature -> for each row whether tiles of its window may have been dropped. What is whole in every row is not in it."""


def gone_of(tiling: Tiling, times: Ints, keyed: NDArray[np.bool_], newest: int) -> Gone:
    """The features of a family whose windows at `times` are not held any more where the stream has come to `newest`.

    The family's longest window says how long a tile stays; shorter ones beside it reach as much further back. A row that is
    not `keyed` has windows of nothing at any time. Microseconds.
    """
    oldest = oldest_of(tiling, newest) // tiling.slide
    found: Gone = {}
    for aggregate in tiling.aggregates:
        gone = (times // aggregate.slide - aggregate.tiles + 1 < oldest) & keyed
        if gone.any():
            found[aggregate.name] = gone
    return found


def all_held(view: View, times: int | Ints, newest: int) -> bool:
    """Whether every window of `view` is held at `times`, by one look: what nearly every read needs to know."""
    earliest = times if isinstance(times, int) else np.min(times, initial=newest)
    return bool(earliest >= newest - slack_of(view))


def holds(view: View, aggregate: Aggregate, t: int, newest: int) -> bool:
    """Whether the store promises to have every tile of the window at `t`."""
    [tiling] = [tiling for tiling in tilings_of(view) if aggregate in tiling.aggregates]
    return aggregate.name not in gone_of(tiling, np.array([t], dtype=np.int64), np.array([True]), newest)


def without(values: Values, gone: Gone) -> Values:
    """`values` with NaN for what is gone; a count that needs one becomes float64."""
    masked = dict(values)
    for name, rows in gone.items():
        column = values[name].astype(np.float64)
        column[rows] = np.nan
        masked[name] = column
    return masked
