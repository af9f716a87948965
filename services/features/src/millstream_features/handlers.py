"""What features does: a batch of events into tiles, and the same batch, on its own position, into the lake.

And it measures that the two agree: some of the predictions that were served are computed again from the lake.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil, inf

import msgspec

from millstream.contracts.events import PredictionServed
from millstream.contracts.topics import SKEW, late_topic
from millstream.errors import RetryLater
from millstream.project.stream import Stream
from millstream.runtime.delivery import Batch, Rejected, Rewind
from millstream.runtime.publisher import Outgoing, Publisher
from millstream.runtime.user_events import UserEvent, read_batch
from millstream_features.domain.skew import CheckedRead, SkewWindow
from millstream_features.errors import LakeBehind, LakeUnavailable
from millstream_features.metrics import FeatureMetrics
from millstream_features.ports import History, Recompute, Slice, Speaker, Tiles
from millstream_tiles.reservoir import Reservoir

log = logging.getLogger(__name__)

PART = 5_000
"""Events of one atomic step of the store. Fewer cost more for each event, as those of one tile are merged before they are
sent; more keep readers waiting: 5,000 with two slides in four views take 25 ms of the store's one thread."""


def slice_of(batch: Batch, events: Sequence[UserEvent]) -> Slice:
    return Slice(stream=batch.topic, partition=batch.partition, start=batch.start, end=batch.end, events=events)


def parts_of(batch: Batch, size: int) -> Iterator[Batch]:
    """The same records in batches of at most `size`, in order, that cover the same offsets."""
    start = batch.start
    for first in range(0, len(batch.records), size):
        records = batch.records[first : first + size]
        end = batch.end if first + size >= len(batch.records) else records[-1].offset
        yield Batch(batch.topic, batch.partition, start, end, records)
        start = end + 1


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


class ApplyToTiles:
    """Keeps the online windows: each part of a batch is one atomic step of the store, in the order of the offsets."""

    def __init__(
        self, *, streams: Mapping[str, Stream], tiles: Tiles, publisher: Publisher, metrics: FeatureMetrics
    ) -> None:
        self._streams = streams
        self._tiles = tiles
        self._publisher = publisher
        self._metrics = metrics

    async def __call__(self, batch: Batch) -> Sequence[Rejected]:
        stream = self._streams[batch.topic]
        rejected: list[Rejected] = []
        applying: asyncio.Task[None] | None = None
        try:
            for part in parts_of(batch, PART):
                # Decoding is half of the work, the store's step a third: the store works on the part before meanwhile.
                events, bad = read_batch(stream, part)
                rejected += bad
                if applying is not None:
                    await applying
                applying = asyncio.create_task(self._apply(stream, slice_of(part, events)))
                await asyncio.sleep(0)  # it starts now
        finally:
            if applying is not None:
                await applying
        return rejected

    async def _apply(self, stream: Stream, part: Slice) -> None:
        applied = await self._tiles.apply(part)
        if applied.behind_at is not None:
            raise Rewind(applied.behind_at)
        await self._report_late(stream, part.events)
        if applied.repeated:
            self._metrics.repeated.labels(stream.name).inc()
        elif part.events:
            self._metrics.applied.labels(stream.name).inc(len(part.events))
            self._metrics.stream_time.labels(stream.name).set(max(e.known_at for e in part.events) / 1e6)

    async def _report_late(self, stream: Stream, events: Sequence[UserEvent]) -> None:
        """Late events go to their own topic as they came. At least once: a repeated batch reports them again, same ids."""
        late = [e.record for e in events if e.known_at - e.time > stream.lateness]
        if late:
            topic = late_topic(stream.name)
            await self._publisher.publish([Outgoing(topic, r.key, r.value or b"", list(r.headers)) for r in late])
            self._metrics.late.labels(stream.name).inc(len(late))


class KeepInLake:
    """Keeps history: gathers batches and appends them by size, age, or when the input goes quiet.

    The lake's own commit carries the offsets and a fresh assignment starts from there, so Kafka may be told "done" as
    soon as a batch is in hand: a crash re-reads what the lake does not have.
    """

    def __init__(
        self,
        *,
        streams: Mapping[str, Stream],
        history: History,
        metrics: FeatureMetrics,
        rows: int,
        age: float,
        quiet: float,
        buffer_rows: int,
        clock: Callable[[], float],
    ) -> None:
        self._streams = streams
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

    async def assigned(self, partitions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """New partitions: forget what is in hand and start behind what the lake has."""
        async with self._flushing:
            self._forget()
            starts: dict[tuple[str, int], int] = {}
            for stream in sorted({topic for topic, _ in partitions}):
                mine = [p for topic, p in partitions if topic == stream]
                for partition, last in (await self._history.positions(stream, mine)).items():
                    starts[stream, partition] = last + 1
            # Where the lake has nothing, begin at the beginning, whatever Kafka was told.
            return {key: starts.get(key, 0) for key in partitions}

    async def __call__(self, batch: Batch) -> Sequence[Rejected]:
        if self._count >= self._buffer_rows:
            await self.flush()
        events, rejected = read_batch(self._streams[batch.topic], batch)
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
        """Append everything in hand. Raises LakeUnavailable: it is still in hand then."""
        async with self._flushing:
            for stream in sorted(self._waiting):
                slices = list(self._waiting[stream])
                with self._metrics.lake_seconds.labels(stream).time():
                    await self._history.append(joined(slices))
                self._metrics.lake_rows.labels(stream).inc(sum(len(s.events) for s in slices))
                # What came while we appended stays in hand.
                self._waiting[stream] = self._waiting[stream][len(slices) :]
                self._count -= sum(s.end - s.start + 1 for s in slices)
            self._waiting = {stream: rest for stream, rest in self._waiting.items() if rest}
            self._metrics.lake_waiting.set(self._count)

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


class _Asked(msgspec.Struct):
    """Enough of a prediction to know whether it is in the sample."""

    id: str
    loop: str


class CheckSkew:
    """Keeps a fair sample of what is predicted, and has its features computed again from the lake, some at a time.

    For people: nothing waits for it, and whatever goes wrong in it is logged and counted, no more. A rebalance or a crash
    loses some seconds of the sample.
    """

    def __init__(
        self,
        *,
        samples: Mapping[str, int],
        bounds: Mapping[str, float],
        every: float,
        recompute: Recompute,
        speaker: Speaker,
        metrics: FeatureMetrics,
    ) -> None:
        """`samples`: predictions a minute of each loop. `bounds`: the share of them that may differ. `every`: seconds
        between two checks."""
        self._every = every
        self._samples = {loop: Reservoir[bytes](ceil(n * every / 60)) for loop, n in samples.items()}
        self._windows = {loop: SkewWindow(loop, bounds[loop]) for loop in samples}
        self._recompute = recompute
        self._speaker = speaker
        self._metrics = metrics
        self._unsaid: list[Outgoing] = []

    async def __call__(self, batch: Batch) -> Sequence[Rejected]:
        """Take a batch of `millstream-predictions` in. What cannot be read is drift's to reject, not ours as well."""
        for record in batch.records:
            if not any(n == "ce_type" and v == _SERVED for n, v in record.headers):
                continue
            try:
                asked = _decode_asked(record.value or b"")
            except (ValueError, RecursionError):
                continue
            sample = self._samples.get(asked.loop)
            if sample is not None:
                sample.offer(asked.id, record.value or b"")
        return []

    async def keep_checking(self) -> None:
        """Check what was sampled, again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._every)
            await self.check()

    async def check(self) -> None:
        """Compute the sample of each loop again, compare, measure, and say what follows."""
        for loop, sample in self._samples.items():
            drawn = sample.drain()
            if not drawn:
                continue
            why = "failed"
            try:
                served = [msgspec.json.decode(value, type=PredictionServed) for value in drawn]
                self._note(loop, await self._recompute.check(loop, served))
                continue
            except RetryLater as error:
                why = "lake_behind" if isinstance(error, LakeBehind) else "unavailable"
                log.warning("%d predictions go unchecked: %s", len(drawn), error, extra={"loop": loop})
            except Exception as error:
                log.error("%d predictions go unchecked", len(drawn), exc_info=error, extra={"loop": loop})
            self._metrics.skew_unchecked.labels(loop, why).inc(len(drawn))
        await self._say()

    def _note(self, loop: str, reads: Sequence[CheckedRead]) -> None:
        window = self._windows[loop]
        verdict = window.add(reads)
        self._metrics.skew_checked.labels(loop).inc(len(reads))
        self._metrics.skew_differing.labels(loop).inc(sum(bool(read.differing) for read in reads))
        self._metrics.skew_share.labels(loop).set(window.share)
        for view in window.views():
            largest = inf if view.largest is None else view.largest
            self._metrics.skew_largest.labels(loop, view.view).set(largest)
        if verdict is not None:
            log.warning("skew %s: %s", verdict.finding.value, verdict.reason, extra={"loop": loop})
            self._metrics.skew_verdicts.labels(loop, verdict.finding.value).inc()
            cause = verdict.worst[0].prediction if verdict.worst else reads[-1].prediction
            out = self._speaker.outgoing(SKEW.name, verdict, id=verdict.id, key=loop, caused_by=cause)
            self._unsaid = [*self._unsaid, out][-MOST_UNSAID:]

    async def _say(self) -> None:
        if not self._unsaid:
            return
        try:
            await self._speaker.publish(self._unsaid)
        except RetryLater as error:
            log.warning("a skew verdict waits: %s", error)
        else:
            self._unsaid = []


MOST_UNSAID = 100
"""Verdicts that wait for Kafka; a loop has one when its bound is passed and one when it is kept again."""
_SERVED = PredictionServed.type_name.encode()
_decode_asked = msgspec.json.Decoder(_Asked).decode
