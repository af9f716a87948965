"""Fills views anew from the lake and the topics beside the ones that are read, and switches when nothing is missing.

A rebuild is one more writer with a fence of its own, so it may be killed and run again, or run twice at once, and counts
nothing twice. The switch is exact: whoever reads gets the old generation as whole as ever, and then the new one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from millstream_tiles.definition import View
from millstream_tiles.errors import RebuildRefused, StoreUnavailable
from millstream_tiles.events import EventBatch
from millstream_tiles.generation import FIRST, batch_at, view_at
from millstream_tiles.generations import Generations
from millstream_tiles.lake import Lake
from millstream_tiles.lake_log import LakeLog
from millstream_tiles.partials import TileBatch, slack_of
from millstream_tiles.ports import Applied, Fence, Outcome, TileStore
from millstream_tiles.sweep import sweep_stream, sweep_view
from millstream_tiles.writer import TileWriter

SHORT, LONG = 0.015, 0.03
"""Seconds of one step of the store that a rebuild aims at: live reads and writes wait for it in its one thread."""
FEWEST, MOST = 5_000, 50_000
"""Bounds of the events that go into one step: no fewer than the live workers' steps have, and what the lake is read by."""
POLL = 0.2
"""Seconds between two looks at a lake that is to catch up; it appends every third of a second at most."""


class Topics(Protocol):
    """The streams in Kafka, behind the lake. Called by one rebuild; never blocks the loop."""

    async def partitions(self, stream: str) -> Mapping[int, tuple[int, int]]:
        """Each partition's first offset that is still there and the one after its last."""

    async def read(self, stream: str, positions: Mapping[int, int]) -> Sequence[EventBatch]:
        """Good events from `positions` on, as many as come at once; nothing where none came for a moment.

        A batch begins at the position, or at the first offset that is still there.
        """


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a rebuild is, in offsets of all partitions."""

    reading: str
    """ "lake" or "topics"."""
    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """What a rebuild did."""

    views: tuple[str, ...]
    stream: str
    generation: int
    resumed: bool
    since: int | None
    """Event time (microseconds) from which events were applied; None: all of them."""
    whole_from: int | None
    """As-of from which every window is whole; None: all are now. Only where `since` lies inside of a window."""
    events: int
    """Applied by this run."""
    lost: int
    """Offsets that neither the lake nor the topics have any more."""
    swept: int
    """Keys of replaced generations that were removed."""
    seconds: float


class Rebuild:
    """One rebuild of `views`, all of one stream, for the workers of `generations.group`."""

    def __init__(
        self,
        *,
        generations: Generations,
        views: Sequence[View],
        lake: Lake,
        lake_group: str,
        topics: Topics | None = None,
        say: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        """Without `topics` it waits for the lake to have all that the workers have applied."""
        if len({view.stream for view in views}) != 1:
            raise ValueError("the views of one rebuild read one stream")
        self._generations = generations
        self._views = tuple(views)
        self._stream = views[0].stream
        self._lake = lake
        self._lake_group = lake_group
        self._topics = topics
        self._say = say
        self._generation = 0
        self._store = _Timed(generations.store)
        self._writer: TileWriter | None = None
        self._largest = FEWEST
        self._events = 0
        self._lost = 0
        self._done = 0
        self._unbegun: set[int] = set()
        """Partitions of which nothing was applied: their first batch may begin anywhere."""

    async def run(self, *, since: int | None = None, anew: bool = False) -> Rebuilt:
        """Fill, catch up, switch, and remove what was replaced. Goes on where an earlier run was stopped, unless `anew`.

        `since`: leave out events before this time (microseconds); by default those that are in no window any more.
        Raises RebuildRefused, StoreUnavailable, LakeUnavailable; then run it again.
        """
        began = time.monotonic()
        needed = await self._needed()
        begun, used = await self._generations.begin(self._views, since=needed if since is None else since, anew=anew)
        if since is not None and used != since:
            raise RebuildRefused(
                f"a rebuild of {', '.join(v.name for v in self._views)} with another --since is under way; "
                "leave --since away to go on with it, or begin anew with --fresh"
            )
        self._generation = begun
        if anew:
            await self._sweep()
        resumed = any(await self._generations.fences(self._stream, begun))
        await self._from_the_lake(used)
        await self._until_switched(used)
        short = used is not None and needed is not None and used > needed
        return Rebuilt(
            views=tuple(view.name for view in self._views),
            stream=self._stream,
            generation=begun,
            resumed=resumed,
            since=used,
            whole_from=used + max(a.window for v in self._views for a in v.aggregates) if short and used else None,
            events=self._events,
            lost=self._lost,
            swept=await self._sweep(),
            seconds=round(time.monotonic() - began, 3),
        )

    async def _needed(self) -> int | None:
        """Event time before which no question needs an event; None: all are needed."""
        newest = max(
            (f.stream_time for s in await self._generations.fences(self._stream, FIRST) for f in s.values()), default=0
        )
        if not newest:
            return None
        windows = [a.window + a.slide + slack_of(v) for v in self._views for a in v.aggregates]
        # An event in no window may still be the first copy of one that is.
        copies = max((v.dedupe_span for v in self._views if v.event_id), default=0)
        return newest - max(windows) - copies

    async def _from_the_lake(self, since: int | None) -> None:
        """Apply what the lake has and we do not."""
        fences = await self._fences()
        bounds = dict(await self._topics.partitions(self._stream)) if self._topics else {}
        every = sorted({*bounds, *fences, *(p for s in await self._generations.fences(self._stream, FIRST) for p in s)})
        ends = await asyncio.to_thread(self._lake.positions, self._stream, self._lake_group, every)
        log = await asyncio.to_thread(LakeLog, self._lake, self._stream, self._views, since=since)
        starts = {}
        for partition in ends:
            fence = fences.get(partition)
            starts[partition] = log.first(partition) if fence is None else fence + 1
        self._unbegun = {p for p in every if p not in fences}
        total = sum(max(0, ends[p] + 1 - start) for p, start in starts.items())
        after = sum(max(0, end - max(ends.get(p, -1) + 1, first)) for p, (first, end) in bounds.items())
        async for batch in _ahead(log.batches(starts, ends)):
            await self._write(batch)
            self._say(Progress(reading="lake", done=self._done, total=total + after))

    async def _until_switched(self, since: int | None) -> None:
        """Follow the topics until every live batch is applied here too, and switch."""
        while True:
            if await self._caught_up():
                # Whoever is in the middle of a batch now may have found us behind and gone on. It is refused from here
                # on, and takes the batch again with us, who are not behind any more: so a second look is final.
                await self._look_again(touch=True)
                if await self._caught_up():
                    await self._generations.switch(self._views, self._generation)
                    return
            if self._topics is None:
                await asyncio.sleep(POLL)
                await self._from_the_lake(since)
                continue
            fences = await self._fences()
            bounds = await self._topics.partitions(self._stream)
            positions = {p: fences[p] + 1 if p in fences else first for p, (first, _) in bounds.items()}
            for batch in await self._topics.read(self._stream, positions):
                await self._write(batch, after=positions[batch.partition])
            left = sum(max(0, end - positions[p]) for p, (_, end) in bounds.items())
            self._say(Progress(reading="topics", done=self._done, total=self._done + left))

    async def _caught_up(self) -> bool:
        """Whether no worker has applied anything, on any shard, that is not applied here."""
        live = await self._generations.fences(self._stream, FIRST)
        mine = await self._generations.fences(self._stream, self._generation)
        return all(
            partition in have and have[partition].offset >= fence.offset
            for there, have in zip(live, mine, strict=True)
            for partition, fence in there.items()
        )

    async def _fences(self) -> dict[int, int]:
        """Partition -> what is applied here on every shard; partitions that a shard has nothing of are missing."""
        shards = await self._generations.fences(self._stream, self._generation)
        return {p: min(s[p].offset for s in shards) for p in set.intersection(*(set(s) for s in shards))}

    async def _write(self, batch: EventBatch, *, after: int | None = None) -> None:
        """Apply one batch; `after` says where it should have begun, if anything is gone."""
        gap = batch.partition in self._unbegun
        if after is not None and batch.start > after:
            gap, self._lost = True, self._lost + batch.start - after
        while True:
            writer = self._writer or await self._look_again()
            writer.largest = self._largest
            applied = await writer.write(batch_at(batch, self._generation), accept_gap=gap)
            if applied.outcome is not Outcome.STALE:
                break
            self._writer = None
        if applied.outcome is Outcome.BEHIND:
            raise StoreUnavailable(
                f"the online store lost what was rebuilt of {self._stream}; run the same command again"
            )
        self._unbegun.discard(batch.partition)
        self._largest = self._store.paced(self._largest)
        self._done += batch.end - batch.start + 1
        if applied.outcome is Outcome.APPLIED:
            self._events += len(batch)

    async def _look_again(self, *, touch: bool = False) -> TileWriter:
        """A writer that knows the table as it is now. Raises RebuildRefused when it is not ours to write any more."""
        table = await (self._generations.touch() if touch else self._generations.change(_as_it_is))
        names = {view.name for view in self._views}
        if not names <= set(table.members(self._stream, self._generation)):
            raise RebuildRefused(
                f"{', '.join(sorted(names))}: this rebuild was given up, by another one, a new definition or a store that "
                "lost its data; see millstream features status"
            )
        views = [view_at(view, self._generation) for view in self._views]
        self._writer = TileWriter(self._store, views, self._generations.group, revision=table.revision)
        return self._writer

    async def _sweep(self) -> int:
        removed = sum([await sweep_view(self._generations, view.name) for view in self._views])
        await sweep_stream(self._generations, self._stream)
        return removed


class _Timed:
    """A TileStore that knows how long its steps take."""

    def __init__(self, store: TileStore) -> None:
        self._store = store
        self._longest = 0.0

    @property
    def shards(self) -> int:
        return self._store.shards

    async def apply(self, batch: TileBatch, *, group: str) -> Applied:
        began = time.perf_counter()
        try:
            return await self._store.apply(batch, group=group)
        finally:
            self._longest = max(self._longest, time.perf_counter() - began)

    def paced(self, size: int) -> int:
        """How many events the next steps shall have, when those since the last call had up to `size`."""
        longest, self._longest = self._longest, 0.0
        if longest > LONG:
            return max(FEWEST, size // 2)
        return min(MOST, size * 2) if longest < SHORT else size

    async def fence(self, group: str, stream: str, partition: int) -> Fence | None:
        return await self._store.fence(group, stream, partition)

    async def check(self) -> None:
        await self._store.check()

    async def close(self) -> None:
        await self._store.close()


async def _as_it_is(table: object) -> None:
    """Changes nothing; the shards are told the table's revision all the same."""


async def _ahead(batches: Iterator[EventBatch]) -> AsyncIterator[EventBatch]:
    """`batches`, the next one being read in a thread while one is applied."""
    coming = asyncio.ensure_future(asyncio.to_thread(next, batches, None))
    try:
        while (batch := await coming) is not None:
            coming = asyncio.ensure_future(asyncio.to_thread(next, batches, None))
            yield batch
    finally:
        coming.cancel()
