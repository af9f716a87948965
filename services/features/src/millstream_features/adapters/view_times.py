"""How far each view has come: the fences of the online store, held against what lies in Kafka."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.runtime.waiting_records import WaitingRecords
from millstream_features.errors import StoreUnavailable
from millstream_features.ports import ViewTime
from millstream_tiles import errors as tiles_errors
from millstream_tiles.definition import View
from millstream_tiles.reader import WindowReader


class FencedViewTimes:
    """`ports.ViewTimes`."""

    def __init__(self, *, reader: WindowReader, waiting: WaitingRecords, views: Sequence[View], group: str) -> None:
        self._reader = reader
        self._waiting = waiting
        self._views = sorted(views, key=lambda view: view.name)
        self._group = group

    async def all(self) -> list[ViewTime]:
        try:
            fences = await self._reader.fences_async(self._group)
            filled = await self._reader.filled_async()
        except tiles_errors.StoreUnavailable as error:
            raise StoreUnavailable(str(error)) from error
        applied = {(stream, p): fence.offset for stream, held in fences.items() for p, fence in held.items()}
        waits: dict[str, list[int]] = {}
        for (stream, _), known_at in (await self._waiting.of(sorted(fences), applied)).items():
            if known_at is not None:
                waits.setdefault(stream, []).append(known_at)
        return [
            ViewTime(
                view=view.name,
                stream=view.stream,
                stream_time=max((fence.stream_time for fence in fences[view.stream].values()), default=0) or None,
                waits_since=min(waits.get(view.stream, ()), default=None),
                filled=filled[view.name],
            )
            for view in self._views
        ]

    async def close(self) -> None:
        await self._reader.aclose()
        await self._waiting.close()
