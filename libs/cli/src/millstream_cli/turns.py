"""Turns within a tick: questions that share a key of a view over their own stream are asked one after the other.

All questions of a tick would be known at the same moment, and each would count all others of its key, whether features had them
yet or not.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from millstream.project import Project

Apart = Mapping[str, Sequence[tuple[str, ...]]]
"""Stream that asks → the keys of each view over it."""


def apart(project: Project) -> Apart:
    """Which questions of `project` take turns. Reads the Feast repo, which takes a second or two. Raises BadRepo."""
    from millstream_tiles.registry import describe

    found: dict[str, list[tuple[str, ...]]] = {}
    asking = {loop.predict.on for loop in project.loops.values()}
    for view in describe(project.features_path).views.values():
        if view.stream in asking:
            found.setdefault(view.stream, []).append(view.keys)
    return found


def turns(ticks: NDArray[np.int64], frame: pl.DataFrame, keys: Sequence[tuple[str, ...]]) -> NDArray[np.int64]:
    """The turn of each question within its tick, from 0. `ticks` has that of each row of `frame`, ascending.

    Two that share a key of one of `keys` never have the same turn, and the one that comes first has the earlier one. Nobody
    counts a question whose key is null.
    """
    found = np.zeros(len(frame), dtype=np.int64)
    columns = [frame.select(pl.col(name).cast(pl.String) for name in each).rows() for each in keys]
    tick, last = -1, dict[Hashable, int]()
    for row, now in enumerate(ticks.tolist()):
        if now != tick:
            tick, last = now, {}
        mine = [(view, one[row]) for view, one in enumerate(columns) if None not in one[row]]
        turn = max((last[key] + 1 for key in mine if key in last), default=0)
        last.update(dict.fromkeys(mine, turn))
        found[row] = turn
    return found
