"""What drift does with a share of the loops: folds what it hears, publishes what follows, keeps state with position."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from millstream.contracts.events import ChallengerJudged, WindowCorrected, WindowJudged, WindowKind, WindowSkipped
from millstream.contracts.topics import VERDICTS
from millstream.errors import RejectEvent, RetryLater
from millstream.runtime.delivery import Batch, Rejected, Rewind
from millstream.runtime.health import Health
from millstream.runtime.publisher import Outgoing
from millstream.runtime.tracing import current_traceparent, span
from millstream_drift.domain.baseline import Baseline
from millstream_drift.domain.content import ContentShift, ContentWindow, judge_content, sides, skipped, watched
from millstream_drift.domain.events import Heard
from millstream_drift.domain.fold import Fold, Said
from millstream_drift.domain.judge import Rules
from millstream_drift.domain.lately import Lately
from millstream_drift.domain.merge import Place
from millstream_drift.domain.snapshot import Snapshot, decode_snapshot, encode_snapshot
from millstream_drift.errors import NotCompared
from millstream_drift.metrics import DriftMetrics
from millstream_drift.ports import Comparisons, Log, Models, Reader, Reports, Snapshots, Speaker, report_on

log = logging.getLogger(__name__)

ELSEWHERE = "another replica judges these loops"


class Judging:
    """The handler behind the subscription of one share: some of the loops, all partitions that any of them needs.

    Kafka's committed offsets mean "applied in memory" (for lag and for whoever waits); the truth is the snapshot, where
    state and position of each loop are one value. A start begins at the snapshots' position, so what memory lost is read again,
    folds to the same verdicts, and publishes them with the same ids. So does a replica that takes the share over.
    """

    def __init__(
        self,
        *,
        rules: Mapping[str, Rules],
        reader: Reader,
        models: Models,
        snapshots: Snapshots,
        speaker: Speaker,
        reports: Reports,
        comparisons: Comparisons,
        health: Health,
        metrics: DriftMetrics,
        group: str = "drift",
    ) -> None:
        self.rules = rules
        self._condition = f"all partitions of {group}"
        self._reader = reader
        self._models = models
        self._snapshots = snapshots
        self._speaker = speaker
        self._reports = reports
        self._comparisons = comparisons
        self._health = health
        self._metrics = metrics
        self._lock = asyncio.Lock()
        """A rebalance replaces the state; it waits for the batch in hand."""
        self._fold = Fold(rules)
        self._comparable = {name: asyncio.Event() for name, one in rules.items() if one.content.names}
        """Per loop whose content is watched: set while some waits to be compared."""
        self._lately = {name: Lately() for name in rules}
        self._split: str | None = "no partitions yet"
        """Why nothing is folded at the moment."""
        self._unsaid: list[tuple[Said, Outgoing]] = []
        self._bad: dict[Place, tuple[int, list[Rejected]]] = {}
        """Records that cannot be used, and where the batch behind theirs begins. They were folded over: a batch that is
        tried again names them again, and no snapshot covers them, until their dead letters are written."""
        self._changed = False
        self._gap: tuple[Place, int] | None = None
        self._quiet = False  # nothing was handed over since somebody last looked
        self.log: Log | None = None
        """Set once the subscription exists."""

    async def __call__(self, batch: Batch) -> Sequence[Rejected]:
        """Fold one batch and publish what follows. Harmless when repeated: what was folded already is skipped."""
        async with self._lock:
            self._quiet = False
            if self._split is not None:
                raise RetryLater(self._split)
            place = batch.topic, batch.partition
            self._leave_buried()
            self._take(place, batch)
            await self._settle()
            await self._say()
            return self._bad.get(place, (0, []))[1]

    async def assigned(self, places: Sequence[Place]) -> dict[Place, int]:
        """New partitions: take state and position from the snapshot. Raises RetryLater while that cannot be read."""
        async with self._lock:
            if not places:
                self._stand_by()
                return {}
            bounds = await self._log.bounds()
            missing = bounds.keys() - set(places)
            if missing:
                # A label would wait here for a question that nobody hears, or another.
                self._split = f"{len(missing)} of {len(bounds)} partitions are not assigned to this replica"
                log.error("judging nothing: %s", self._split)
                self._health.waiting_for(self._condition, self._split)
                self._judges(False)
                return {}
            await self._restore(bounds)
            self._split = None
            self._health.met(self._condition)
            self._judges(True)
            return dict(self._fold.merge.next)

    async def save(self) -> None:
        """Keep a snapshot if something changed. Waits for the batch in hand; logs and counts when the store is away."""
        async with self._lock:
            self._leave_buried()
            if not self._changed or self._unsaid or self._bad or self._split is not None:
                return
            with self._metrics.encode_seconds.time():
                # Encoded before the lock is given back: state and position of one moment.
                raws = {name: encode_snapshot(self._snapshot(name)) for name in self.rules}
            self._changed = False
        for name, raw in raws.items():
            self._metrics.snapshot_bytes.labels(name).set(len(raw))
        try:
            await self._snapshots.save(raws)
        except RetryLater as error:
            self._changed = True
            self._metrics.snapshot_failures.inc()
            log.warning("judging on without a new snapshot: %s", error)

    async def keep_saving(self, every: float) -> None:
        """Save every so many seconds, until cancelled."""
        while True:
            await asyncio.sleep(every)
            await self.save()

    async def settle_when_quiet(self) -> None:
        """Called every second or so. Kafka's ends count transaction markers, which never come as records: a partition that
        ends with one would look unread for ever, and hold every verdict back. When nothing comes and the client has read
        past the marker, it is read."""
        async with self._lock:
            quiet, self._quiet = self._quiet, True
            if not quiet or self._split is not None or not self._fold.is_due():
                return
            try:
                bounds, positions = await self._log.bounds(), await self._log.positions()
                merge = self._fold.merge
                merge.ended(
                    {
                        place: merge.next.get(place, 0) if positions.get(place, 0) >= after else after
                        for place, (_, after) in bounds.items()
                    }
                )
                await self._settle()
                await self._say()
            except RetryLater as error:
                log.warning("not settled while it is quiet: %s", error)

    async def keep_settling(self) -> None:
        """Look every second, until cancelled."""
        while True:
            await asyncio.sleep(1.0)
            await self.settle_when_quiet()

    async def keep_comparing(self) -> None:
        """Compare the content of closed windows until cancelled: a loop's in order, loops side by side."""
        async with asyncio.TaskGroup() as loops:
            for name, waiting in self._comparable.items():
                loops.create_task(self._compare_all(name, waiting))

    async def _compare_all(self, name: str, waiting: asyncio.Event) -> None:
        while True:
            await waiting.wait()
            waiting.clear()
            while (window := next(iter(self._fold.loops[name].contents), None)) is not None and self._split is None:
                await self._compare(name, window)
                await self._say_at_last()

    async def _compare(self, name: str, window: ContentWindow) -> None:
        """Compare the first in line and judge it. What a crash keeps out of the snapshot is compared again, to the same."""
        rules, baseline = self.rules[name].content, self._models.baseline(name, window.version)
        references = watched(baseline.reference.content, rules) if baseline is not None else []
        shifts: list[ContentShift] = []
        why = "" if references else "the version has no reference any more"
        try:
            found = sides(window.sample, references)
            shifts = await self._comparisons.compare(found) if found else []
        except NotCompared as error:
            why = str(error)
        async with self._lock:
            loop = self._fold.loops[name]
            first = next(iter(loop.contents), None)
            if self._split is not None or first is None:
                return  # a rebalance has put another state in place
            if (first.version, first.index) != (window.version, window.index):
                return
            del loop.contents[0]
            self._changed = True
            self._metrics.contents.labels(name, "failed" if why else "judged").inc()
            memory = loop.memory.of(WindowKind.CONTENT)
            verdict = None if why else judge_content(window, shifts, references, rules, memory)
            self._speak(Said(event=verdict or skipped(window, name, why), cause=window.cause))

    async def _say_at_last(self) -> None:
        """Nothing else may come that would say it."""
        while self._unsaid:
            try:
                async with self._lock:
                    await self._say()
            except RetryLater as error:
                log.warning("a verdict waits: %s", error)
                await asyncio.sleep(1.0)

    def is_judging(self) -> bool:
        """Whether this replica has these loops at the moment; another one has them else."""
        return self._split is None

    def lately(self, loop: str) -> Lately:
        """The last verdicts. Raises KeyError for a loop of another share."""
        return self._lately[loop]

    def _stand_by(self) -> None:
        """The share is another replica's. What is in memory would be out of date when it comes back."""
        if self._split is None:
            log.info("standing by: %s", ELSEWHERE, extra={"loops": sorted(self.rules)})
        self._split, self._changed = ELSEWHERE, False
        self._begin(Fold(self.rules))
        self._judges(False)
        self._health.met(self._condition)

    def _judges(self, whether: bool) -> None:
        for name in self.rules:
            self._metrics.judges.labels(name).set(whether)

    @property
    def _log(self) -> Log:
        if self.log is None:
            raise RetryLater("the subscription is not there yet")
        return self.log

    def _take(self, place: Place, batch: Batch) -> None:
        """Read the records that are new and fold them, all or none."""
        following = self._fold.merge.next.get(place, 0)
        if batch.end < following:
            return
        if batch.start > following:
            self._reread(place, following, batch.start)
        events: list[tuple[str, Heard]] = []
        bad: list[Rejected] = []
        newest = 0
        for record in batch.records:
            if record.offset < following:
                continue
            try:
                read = self._reader.read(record)
                newest = max(newest, *(event.time for _, event in read)) if read else newest
                events += [one for one in read if not self._fold.has_had(one[0], place, record.offset)]
            except RejectEvent as error:
                bad.append(Rejected(record, error))
        self._fold.hear(place, batch.end + 1, events, newest or None)
        self._changed = True
        if bad:
            self._bad[place] = batch.end + 1, [*self._bad.get(place, (0, []))[1], *bad]

    def _leave_buried(self) -> None:
        if self._bad:
            handled = self._log.handled()
            self._bad = {place: one for place, one in self._bad.items() if handled.get(place, 0) < one[0]}

    def _reread(self, place: Place, following: int, start: int) -> None:
        """Records between position and batch are missing: a rebalance moved the position back, or Kafka deleted them."""
        if self._gap != (place, following):
            self._gap = place, following
            raise Rewind(following)
        self._metrics.lost.inc(start - following)
        log.error("Kafka no longer has offsets %s to %s", following, start - 1, extra={"topic": place[0]})

    async def _settle(self) -> None:
        fold = self._fold
        if fold.is_due():
            if fold.merge.needs_ends():
                bounds = await self._log.bounds()
                fold.merge.ended({place: after for place, (_, after) in bounds.items()})
            for said in fold.settle(self._baseline):
                self._speak(said)
        self._observe()

    def _speak(self, said: Said) -> None:
        event = said.event
        # A trace of its own, linked to the batch that led to it: a window has thousands of causes, and its effects take days.
        about = {"millstream.loop": event.loop, "millstream.event": event.id}
        with span(f"judge {event.loop}", root=True, links=[current_traceparent()], about=about):
            out = self._speaker.outgoing(
                VERDICTS.name, event, id=event.id, key=event.loop, caused_by=said.cause or None
            )
        self._unsaid.append((said, out))

    async def _say(self) -> None:
        """Publish before the commit; what Kafka did not confirm stays and is said again, with the same ids."""
        if not self._unsaid:
            return
        await self._speaker.publish([out for _, out in self._unsaid])
        saying, self._unsaid = self._unsaid, []
        for said, _ in saying:
            if isinstance(said.event, WindowJudged):
                self._note(said, said.event)
            elif isinstance(said.event, ChallengerJudged):
                self._note_trial(said.event)
            elif isinstance(said.event, WindowCorrected):
                self._lately[said.event.loop].said(said.event)
                self._metrics.corrected.labels(said.event.loop).inc()
                log.info("corrected: %s", said.event.reason, extra={"loop": said.event.loop})
            elif isinstance(said.event, WindowSkipped):
                of = {"loop": said.event.loop, "version": said.event.version}
                log.warning("window %s: %s", said.event.index, said.event.reason, extra=of)

    def _note_trial(self, verdict: ChallengerJudged) -> None:
        self._metrics.compared(verdict)
        where = {"loop": verdict.loop, "version": verdict.version, "against": verdict.against}
        log.info("%s: %s", verdict.finding, verdict.reason, extra=where)

    def _note(self, said: Said, verdict: WindowJudged) -> None:
        self._lately[verdict.loop].said(verdict)
        self._metrics.judged.labels(verdict.loop, verdict.kind, verdict.finding).inc()
        self._metrics.effect.labels(verdict.loop, verdict.kind).set(verdict.effect)
        log.info("%s: %s", verdict.finding, verdict.reason, extra={"loop": verdict.loop, "version": verdict.version})
        if said.window is not None and verdict.report is not None:
            baseline = self._baseline(verdict.loop, verdict.version)
            self._reports.ask(report_on(verdict.report, verdict, said.window, baseline))

    def _baseline(self, loop: str, version: str) -> Baseline:
        found = self._models.baseline(loop, version)
        if found is None:
            raise LookupError(f"version {version} of {loop} has rows but no reference")
        return found

    def _observe(self) -> None:
        for name, loop in self._fold.loops.items():
            self._metrics.observe(name, loop.join.counts, loop.join.pending, loop.windows.dropped, loop.unseen)
            self._metrics.held.labels(name).set(loop.held)
            if loop.contents:
                self._comparable[name].set()

    def _snapshot(self, name: str) -> Snapshot:
        loop = self._fold.loops[name]
        known = [self._models.ref(name, version) for version in sorted(loop.versions)]
        return Snapshot(
            merge=self._fold.merge_of(name),
            loop=loop.state(),
            models=[ref for ref in known if ref is not None],
            lately=self._lately[name],
        )

    async def _kept(self, bounds: Mapping[Place, tuple[int, int]]) -> dict[str, Snapshot]:
        """What is kept of each loop and can be gone on with."""
        found = {}
        for name, raw in (await self._snapshots.load(sorted(self.rules))).items():
            try:
                found[name] = decode_snapshot(raw)
            except ValueError as error:
                log.error("no snapshot of %s that can be read, it begins empty: %s", name, error)
        if any(
            offset > bounds[place][1]
            for one in found.values()
            for place, offset in one.merge.next.items()
            if place in bounds
        ):
            log.error("the snapshots are ahead of Kafka: the topics were made anew; beginning from their start")
            return {}
        return found

    async def _restore(self, bounds: Mapping[Place, tuple[int, int]]) -> None:
        kept = await self._kept(bounds)
        for name, one in kept.items():
            for ref in one.models:
                await self._models.learn(name, ref)
        fold = Fold(self.rules, {name: (one.merge, one.loop) for name, one in kept.items()}, bounds)
        for name, loop in fold.loops.items():
            for version in sorted(loop.versions):
                if self._models.baseline(name, version) is None:
                    log.error("version %s of %s has no reference any more: nobody judges its rows", version, name)
                    loop.forget(version)
        self._begin(fold, {name: one.lately for name, one in kept.items()})
        log.info("state restored", extra={"from_snapshots": sorted(kept)})

    def _begin(self, fold: Fold, lately: Mapping[str, Lately] | None = None) -> None:
        """Put another state in the place of this one."""
        self._fold = fold
        for name, loop in fold.loops.items():
            self._metrics.resume(name, loop.join.counts)
            self._lately[name] = (lately or {}).get(name) or Lately()
        self._unsaid, self._bad, self._gap = [], {}, None
        self._observe()
