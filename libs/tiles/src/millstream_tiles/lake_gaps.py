"""Offsets that the lake should have and does not: what to look for in the topic when a number is missing something."""

from __future__ import annotations

import numpy as np
import polars as pl

from millstream_tiles.errors import LakeUnavailable
from millstream_tiles.lake import Lake
from millstream_tiles.lake_reader import read_events

MARGIN = 200
"""Offsets looked at on either side of those that are there: the one that is missing may be the first or the last."""
WIDEST = 2_000_000
"""Offsets of one partition between the first and the last of a span. More is a span with a backfill in it: 16 MB each way."""


def missing_offsets(lake: Lake, stream: str, *, since: int, until: int) -> dict[int, list[int]]:
    """Partition -> offsets that lie between those of events with `since` <= event time < `until` (and a few around them), and
    that no row of the lake has. Dead letters are among them: the lake does not have those either.

    A partition whose span is wider than `WIDEST` is left out. Blocks. Raises LakeUnavailable.
    """
    rows = read_events(lake, stream, ["_partition", "_offset"], since=since, until=until)
    table = lake.table(stream)
    missing: dict[int, list[int]] = {}
    if table is None:
        return missing
    scan = pl.scan_delta(table, storage_options=lake.storage_options or None)
    for (partition,), found in rows.group_by("_partition"):
        offsets = found["_offset"].to_numpy()
        first, last = max(0, int(offsets.min()) - MARGIN), int(offsets.max()) + MARGIN
        if last - first > WIDEST:
            continue
        mine = (pl.col("_partition") == partition) & pl.col("_offset").is_between(first, last)
        try:
            there = scan.filter(mine).select("_offset").collect()["_offset"].to_numpy()
        except (OSError, pl.exceptions.ComputeError) as error:
            raise LakeUnavailable(f"lake {stream} cannot be read: {error}") from error
        gone = np.setdiff1d(np.arange(first, last + 1), there)
        if len(gone):
            missing[int(str(partition))] = gone.tolist()
    return missing
