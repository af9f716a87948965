"""Features of predictions computed again from the lake, once it has what the streams had. The work happens in a thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from millstream.contracts.events import PredictionServed, SkewedValue
from millstream.contracts.times import from_datetime
from millstream.runtime.topic_bounds import TopicBounds
from millstream_features.domain.skew import CheckedRead, Differing
from millstream_features.errors import LakeBehind, LakeUnavailable
from millstream_tiles import errors as tiles_errors
from millstream_tiles.lake import Lake

if TYPE_CHECKING:
    from millstream_tiles.service_views import ServiceView
    from millstream_tiles.skew import Checked

LOOK = 0.5
"""Seconds between two looks at what the lake has. It appends every few seconds, and nobody waits for us."""


class LakeRecompute:
    """`ports.Recompute` on the lake that this service writes."""

    def __init__(
        self,
        *,
        lake: Lake,
        group: str,
        views: Mapping[str, Sequence[ServiceView]],
        tolerances: Mapping[str, float],
        bounds: TopicBounds,
        patience: float,
    ) -> None:
        """`views` and `tolerances` by loop; `group` is that of the lake's writer."""
        self._lake = lake
        self._group = group
        self._views = views
        self._tolerances = tolerances
        self._bounds = bounds
        self._patience = patience

    async def check(self, loop: str, served: Sequence[PredictionServed]) -> list[CheckedRead]:
        from millstream_tiles.skew import Logged, check_reads

        # What a question could know was in its stream when it was answered, so the ends of now cover it.
        await self._wait(sorted({one.view.stream for one in self._views[loop]}))
        reads = [
            Logged(
                id=one.id,
                question=one.question,
                asked_at=from_datetime(one.asked_at),
                entities=one.entities,
                features=one.features,
            )
            for one in served
        ]
        tolerance = self._tolerances[loop]
        try:
            found = await asyncio.to_thread(check_reads, self._lake, self._views[loop], reads, tolerance=tolerance)
        except tiles_errors.LakeUnavailable as error:
            raise LakeUnavailable(str(error)) from error
        return [_read(checked, one) for checked, one in zip(found, served, strict=True)]

    async def close(self) -> None:
        await self._bounds.close()

    async def _wait(self, streams: Sequence[str]) -> None:
        ends = {place: after - 1 for place, (_, after) in (await self._bounds.of(streams)).items() if after > 0}
        deadline = time.monotonic() + self._patience
        while True:
            behind = await asyncio.to_thread(self._behind, ends)
            if not behind:
                return
            if time.monotonic() >= deadline:
                raise LakeBehind(f"after {self._patience:g} s the lake is behind in {', '.join(behind)}")
            await asyncio.sleep(LOOK)

    def _behind(self, ends: Mapping[tuple[str, int], int]) -> list[str]:
        """The streams of which the lake lacks something."""
        behind = []
        try:
            for stream in sorted({stream for stream, _ in ends}):
                wanted = {p: end for (name, p), end in ends.items() if name == stream}
                found = self._lake.positions(stream, self._group, list(wanted))
                if any(found.get(p, -1) < end for p, end in wanted.items()):
                    behind.append(stream)
        except tiles_errors.LakeUnavailable as error:
            raise LakeUnavailable(str(error)) from error
        return behind


def _read(checked: Checked, served: PredictionServed) -> CheckedRead:
    return CheckedRead(
        prediction=served.id,
        asked_at=checked.logged.asked_at,
        values=checked.values,
        differing=tuple(
            Differing(
                view=one.view.prefix,
                value=SkewedValue(
                    prediction=served.id,
                    question=served.question,
                    asked_at=served.asked_at,
                    feature=one.feature,
                    online=one.online,
                    offline=one.offline,
                ),
            )
            for one in checked.differences
        ),
    )
