"""Answers questions about the past for several views at once: reads each stream from the lake once and joins.

Memory is bounded by chunks of questions in time order: one chunk holds its questions and the events of its time range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from millstream_tiles.definition import Function, View
from millstream_tiles.join import windowed_values
from millstream_tiles.join_events import columns_of
from millstream_tiles.join_forest import Floats, Ints
from millstream_tiles.lake import Lake
from millstream_tiles.lake_reader import read_events

CHUNK = 500_000
"""Questions answered together. A year of a busy stream's questions in a few passes, each of some hundred megabytes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """One view, and the key of each question: one column per join key, named like it, a row per question."""

    view: View
    keys: pl.DataFrame


def history(lake: Lake, asked: Sequence[Asked], t: Ints, *, chunk: int = CHUNK) -> list[dict[str, Floats | Ints]]:
    """The values of each view of `asked`, in its order, as known at `t` (int64 microseconds, one per question).

    Counts are int64, everything else float64 with NaN for null. Raises LakeUnavailable, and KeyError for a column that
    neither the lake nor the questions have.
    """
    answers = [_empty(one.view, len(t)) for one in asked]
    order = np.argsort(t, kind="stable")
    for first in range(0, len(order), chunk):
        rows = order[first : first + chunk]
        times = t[rows]
        for stream in dict.fromkeys(one.view.stream for one in asked):
            mine = [i for i, one in enumerate(asked) if one.view.stream == stream]
            events = _events(lake, stream, [asked[i].view for i in mine], int(times[0]), int(times[-1]))
            for i in mine:
                keys = asked[i].keys[rows]
                for name, values in windowed_values(asked[i].view, events, keys, times).items():
                    answers[i][name][rows] = values
    return answers


def _events(lake: Lake, stream: str, views: Sequence[View], earliest: int, latest: int) -> pl.DataFrame:
    """All that questions between `earliest` and `latest` may see, and the copies of it that must not count twice."""
    columns = list(dict.fromkeys(column for view in views for column in columns_of(view)))
    copies = max(view.dedupe_span if view.event_id else 0 for view in views)
    window = max(a.window for view in views for a in view.aggregates)
    slide = max(a.slide for view in views for a in view.aggregates)
    return read_events(
        lake, stream, columns, since=earliest - window - copies, until=latest + slide + copies, known_by=latest
    )


def _empty(view: View, n: int) -> dict[str, Floats | Ints]:
    dtypes: Mapping[bool, type] = {True: np.int64, False: np.float64}
    return {a.name: np.zeros(n, dtype=dtypes[a.function is Function.COUNT]) for a in view.aggregates}
