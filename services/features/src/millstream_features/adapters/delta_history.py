"""History in Delta Lake, through the library's lake. Writing blocks, so it happens in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pyarrow as pa

from millstream.project.stream import Stream
from millstream_features.errors import LakeUnavailable
from millstream_features.ports import Slice
from millstream_tiles import errors as tiles_errors
from millstream_tiles.lake import Lake, LakeBatch
from millstream_tiles.lake_schema import events_table, table_schema


class DeltaHistory:
    """`ports.History` on one Delta table per stream."""

    def __init__(self, *, lake: Lake, streams: Mapping[str, Stream], group: str) -> None:
        self._lake = lake
        self._ids = {name: stream.id for name, stream in streams.items()}
        self._schemas = {name: table_schema(stream.event_schema) for name, stream in streams.items()}
        self._group = group

    async def append(self, slices: Sequence[Slice]) -> None:
        try:
            await asyncio.to_thread(self._append, slices)
        except tiles_errors.LakeUnavailable as error:
            raise LakeUnavailable(str(error)) from error

    async def positions(self, stream: str, partitions: Sequence[int]) -> dict[int, int]:
        try:
            return await asyncio.to_thread(self._lake.positions, stream, self._group, list(partitions))
        except tiles_errors.LakeUnavailable as error:
            raise LakeUnavailable(str(error)) from error

    def _append(self, slices: Sequence[Slice]) -> None:
        stream = slices[0].stream
        batches = [LakeBatch(partition=s.partition, end=s.end, rows=self._rows(s)) for s in slices]
        self._lake.append(stream, batches, group=self._group)

    def _rows(self, part: Slice) -> pa.Table:
        found = part.events
        id_field = self._ids[part.stream]
        return events_table(
            self._schemas[part.stream],
            partition=part.partition,
            offsets=[e.record.offset for e in found],
            event_times=[e.time for e in found],
            known_at=[e.known_at for e in found],
            ids=[None if id_field is None else e.event.get(id_field) for e in found],
            events=[e.event for e in found],
        )
