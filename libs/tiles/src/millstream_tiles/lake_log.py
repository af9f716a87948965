"""Reads a stream back from the lake as it was heard: by partition, in the order of the offsets, column by column.

Memory is bounded by `AT_ONCE` offsets. Events of different partitions come in the order in which they became
known, as a worker hears them, so that copies of one event meet while its id is remembered.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake.exceptions import DeltaError

from millstream_tiles.columns import columns_read
from millstream_tiles.definition import View
from millstream_tiles.errors import LakeUnavailable
from millstream_tiles.events import EventBatch, Ints
from millstream_tiles.lake import Lake

AT_ONCE = 400_000
"""Offsets read at once, of all partitions together: some tens of megabytes, and the files that a few appends made."""
BATCH = 50_000
"""Events of one batch. Large, since those of one tile are merged before they are sent; the writer splits what takes long."""


class LakeLog:
    """One stream of the lake as of now, for `views`. Every call blocks and may raise LakeUnavailable."""

    def __init__(self, lake: Lake, stream: str, views: Collection[View], *, since: int | None = None) -> None:
        """Events with an event time before `since` (microseconds) are left out; their offsets are stepped over."""
        self._stream = stream
        self._ids = any(view.event_id for view in views)
        self._since = None if since is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=since)
        table = lake.table(stream)
        self._files = pa.table({}) if table is None else pa.table(table.get_add_actions(flatten=True))
        self._dataset = None if table is None else table.to_pyarrow_dataset()
        known = set() if self._dataset is None else set(self._dataset.schema.names)
        self._columns = [column for column in columns_read(views) if column in known]

    def first(self, partition: int) -> int:
        """An offset before which no event of `partition` is asked for; 0 where that cannot be told."""
        if self._since is None or not {"max._event_time", "min._offset"} <= set(self._files.column_names):
            return 0
        files = self._files.filter(
            pc.greater_equal(self._files["max._event_time"], pa.scalar(self._since, pa.timestamp("us", "UTC")))
        )
        files = files.filter(pc.less_equal(files["min._partition"], partition))
        files = files.filter(pc.greater_equal(files["max._partition"], partition))
        lowest = pc.min(files["min._offset"]).as_py()
        return 0 if lowest is None else int(lowest)

    def batches(self, starts: Mapping[int, int], ends: Mapping[int, int]) -> Iterator[EventBatch]:
        """Every partition of `starts` from its start to its end (offsets, both included), no offset left out."""
        chunk = max(BATCH, AT_ONCE // max(1, len(starts)))
        partitions = [
            self._partition(p, start, ends[p], chunk) for p, start in sorted(starts.items()) if start <= ends.get(p, -1)
        ]
        return heapq.merge(*partitions, key=lambda batch: int(batch.known_at[0]) if len(batch) else 0)

    def _partition(self, partition: int, start: int, end: int, chunk: int) -> Iterator[EventBatch]:
        for first in range(start, end + 1, chunk):
            last = min(first + chunk - 1, end)
            rows = self._read(partition, first, last)
            begin = first
            for at in range(0, max(1, len(rows)), BATCH):
                upto = last if at + BATCH >= len(rows) else rows["_offset"][at + BATCH].as_py() - 1
                yield self._batch(partition, begin, upto, rows.slice(at, BATCH))
                begin = upto + 1

    def _batch(self, partition: int, start: int, end: int, rows: pa.Table) -> EventBatch:
        return EventBatch(
            stream=self._stream,
            partition=partition,
            start=start,
            end=end,
            offsets=rows["_offset"].to_numpy(),
            event_time=_micros(rows["_event_time"]),
            known_at=_micros(rows["_known_at"]),
            ids=rows["_id"].to_pylist() if self._ids else None,
            columns={name: rows[name].to_pylist() for name in self._columns},
        )

    def _read(self, partition: int, first: int, last: int) -> pa.Table:
        wanted = (ds.field("_partition") == partition) & (ds.field("_offset") >= first) & (ds.field("_offset") <= last)
        if self._since is not None:
            wanted &= ds.field("_event_time") >= pa.scalar(self._since, pa.timestamp("us", "UTC"))
        columns = ["_offset", "_event_time", "_known_at", *(["_id"] if self._ids else []), *self._columns]
        assert self._dataset is not None  # without a table nothing has an end to be read to
        try:
            # Delta's minima and maxima say which files have such offsets; the others are not opened.
            return self._dataset.to_table(columns=columns, filter=wanted).sort_by("_offset")
        except (OSError, pa.ArrowException, DeltaError) as error:
            raise LakeUnavailable(f"lake {self._stream} cannot be read: {error}") from error


def _micros(column: Any) -> Ints:
    return np.asarray(column.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy(), dtype=np.int64)
