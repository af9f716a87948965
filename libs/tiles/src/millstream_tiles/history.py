"""Answers questions about the past for several views at once: reads each stream from the lake once and joins.

Memory is bounded by chunks of questions in time order: one chunk holds its questions and the events of its time range.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import polars as pl

from millstream_tiles.definition import View
from millstream_tiles.join import nothing, values_of
from millstream_tiles.join_events import columns_of, on_time_once
from millstream_tiles.join_forest import Floats, Ints
from millstream_tiles.lake import Lake
from millstream_tiles.lake_reader import read_events

CHUNK = 500_000
"""Questions answered together. A year of a busy stream's questions in a few passes, each of some hundred megabytes."""

AT_ONCE = min(2, os.cpu_count() or 1)
"""Views joined at the same time. Each has its own running values in memory, so more cores than two are not worth theirs."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """One view, and the key of each question: one column per join key, named like it, a row per question."""

    view: View
    keys: pl.DataFrame


def history(lake: Lake, asked: Sequence[Asked], t: Ints, *, chunk: int = CHUNK) -> list[dict[str, Floats | Ints]]:
    """The values of each view of `asked`, in its order, as known at `t` (int64 microseconds, one per question).

    Counts are int64, everything else float64 with NaN for null (`last_k`: k columns). Raises LakeUnavailable, and KeyError for
    a column that neither the lake nor the questions have.
    """
    answers = [_empty(one.view, len(t)) for one in asked]
    order = np.argsort(t, kind="stable")
    for first in range(0, len(order), chunk):
        rows = order[first : first + chunk]
        times = t[rows]
        for alike in _alike(asked):
            events = _events(lake, [asked[i].view for i in alike], int(times[0]), int(times[-1]))
            for i, found in zip(alike, _joined(events, [asked[i] for i in alike], rows, times), strict=True):
                for name, values in found.items():
                    answers[i][name][rows] = values
    return answers


def _joined(
    events: pl.DataFrame, asked: Sequence[Asked], rows: Ints, times: Ints
) -> Iterator[dict[str, Floats | Ints]]:
    """`values_of` each view, some at a time: sorting and accumulating run without the interpreter's lock."""
    with ThreadPoolExecutor(min(AT_ONCE, len(asked)), thread_name_prefix="join") as pool:
        yield from pool.map(lambda one: values_of(one.view, events, one.keys[rows], times), asked)


def _alike(asked: Sequence[Asked]) -> list[list[int]]:
    """The views for which the same events count, by their places in `asked`."""
    groups: dict[tuple[str, int, bool], list[int]] = {}
    for i, one in enumerate(asked):
        groups.setdefault((one.view.stream, one.view.lateness, one.view.event_id is not None), []).append(i)
    return list(groups.values())


def _events(lake: Lake, views: Sequence[View], earliest: int, latest: int) -> pl.DataFrame:
    """The countable events that questions between `earliest` and `latest` may see; all `views` are alike."""
    columns = list(dict.fromkeys(column for view in views for column in columns_of(view)))
    by_id = views[0].event_id is not None
    # An event in no window may still be the first copy of one that is.
    copies = views[0].dedupe_span if by_id else 0
    window = max(a.window for view in views for a in view.aggregates)
    slide = max(a.slide for view in views for a in view.aggregates)
    since, until = earliest - window - copies, latest + slide + copies
    events = read_events(lake, views[0].stream, columns, since=since, until=until, known_by=latest)
    return on_time_once(events, lateness=views[0].lateness, by_id=by_id)


def _empty(view: View, n: int) -> dict[str, Floats | Ints]:
    return {a.name: nothing(a, n) for a in view.aggregates}
