"""History in Delta Lake, through the library's lake. Writing blocks, so it happens in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import pyarrow as pa

from millstream.project.stream import Stream
from millstream.runtime.user_events import ids_of
from millstream_features.errors import LakeRefuses, LakeUnavailable
from millstream_features.ports import Slice, Tidied
from millstream_tiles import errors as tiles_errors
from millstream_tiles.lake import Lake, LakeBatch
from millstream_tiles.lake_schema import events_table, table_schema
from millstream_tiles.lake_upkeep import RETENTION, compact, dates_of, vacuum

LEAST = 16
"""Small files of a date that are worth a rewrite: fewer cost a reader some milliseconds."""

R = TypeVar("R")


class DeltaHistory:
    """`ports.History` on one Delta table per stream."""

    def __init__(
        self,
        *,
        lake: Lake,
        streams: Mapping[str, Stream],
        group: str,
        tidy_bytes: int = 128 * 1024 * 1024,
        keep: timedelta | None = RETENTION,
    ) -> None:
        """`tidy_bytes` of a table are rewritten at a time; unused files stay for `keep`, None: for ever."""
        self._lake = lake
        self._streams = streams
        self._schemas = {name: table_schema(stream.event_schema) for name, stream in streams.items()}
        self._group = group
        self._tidy_bytes = tidy_bytes
        self._keep = keep

    async def append(self, slices: Sequence[Slice]) -> None:
        await _beside(self._append, slices)

    async def positions(self, stream: str, partitions: Sequence[int]) -> dict[int, int]:
        return await _beside(self._lake.positions, stream, self._group, list(partitions))

    async def refusal(self, stream: str) -> str | None:
        return await _beside(self._lake.refusal, stream, self._schemas[stream])

    async def tidy(self, stream: str) -> Tidied:
        return await _beside(self._tidy, stream)

    def _append(self, slices: Sequence[Slice]) -> None:
        stream = slices[0].stream
        batches = [LakeBatch(partition=s.partition, end=s.end, rows=self._rows(s)) for s in slices]
        self._lake.append(stream, batches, group=self._group)

    def _tidy(self, stream: str) -> Tidied:
        compacted = compact(self._lake, stream, least=LEAST, most_bytes=self._tidy_bytes)
        deleted = [] if self._keep is None else vacuum(self._lake, stream, older_than=self._keep)
        files = sum(found.files for found in dates_of(self._lake, stream))
        return Tidied(joined=compacted.files, deleted=len(deleted), files=files)

    def _rows(self, part: Slice) -> pa.Table:
        found = part.events
        return events_table(
            self._schemas[part.stream],
            partition=part.partition,
            offsets=[e.record.offset for e in found],
            event_times=[e.time for e in found],
            known_at=[e.known_at for e in found],
            ids=ids_of(self._streams[part.stream], found),
            events=[e.event for e in found],
        )


async def _beside(work: Callable[..., R], *args: Any) -> R:
    """`work` in a thread, its errors as those of our ports."""
    try:
        return await asyncio.to_thread(work, *args)
    except tiles_errors.LakeUnavailable as error:
        raise LakeUnavailable(str(error)) from error
    except tiles_errors.LakeSchemaRefused as error:
        raise LakeRefuses(str(error)) from error
