"""History in Delta Lake, through the library's lake. Writing blocks, so it happens in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from millstream.project.stream import Stream
from millstream_features.errors import LakeUnavailable
from millstream_features.ports import Slice
from millstream_tiles import errors as tiles_errors
from millstream_tiles.lake import Lake


class DeltaHistory:
    """`ports.History` on one Delta table per stream."""

    def __init__(self, *, lake: Lake, streams: Mapping[str, Stream], group: str) -> None:
        self._lake = lake
        self._streams = streams
        self._group = group

    async def append(self, slices: Sequence[Slice]) -> None:
        try:
            await asyncio.to_thread(self._append, slices)
        except (tiles_errors.LakeUnavailable, OSError) as error:
            raise LakeUnavailable(f"the lake cannot be written: {error}") from error

    async def positions(self, stream: str, partitions: Sequence[int]) -> dict[int, int]:
        try:
            found = await asyncio.to_thread(
                lambda: {p: self._lake.position(stream, self._group, p) for p in partitions}
            )
        except (tiles_errors.LakeUnavailable, OSError) as error:
            raise LakeUnavailable(f"the lake cannot be read: {error}") from error
        return {partition: last for partition, last in found.items() if last is not None}
