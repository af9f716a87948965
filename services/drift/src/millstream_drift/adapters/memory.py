"""Drift's ports without servers: for unit tests, judged by the same duties as the real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from millstream.contracts.envelope import Envelope
from millstream.contracts.events import Event, ModelRef
from millstream.errors import RetryLater
from millstream.runtime.publisher import Outgoing
from millstream_drift.domain.baseline import Baseline
from millstream_drift.domain.content import ContentShift, Side
from millstream_drift.domain.merge import Place
from millstream_drift.errors import NotCompared
from millstream_drift.ports import ReportEntry, ReportJob, ReportState


class MemorySnapshots:
    """Keeps the last snapshot of each loop. `away` makes them unreachable."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.away = False

    async def load(self, loops: Sequence[str]) -> dict[str, bytes]:
        if self.away:
            raise RetryLater("away")
        return {loop: self.kept[loop] for loop in loops if loop in self.kept}

    async def save(self, snapshots: Mapping[str, bytes]) -> None:
        if self.away:
            raise RetryLater("away")
        self.kept |= snapshots


class MemoryModels:
    """References by (loop, version); what is in `lost` never comes."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], Baseline] = {}
        self.lost: set[tuple[str, str]] = set()
        self.refs: dict[tuple[str, str], ModelRef] = {}

    def baseline(self, loop: str, version: str) -> Baseline | None:
        return self.known.get((loop, version))

    def is_lost(self, loop: str, version: str, asked_at: int) -> bool:
        return (loop, version) in self.lost

    def ref(self, loop: str, version: str) -> ModelRef | None:
        return self.refs.get((loop, version))

    async def learn(self, loop: str, ref: ModelRef) -> None:
        self.refs[loop, ref.version] = ref


class MemoryLog:
    """Where the topics end, as a test says."""

    def __init__(self, bounds: dict[Place, tuple[int, int]]) -> None:
        self.known = bounds
        self.read: dict[Place, int] = {}
        self.done: dict[Place, int] = {}
        self.asked = 0

    async def bounds(self) -> dict[Place, tuple[int, int]]:
        self.asked += 1
        return dict(self.known)

    async def positions(self) -> dict[Place, int]:
        return dict(self.read)

    def handled(self) -> dict[Place, int]:
        return dict(self.done)


class MemorySpeaker:
    """Keeps what was said. `away` loses nothing: it raises, as Kafka's publisher does."""

    def __init__(self) -> None:
        self.said: list[Event] = []
        self.records: list[Outgoing] = []
        self.away = False
        self._events: dict[str, Event] = {}

    def outgoing(self, topic: str, event: Event, *, id: str, key: str, caused_by: str | None = None) -> Outgoing:
        self._events[id] = event
        envelope = Envelope(id=id, type=event.type_name, source="memory", causation_id=caused_by)
        return Outgoing(topic, key.encode(), event.encode(), envelope.headers())

    async def publish(self, records: Sequence[Outgoing]) -> None:
        if self.away:
            raise RetryLater("away")
        self.records += records
        self.said += [self._events[dict(record.headers)["ce_id"].decode()] for record in records]


class MemoryComparisons:
    """Answers with the AUC by field that a test says, 0.5 where it says none; `away` compares nothing."""

    def __init__(self) -> None:
        self.auc: dict[str, float] = {}
        self.asked: list[Sequence[Side]] = []
        self.away = False

    async def compare(self, sides: Sequence[Side]) -> list[ContentShift]:
        self.asked.append(sides)
        if self.away:
            raise NotCompared("away")
        found = [(side.name, self.auc.get(side.name, 0.5)) for side in sides]
        return [ContentShift(name=name, auc=auc, low=auc - 0.03, high=min(1.0, auc + 0.03)) for name, auc in found]


class MemoryReports:
    """Remembers what was asked for; `finished` holds the pages that are done."""

    def __init__(self) -> None:
        self.asked: list[ReportJob] = []
        self.finished: dict[str, bytes] = {}

    def ask(self, job: ReportJob) -> None:
        self.asked.append(job)

    def state(self, id: str) -> ReportState:
        if id in self.finished:
            return "ready"
        return "in_progress" if any(job.id == id for job in self.asked) else "unknown"

    def html(self, id: str) -> bytes | None:
        return self.finished.get(id)

    def entries(self) -> list[ReportEntry]:
        done = [job for job in self.asked if job.id in self.finished]
        return [
            ReportEntry(
                id=job.id,
                loop=job.verdict.loop,
                version=job.verdict.version,
                index=job.verdict.index,
                at=job.verdict.at.isoformat(),
                reason=job.verdict.reason,
                bytes=len(self.finished[job.id]),
            )
            for job in done
        ]
