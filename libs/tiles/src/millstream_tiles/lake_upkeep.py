"""Keeps a lake quick and small while it is written: joins small files of a date, deletes files that nobody can need.

Neither touches an event or a position. A compaction is an overwrite of one date by its own rows: Delta refuses it when anyone
changed that date since we read it, so whoever appends comes first and we look again. delta-rs's own `optimize` has no such
check among several who run it, and doubles rows (`tests/test_lake_upkeep.py` holds it to that): do not run it on a lake.

Rows stay in the order of their arrival, which is nearly that of event time. Sorting them too (`z_order`, 2,000,000 events of
ten days) took half as long again and read an hour or all of them no faster than files of equal size without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta

import pyarrow as pa
from deltalake import QueryBuilder, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError
from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import FileSelector, PyFileSystem

from millstream_tiles.errors import LakeRefused
from millstream_tiles.lake import Lake
from millstream_tiles.lake_storage import Unavailable

TARGET = 100 * 1024 * 1024
"""Bytes of a file that is large enough to be left alone: a second of reading, a thousandth of what it costs to open."""

ATTEMPTS = 3
"""Tries of one date in which others write meanwhile. Each costs a file that is not used; the next time is soon."""

RETENTION = timedelta(days=7)
"""Age at which an unused file is deleted, Delta's default: longer than any reader holds on to a version, than a writer that
was paused takes from its file to its commit, and than one takes to see a mistake and want the version before it."""

SHORTEST = timedelta(days=1)
"""A training run reads for half an hour, a join on a cluster some hours; less than a day would pull files from under them."""

_SMALLER = WriterProperties(compression="ZSTD", compression_level=3)
"""Half of the bytes that appends leave (115 to 59 MB above), and a third faster to read."""

Told = Callable[[int, int], None]
"""Hears (done, of how many)."""


@dataclass(frozen=True, kw_only=True)
class DateFiles:
    """The files of one date."""

    day: date
    small: int
    """How many are below `TARGET`."""
    files: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Compacted:
    """What a compaction did."""

    dates: int = 0
    files: int = 0
    """That were joined."""
    left: int = 0
    """Dates that are due and were left for the next time: over the bound, or written while we tried."""


def compact(
    lake: Lake, stream: str, *, least: int = 2, most_bytes: int | None = None, told: Told = lambda done, of: None
) -> Compacted:
    """Join the files of each date that has `least` small ones or more, latest date first, at most `most_bytes` in all.

    One commit a date, so what is done stays done. Memory is a date's: 0.5 GB for 60 MB of files, 0.9 for 220, 1.6 for 450
    (delta-rs's writer; reading streams). Safe while others write, read, vacuum or compact. Raises LakeUnavailable.
    """
    with Unavailable(lake.storage, stream, "compacted"):
        due = [found for found in dates_of(lake, stream) if found.small >= least]
        chosen, budget = [], most_bytes
        for found in due:
            if budget is None or found.bytes <= budget:
                chosen.append(found)
                budget = None if budget is None else budget - found.bytes
        dates = files = 0
        for done, found in enumerate(chosen):
            told(done, len(chosen))
            if _rewritten(lake, stream, found.day):
                dates, files = dates + 1, files + found.files
        told(len(chosen), len(chosen))
    return Compacted(dates=dates, files=files, left=len(due) - dates)


def dates_of(lake: Lake, stream: str) -> list[DateFiles]:
    """The files of each date, latest first. Raises LakeUnavailable."""
    table = lake.table(stream)
    if table is None:
        return []
    files = pa.table(table.get_add_actions(flatten=True))
    sizes: dict[date, list[int]] = {}
    for day, size in zip(files["partition._date"].to_pylist(), files["size_bytes"].to_pylist(), strict=True):
        sizes.setdefault(day, []).append(size)
    return [
        DateFiles(day=day, small=sum(size < TARGET for size in of_it), files=len(of_it), bytes=sum(of_it))
        for day, of_it in sorted(sizes.items(), reverse=True)
    ]


def vacuum(
    lake: Lake, stream: str, *, older_than: timedelta = RETENTION, dry_run: bool = False, idle: bool = False
) -> list[str]:
    """Delete files that no version of the last `older_than` uses, those too that a killed writer never committed.

    Returns their names, or with `dry_run` of those that it would delete. `idle` is the caller's word that nobody reads or
    writes the lake: only then may `older_than` be under a day. Raises LakeRefused and LakeUnavailable.
    """
    if older_than < SHORTEST and not idle:
        raise LakeRefused(
            f"lake {stream}: files younger than a day may be in use by who reads or writes now; keep 1d or more, "
            "or stop everything that uses the lake and say so (`--idle`, idle=True)"
        )
    with Unavailable(lake.storage, stream, "vacuumed"):
        table = lake.table(stream)
        if table is None:
            return []
        there = _files_of(lake, stream)
        named = table.vacuum(
            retention_hours=math.ceil(older_than / timedelta(hours=1)),  # never less than was asked
            dry_run=dry_run,
            enforce_retention_duration=False,  # its own bound is a week; ours is the line above
            # Else it finds only what the log still names as removed, which a checkpoint forgets after that same week.
            full=True,
        )
    # The log goes on naming what an earlier vacuum deleted.
    return [name for name in named if name in there]


def _files_of(lake: Lake, stream: str) -> set[str]:
    """Names of all files under the table, whoever wrote them: one listing, as the vacuum makes one of its own."""
    folder = PyFileSystem(DeltaStorageHandler(lake.storage.table(stream), lake.storage.options))
    return {found.path for found in folder.get_file_info(FileSelector("", recursive=True))}


def _rewritten(lake: Lake, stream: str, day: date) -> bool:
    """Whether the date is one file now (or a few large ones); False when others were faster each time."""
    where = f"_date = '{day.isoformat()}'"
    for _ in range(ATTEMPTS):
        table = lake.table(stream)
        if table is None:
            return False
        rows = QueryBuilder().register("events", table).execute(f"select * from events where {where}")
        try:
            write_deltalake(
                table, rows, mode="overwrite", predicate=where, target_file_size=TARGET, writer_properties=_SMALLER
            )
        except CommitFailedError:
            continue
        return True
    return False
