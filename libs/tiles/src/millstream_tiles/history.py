"""Answers questions about the past for several views at once: reads each stream from the lake once and joins.

Memory is bounded: questions are answered in chunks of time (chunks.py), and a chunk with more events than fit is gone over in
passes, each with the keys of one hash and all their events. So what is in memory is the questions and answers, about
`Limits.events` events with their joins, and where passes are needed the places of repeated events (12 bytes for each repetition
in the chunk). What cannot be divided is one key with more events than that within two longest windows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import polars as pl

from millstream_tiles.chunks import DailyCounts, Limits, chunks
from millstream_tiles.definition import View
from millstream_tiles.join import nothing, values_of
from millstream_tiles.join_events import EVENT_TIME, ID, KNOWN_AT, OFFSET, PARTITION, columns_of, on_time_once
from millstream_tiles.join_forest import Floats, Ints
from millstream_tiles.join_keys import as_text
from millstream_tiles.lake import Lake
from millstream_tiles.lake_reader import collect, daily_counts, scan_events

AT_ONCE = min(2, os.cpu_count() or 1)
"""Views joined at the same time. Each has its own running values in memory, so more cores than two are not worth theirs."""

BETWEEN = "\x1f"
"""Between the parts of a key that is hashed: two keys that it makes alike are only put into the same pass."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """One view, and the key of each question: one column per join key, named like it, a row per question."""

    view: View
    keys: pl.DataFrame


def history(
    lake: Lake, asked: Sequence[Asked], t: Ints, *, limits: Limits | None = None
) -> list[dict[str, Floats | Ints]]:
    """The values of each view of `asked`, in its order, as known at `t` (int64 microseconds, one per question).

    Counts are int64, everything else float64 with NaN for null (`last_k`: k columns). Raises LakeUnavailable, and KeyError for
    a column that neither the lake nor the questions have.
    """
    limits = limits or Limits()
    answers = [_empty(one.view, len(t)) for one in asked]
    order = np.argsort(t, kind="stable")
    times = t[order]
    # The same threads for every chunk: what a thread frees stays in a heap of its own, and new ones would each fill another.
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="join") as pool:
        for alike in _alike(asked):
            source = _Source(lake, [asked[i].view for i in alike])
            for chunk in chunks(times, source.lead, source.counts, limits):
                of = [(i, asked[i]) for i in alike]
                for i, mine, found in _answered(pool, source, of, order[chunk], times[chunk], limits):
                    for name, values in found.items():
                        answers[i][name][mine] = values
    return answers


class _Source:
    """The countable events of one stream for views that are alike: one lateness, all by event id or none."""

    def __init__(self, lake: Lake, views: Sequence[View]) -> None:
        self._lake = lake
        self._stream, self._lateness = views[0].stream, views[0].lateness
        self.by_id = views[0].event_id is not None
        self.columns = list(dict.fromkeys(column for view in views for column in columns_of(view)))
        # An event in no window may still be the first copy of one that is.
        self._copies = views[0].dedupe_span if self.by_id else 0
        self._slide = max(a.slide for view in views for a in view.aggregates)
        self.lead = max(a.window for view in views for a in view.aggregates) + self._copies
        self.counts = DailyCounts(daily_counts(lake, self._stream))

    def read(self, times: Ints) -> pl.DataFrame:
        """What questions at `times` (ascending) may see."""
        events = self._collect(self._scan(times, self.columns))
        return on_time_once(events, lateness=self._lateness, by_id=self.by_id)

    def passes(self, times: Ints, most: int) -> int:
        """In how many parts `most` events at a time suffice."""
        # Beyond the last question happened only what was known before it happened.
        if self.counts.at_most(int(times[0]) - self.lead, int(times[-1])) <= most:
            return 1
        events = self._collect(self._scan(times, [EVENT_TIME]).select(pl.len())).item()
        return max(1, -(-int(events) // most))

    def repeats(self, times: Ints, passes: int) -> pl.DataFrame:
        """Partition and offset of the events on time that are not the first of their id; a part of the ids at a time."""
        found = []
        for part in range(passes):
            ids = self._scan(times, [EVENT_TIME, KNOWN_AT, PARTITION, OFFSET, ID])
            copies = self._collect(self._on_time(ids).filter(pl.col(ID).hash() % passes == part))
            copies = copies.filter(copies[ID].is_duplicated()).sort(KNOWN_AT, PARTITION, OFFSET)
            found.append(copies.filter(~copies[ID].is_first_distinct()).select(PARTITION, OFFSET))
        return pl.concat(found)

    def read_part(
        self, times: Ints, keys: Sequence[str], part: int, passes: int, repeats: pl.DataFrame | None
    ) -> pl.DataFrame:
        """`read`, of the keys that are in `part`; `repeats` are left out."""
        rows = self._on_time(self._scan(times, self.columns))
        empty = pl.DataFrame(schema=rows.collect_schema())
        events = self._collect(rows.filter(_part(empty, keys, passes) == part))
        if repeats is not None and len(repeats):
            events = events.join(repeats, on=[PARTITION, OFFSET], how="anti")
        return on_time_once(events, lateness=self._lateness, by_id=False)

    def _scan(self, times: Ints, columns: Sequence[str]) -> pl.LazyFrame:
        since, until = int(times[0]) - self.lead, int(times[-1]) + self._slide + self._copies
        return scan_events(self._lake, self._stream, columns, since=since, until=until, known_by=int(times[-1]))

    def _on_time(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows.filter((pl.col(KNOWN_AT) - pl.col(EVENT_TIME)).dt.total_microseconds() <= self._lateness)

    def _collect(self, rows: pl.LazyFrame) -> pl.DataFrame:
        return collect(self._lake, self._stream, rows)


Found = tuple[int, Ints, dict[str, Floats | Ints]]
"""Which of the asked, the rows of the questions, and their values."""


def _answered(
    pool: ThreadPoolExecutor,
    source: _Source,
    asked: Sequence[tuple[int, Asked]],
    rows: Ints,
    times: Ints,
    limits: Limits,
) -> Iterator[Found]:
    """One chunk: the questions at `rows`, asked at `times`."""
    passes = source.passes(times, limits.events)
    if passes == 1:
        yield from _joined(pool, source.read(times), asked, rows, times)
        return
    repeats = source.repeats(times, passes) if source.by_id else None
    for i, one in asked:  # each view has keys of its own, so the events of its parts are its own too
        questions, keys = one.keys[rows], one.view.keys
        parts = questions.select(_part(questions, keys, passes).fill_null(0)).to_series().to_numpy()
        for part in range(passes):
            mine = np.flatnonzero(parts == part)
            if len(mine):
                events = source.read_part(times, keys, part, passes, repeats)
                yield from _joined(pool, events, [(i, one)], rows[mine], times[mine])


def _part(rows: pl.DataFrame, keys: Sequence[str], passes: int) -> pl.Expr:
    """Which of the `passes` a key of `rows` is in; null where there is no key."""
    return pl.concat_str([as_text(rows, key) for key in keys], separator=BETWEEN).hash() % passes


def _joined(
    pool: ThreadPoolExecutor, events: pl.DataFrame, asked: Sequence[tuple[int, Asked]], rows: Ints, times: Ints
) -> Iterator[Found]:
    """`values_of` each view, some at a time: sorting and accumulating run without the interpreter's lock."""
    found = pool.map(lambda one: values_of(one[1].view, events, one[1].keys[rows], times), asked)
    for (i, _), values in zip(asked, found, strict=True):
        yield i, rows, values


def _alike(asked: Sequence[Asked]) -> list[list[int]]:
    """The views for which the same events count, by their places in `asked`."""
    groups: dict[tuple[str, int, bool], list[int]] = {}
    for i, one in enumerate(asked):
        groups.setdefault((one.view.stream, one.view.lateness, one.view.event_id is not None), []).append(i)
    return list(groups.values())


def _empty(view: View, n: int) -> dict[str, Floats | Ints]:
    return {a.name: nothing(a, n) for a in view.aggregates}
