"""The same batch, on its own position, into the lake; and the lake kept tidy."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence

from millstream.codecs.codec import Codec
from millstream.project.stream import Stream
from millstream.runtime.delivery import Batch, Hold, Rejected
from millstream_features.errors import LakeRefuses, LakeUnavailable
from millstream_features.handlers.events import read_events, slice_of
from millstream_features.metrics import FeatureMetrics
from millstream_features.ports import History, Slice
from millstream_tiles.event_names import EventNames

log = logging.getLogger(__name__)


def joined(slices: Sequence[Slice]) -> list[Slice]:
    """One slice a partition: thousands of small batches would be thousands of small tables."""
    by_partition: dict[int, list[Slice]] = {}
    for part in slices:
        by_partition.setdefault(part.partition, []).append(part)
    return [
        Slice(
            stream=parts[0].stream,
            partition=partition,
            start=parts[0].start,
            end=parts[-1].end,
            events=[event for part in parts for event in part.events],
        )
        for partition, parts in by_partition.items()
    ]


class KeepInLake:
    """Keeps history: gathers batches and appends them by size, age, or when the input goes quiet.

    The lake's own commit carries the offsets and a fresh assignment starts from there, so Kafka may be told "done" as
    soon as a batch is in hand: a crash re-reads what the lake does not have.

    A stream whose events do not fit its table is held back, alone: it is read no further, Kafka keeps what comes, and
    once its schema is mended a restart goes on where the lake stands.
    """

    def __init__(
        self,
        *,
        streams: Mapping[str, Stream],
        names: Mapping[str, EventNames],
        history: History,
        metrics: FeatureMetrics,
        codecs: Mapping[str, Codec],
        rows: int,
        age: float,
        quiet: float,
        buffer_rows: int,
        clock: Callable[[], float],
    ) -> None:
        self._streams = streams
        self._codecs = codecs
        self._names = names
        self._history = history
        self._metrics = metrics
        self._rows = rows
        self._age = age
        self._quiet = quiet
        self._buffer_rows = buffer_rows
        self._clock = clock
        self._waiting: dict[str, list[Slice]] = {}
        self._count = 0
        self._oldest = 0.0
        self._newest = 0.0
        self._flushing = asyncio.Lock()
        self._held: dict[str, str] = {}
        """Streams that do not fit their table, and why."""
        self._leads: list[str] = []

    def leads(self) -> Sequence[str]:
        """Streams whose first partition is ours: what is done once for a whole table is ours to do."""
        return self._leads

    async def assigned(self, partitions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """New partitions: forget what is in hand and start behind what the lake has."""
        async with self._flushing:
            self._forget()
            self._leads = sorted(topic for topic, partition in partitions if partition == 0)
            starts: dict[tuple[str, int], int] = {}
            for stream in sorted({topic for topic, _ in partitions}):
                mine = [p for topic, p in partitions if topic == stream]
                self._hold(stream, await self._history.refusal(stream))
                for partition, last in (await self._history.positions(stream, mine)).items():
                    starts[stream, partition] = last + 1
            # Where the lake has nothing, begin at the beginning, whatever Kafka was told.
            return {key: starts.get(key, 0) for key in partitions}

    async def __call__(self, batch: Batch) -> Sequence[Rejected]:
        if self._count >= self._buffer_rows:
            await self.flush()
        if batch.topic in self._held:
            raise Hold(self._held[batch.topic])
        stream, names = self._streams[batch.topic], self._names[batch.topic]
        events, rejected = read_events(stream, names, batch, self._codecs[batch.topic])
        if not self._count:
            self._oldest = self._clock()
        self._newest = self._clock()
        self._waiting.setdefault(batch.topic, []).append(slice_of(batch, events))
        self._count += batch.end - batch.start + 1
        self._metrics.lake_waiting.set(self._count)
        return rejected

    def due(self) -> bool:
        """Whether what is in hand should be appended now."""
        if not self._count:
            return False
        now = self._clock()
        return self._count >= self._rows or now - self._oldest >= self._age or now - self._newest >= self._quiet

    async def flush(self) -> None:
        """Append everything in hand. Raises LakeUnavailable for what is still in hand then; the other streams are kept."""
        async with self._flushing:
            failed: LakeUnavailable | None = None
            for stream in sorted(self._waiting):
                slices = list(self._waiting[stream])
                try:
                    with self._metrics.lake_seconds.labels(stream).time():
                        await self._history.append(joined(slices))
                except LakeUnavailable as error:
                    failed = error
                    continue
                except LakeRefuses as why:
                    self._hold(stream, str(why))
                    slices = self._waiting[stream]  # Kafka has them, and the lake's position is before them
                else:
                    self._metrics.lake_rows.labels(stream).inc(sum(len(s.events) for s in slices))
                # What came while we appended stays in hand.
                self._waiting[stream] = self._waiting[stream][len(slices) :]
                self._count -= sum(s.end - s.start + 1 for s in slices)
            self._waiting = {stream: rest for stream, rest in self._waiting.items() if rest}
            self._metrics.lake_waiting.set(self._count)
            if failed is not None:
                raise failed

    async def keep_flushing(self) -> None:
        """Look every 50 ms whether an append is due; runs until cancelled."""
        while True:
            await asyncio.sleep(0.05)
            if self.due():
                try:
                    await self.flush()
                except LakeUnavailable as error:
                    log.warning("%s; %d rows wait", error, self._count)
                    await asyncio.sleep(1.0)

    def _forget(self) -> None:
        self._waiting, self._count = {}, 0

    def _hold(self, stream: str, why: str | None) -> None:
        self._held.pop(stream, None)
        if why is not None:
            self._held[stream] = why
            log.error("not kept until its schema is mended and features restarted: %s", why, extra={"topic": stream})
        self._metrics.lake_held.labels(stream).set(0 if why is None else 1)


class TidyLake:
    """Keeps tables quick to read and free of what nobody needs, a bounded piece at a time, while appends go on."""

    def __init__(
        self, *, history: History, metrics: FeatureMetrics, streams: Callable[[], Sequence[str]], every: float
    ) -> None:
        """`streams` says which tables are this process' to tidy, at each time."""
        self._history = history
        self._metrics = metrics
        self._streams = streams
        self._every = every

    async def keep_tidying(self) -> None:
        """Runs until cancelled."""
        # The first time is any: many that start together are not to list a bucket together.
        await asyncio.sleep(self._every * random.uniform(0.1, 1.0))
        while True:
            await self.tidy()
            await asyncio.sleep(self._every)

    async def tidy(self) -> None:
        """Each table once. A lake that is away is met again at the next time."""
        for stream in self._streams():
            try:
                done = await self._history.tidy(stream)
            except LakeUnavailable as error:
                log.warning("not tidied: %s", error)
                self._metrics.lake_untidied.labels(stream).inc()
                continue
            self._metrics.lake_files.labels(stream).set(done.files)
            self._metrics.lake_joined.labels(stream).inc(done.joined)
            self._metrics.lake_deleted.labels(stream).inc(done.deleted)
