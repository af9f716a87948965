"""A batch of events into the online windows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from millstream.codecs.codec import Codec
from millstream.contracts.topics import late_topic
from millstream.errors import RetryLater
from millstream.project.stream import Stream
from millstream.runtime.confirming import Confirming
from millstream.runtime.delivery import Batch, Rejected, Rewind
from millstream.runtime.publisher import Outgoing, Publisher
from millstream.runtime.user_events import UserEvent
from millstream_features.errors import StoreUnavailable
from millstream_features.handlers.events import read_events, slice_of
from millstream_features.metrics import FeatureMetrics
from millstream_features.ports import Slice, Tiles
from millstream_tiles.event_names import EventNames
from millstream_tiles.writer import LARGEST_BATCH

log = logging.getLogger(__name__)

PART = LARGEST_BATCH
"""Events of one atomic step of the store. Fewer cost more for each event, as those of one tile are merged before they are
sent (5,000 a sixth more); more keep readers waiting: these take 45 ms of its one thread with two slides in four views."""
PIECE = 500
"""Events that are read without a pause, 2 ms: in each the store is sent what it waits for, and Kafka sends what comes next."""


def parts_of(batch: Batch, size: int) -> Iterator[Batch]:
    """The same records in batches of at most `size`, in order, that cover the same offsets."""
    start = batch.start
    for first in range(0, len(batch.records), size):
        records = batch.records[first : first + size]
        end = batch.end if first + size >= len(batch.records) else records[-1].offset
        yield Batch(batch.topic, batch.partition, start, end, records)
        start = end + 1


class ApplyToTiles:
    """Keeps the online windows: each part of a batch is one atomic step of the store, in the order of the offsets."""

    def __init__(
        self,
        *,
        streams: Mapping[str, Stream],
        names: Mapping[str, EventNames],
        views: Mapping[str, Sequence[str]],
        tiles: Tiles,
        publisher: Publisher,
        metrics: FeatureMetrics,
        codecs: Mapping[str, Codec],
    ) -> None:
        """`views`: stream → names of the views that read it."""
        self._streams = streams
        self._codecs = codecs
        self._names = names
        self._views = views
        self.tiles = tiles
        self._publisher = publisher
        self._metrics = metrics
        self._under_way: dict[tuple[str, int], tuple[asyncio.Task[None], int, int]] = {}
        """Of each partition the last step that was asked of the store, where it began, and where the next one does."""

    async def assigned(self, partitions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """New partitions start behind what the windows have, whatever Kafka was told: state and position are lost together."""
        starts = dict.fromkeys(partitions, 0)
        for stream in {topic for topic, _ in partitions}:
            mine = [partition for topic, partition in partitions if topic == stream]
            for partition, offset in (await self.tiles.applied(stream, mine)).items():
                starts[stream, partition] = offset + 1
        return starts

    async def __call__(self, batch: Batch) -> Confirming:
        """Read the batch, and have the store take it. What is returned is done when the store has the last of it."""
        stream = self._streams[batch.topic]
        codec = self._codecs[batch.topic]
        rejected: list[Rejected] = []
        # The store's steps are a third of the work: it has one in hand while we read a part and make the tiles of another.
        before: asyncio.Task[None] | None = None
        last = self._ahead_of(batch)
        try:
            for part in parts_of(batch, PART):
                events: list[UserEvent] = []
                for piece in parts_of(part, PIECE):
                    good, bad = read_events(stream, self._names[stream.name], piece, codec)
                    events += good
                    rejected += bad
                    await asyncio.sleep(0)
                if before is not None:
                    await before
                before, last = last, asyncio.create_task(self._apply(stream, slice_of(part, events), last))
            if before is not None:
                await before
        except BaseException:
            if last is not None:  # so that a repetition never runs beside its first try
                await asyncio.gather(last, return_exceptions=True)
            raise
        assert last is not None, "a batch has a record"
        self._under_way[batch.topic, batch.partition] = (last, part.start, part.end + 1)
        return Confirming(sent=last, rejected=rejected)

    def _ahead_of(self, batch: Batch) -> asyncio.Task[None] | None:
        """The step that the batch comes right behind. If it fails, this one must not try without it: the store would miss
        what lies between, and what it misses twice is taken for gone from Kafka."""
        step, start, following = self._under_way.pop((batch.topic, batch.partition), (None, -1, -1))
        if step is None or following != batch.start:
            return None

        async def or_back() -> None:
            try:
                await step
            except RetryLater as error:
                raise Rewind(start) from error

        return asyncio.create_task(or_back())

    async def _apply(self, stream: Stream, part: Slice, after: asyncio.Task[None] | None) -> None:
        applied = await self.tiles.apply(part, after)
        if applied.behind_at is not None:
            raise Rewind(applied.behind_at)
        await self._report_late(stream, part.events)
        if applied.repeated:
            self._metrics.repeated.labels(stream.name).inc()
        elif part.events:
            self._metrics.applied.labels(stream.name).inc(len(part.events))
            newest = max(e.known_at for e in part.events) / 1e6
            oldest = min(e.record.timestamp for e in part.events) / 1e3
            self._metrics.stream_time.labels(stream.name).set(newest)
            for view in self._views.get(stream.name, ()):
                self._metrics.applied_now(view, stream_time=newest, slowest=oldest)

    async def _report_late(self, stream: Stream, events: Sequence[UserEvent]) -> None:
        """Late events go to their own topic as they came. At least once: a repeated batch reports them again, same ids."""
        late = [e.record for e in events if e.known_at - e.time > stream.lateness]
        if late:
            topic = late_topic(stream.name)
            await self._publisher.publish([Outgoing(topic, r.key, r.value or b"", list(r.headers)) for r in late])
            self._metrics.late.labels(stream.name).inc(len(late))


class Heard(Protocol):
    """What of a subscription `LookBack` uses. `millstream.runtime.delivery.Subscription` fits."""

    def handled(self) -> dict[tuple[str, int], int]:
        """Up to where (not included) each partition was handled."""

    def rewind(self, starts: Mapping[tuple[str, int], int]) -> None:
        """Read these partitions again from there."""


class LookBack:
    """Has the losses of the store made good while nothing comes: the next batch would tell, but may be long in coming.

    A server that was emptied or a replica that was promoted without its last seconds has lost windows and fences together.
    """

    def __init__(self, tiles: Tiles, heard: Sequence[Heard], *, every: float = 5.0) -> None:
        """`every`: seconds between two looks, each of one small read a partition."""
        self._tiles = tiles
        self._heard = heard
        self._every = every

    async def keep_looking(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._every)
            try:
                await self.look()
            except StoreUnavailable as error:
                log.info("cannot look back now: %s", error)

    async def look(self) -> None:
        """Rewind what the store has less of than was handled. Raises StoreUnavailable."""
        for heard in self._heard:
            # Before the fences: what is handled while we ask them is in them or not, and no loss.
            handled = heard.handled()
            lost = {}
            for stream in {topic for topic, _ in handled}:
                applied = await self._tiles.applied(stream, [p for topic, p in handled if topic == stream])
                for (topic, partition), following in handled.items():
                    if topic == stream and (start := applied.get(partition, -1) + 1) < following:
                        lost[topic, partition] = start
            heard.rewind(lost)
