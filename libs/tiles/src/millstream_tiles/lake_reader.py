"""Reads a stream's events back from the lake: the columns, dates and known-at that a question needs, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from millstream_tiles.errors import LakeUnavailable
from millstream_tiles.lake import Lake

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST, LATEST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The years 1 to 9999 in microseconds."""
ORDER = ["_known_at", "_partition", "_offset"]


def read_events(
    lake: Lake,
    stream: str,
    columns: Sequence[str],
    *,
    since: int | None = None,
    until: int | None = None,
    known_by: int | None = None,
) -> pl.DataFrame:
    """Events with `since` <= event time < `until`, known at `known_by` or before (microseconds; None: no bound).

    Everything that arrived is there, late and repeated events too: what may enter a window is decided by the join. Only
    the files of the dates asked for are opened. A column that no event has brought yet is null; so is everything, in no
    rows, when the stream has no event at all. Rows come by (known-at, partition, offset). Raises LakeUnavailable.
    """
    rows = scan_events(lake, stream, [*columns, *ORDER], since=since, until=until, known_by=known_by)
    return collect(lake, stream, rows).sort(ORDER).select(columns)


def scan_events(
    lake: Lake,
    stream: str,
    columns: Sequence[str],
    *,
    since: int | None = None,
    until: int | None = None,
    known_by: int | None = None,
) -> pl.LazyFrame:
    """What `read_events` reads, to be narrowed further before it is collected; rows in no order."""
    table = lake.table(stream)
    if table is None:
        return pl.LazyFrame(schema=_unknown(columns))
    rows = _scan(lake, table)
    if since is not None:
        rows = rows.filter(pl.col("_date") >= _at(since).date(), pl.col("_event_time") >= _at(since))
    if until is not None:
        rows = rows.filter(pl.col("_date") <= _at(until).date(), pl.col("_event_time") < _at(until))
    if known_by is not None:
        rows = rows.filter(pl.col("_known_at") <= _at(known_by))
    known = set(rows.collect_schema().names())
    return rows.select(pl.col(c) if c in known else pl.lit(None).alias(c) for c in dict.fromkeys(columns))


def daily_counts(lake: Lake, stream: str) -> dict[date, int]:
    """How many rows each event date has, from the table's log alone. Raises LakeUnavailable."""
    table = lake.table(stream)
    if table is None:
        return {}
    try:
        files = pl.DataFrame(table.get_add_actions(flatten=True)).select(date="partition._date", rows="num_records")
    except (OSError, DeltaError) as error:
        raise LakeUnavailable(f"lake {stream} cannot be read: {lake.storage.said(error)}") from error
    if files["rows"].null_count():  # written by somebody who keeps no statistics
        files = collect(lake, stream, _scan(lake, table).group_by(date="_date").agg(rows=pl.len()))
    return dict(files.group_by("date").agg(pl.col("rows").sum()).iter_rows())


def count(lake: Lake, stream: str) -> int:
    """How many rows the stream's table has. Raises LakeUnavailable."""
    table = lake.table(stream)
    return 0 if table is None else int(collect(lake, stream, _scan(lake, table).select(pl.len())).item())


def distinct_ids(lake: Lake, stream: str) -> int:
    """How many different event ids the stream's table has; rows without one are not counted. Raises LakeUnavailable."""
    table = lake.table(stream)
    if table is None:
        return 0
    return int(collect(lake, stream, _scan(lake, table).select(pl.col("_id").drop_nulls().n_unique())).item())


def _scan(lake: Lake, table: DeltaTable) -> pl.LazyFrame:
    # Without boto3's credentials, which are there only where boto3 is: writer and reader find theirs the same way.
    return pl.scan_delta(table, storage_options=lake.storage_options or None, credential_provider=None)


def collect(lake: Lake, stream: str, rows: pl.LazyFrame) -> pl.DataFrame:
    """The rows of a scan. Raises LakeUnavailable."""
    try:
        return rows.collect()
    except (OSError, pl.exceptions.ComputeError) as error:
        # Also a file that vacuum deleted under a reader that took longer than its retention.
        raise LakeUnavailable(f"lake {stream} cannot be read: {lake.storage.said(error)}") from error


def _at(micros: int) -> datetime:
    """The moment, held inside of what a datetime can say."""
    return EPOCH + timedelta(microseconds=min(max(micros, EARLIEST), LATEST))


def _unknown(columns: Sequence[str]) -> dict[str, pl.DataType]:
    """Types of the columns of a stream that has no table yet."""
    times = pl.Datetime("us", "UTC")
    return {c: times if c in ("_event_time", "_known_at") else pl.Null() for c in columns}
