"""The trainer's ports in memory, for tests: what was said, what is to come."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from millstream.contracts.events import Event, ModelRef
from millstream.contracts.package import BadPackage, Manifest
from millstream.errors import RetryLater
from millstream_trainer.domain.dataset import Dataset
from millstream_trainer.domain.loop_resource import Checked
from millstream_trainer.domain.record import Record
from millstream_trainer.domain.run import Positions, RunResult, RunSpec
from millstream_trainer.errors import RunFailed, TrackingFailed

E = TypeVar("E", bound=Event)


class MemoryAnnouncer:
    """Keeps what was said, in order."""

    def __init__(self) -> None:
        self.said: list[Event] = []
        self.causes: dict[str, str] = {}
        self.away = 0
        """How many more calls find Kafka away."""

    async def announce(self, event: Event, *, caused_by: str) -> None:
        await asyncio.sleep(0)
        if self.away > 0:
            self.away -= 1
            raise RetryLater("Kafka is away")
        self.said.append(event)
        self.causes[str(getattr(event, "id"))] = caused_by  # noqa: B009

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.said if isinstance(event, kind)]


class MemoryEnds:
    def __init__(self, ends: Positions | None = None) -> None:
        self._ends = ends or {}

    async def ends(self, streams: Sequence[str]) -> Positions:
        return {stream: self._ends.get(stream, {}) for stream in streams}


class MemoryExecutor:
    """Runs end as `outcome` says: a result, or a reason for having failed. They wait while `hold` is set."""

    outlives = False

    def __init__(self, outcome: Callable[[RunSpec], RunResult | str]) -> None:
        self.specs: list[RunSpec] = []
        self.under_way = 0
        self.most_under_way = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self._outcome = outcome

    async def prepare(self) -> None:
        """Always ready."""

    async def run(self, spec: RunSpec) -> RunResult:
        self.specs.append(spec)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.gate.wait()
            outcome = self._outcome(spec)
        finally:
            self.under_way -= 1
        if isinstance(outcome, str):
            raise RunFailed(outcome)
        return outcome

    async def close(self) -> None:
        self.gate.set()


class MemoryHistory:
    """Gives every run the same rows."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def read(self, spec: RunSpec) -> Dataset:
        return self._dataset


class MemoryTracker:
    """Keeps what a run wrote down; each call named in `away` fails, once for each time it is named."""

    def __init__(self, *away: str) -> None:
        self.params: dict[str, str] = {}
        self.metrics: dict[str, float] = {}
        self.files: dict[str, bytes] = {}
        self.charts: dict[str, bytes] = {}
        self.failed: str | None = None
        self._away = list(away)

    def begin(self, spec: RunSpec, params: Mapping[str, str]) -> str | None:
        self._answer("begin")
        self.params = dict(params)
        return f"tracked-{spec.run}"

    def finish(self, record: Record) -> None:
        self._answer("finish")
        self.metrics, self.files = dict(record.result.metrics), dict(record.files)
        self.charts = dict(record.draw())

    def fail(self, reason: str) -> None:
        self.failed = reason

    def _answer(self, call: str) -> None:
        if call in self._away:
            self._away.remove(call)
            raise TrackingFailed("the tracking server is away")


class MemoryPackages:
    def __init__(self) -> None:
        self.manifests: dict[str, Manifest] = {}
        self.graphs: set[str] = set()

    def manifest(self, ref: ModelRef) -> Manifest:
        try:
            return self.manifests[ref.uri]
        except KeyError as error:
            raise BadPackage(f"no package at {ref.uri}") from error

    def sweep(self, older_than: float, unclaimed: Callable[[str, str], bool]) -> int:
        return 0

    def give(self, raw: bytes) -> str:
        self.graphs.add(found := hashlib.sha256(raw).hexdigest())
        return found

    def is_given(self, sha256: str) -> bool:
        return sha256 in self.graphs


class MemoryLoopCheck:
    """Finds what a test put there."""

    def __init__(self) -> None:
        self.wrong: dict[str, str] = {}
        """Of each text that something is wrong with, what."""
        self.project: list[str] = []
        self.asked = 0

    async def check(self, files: Mapping[str, str]) -> Checked:
        await asyncio.sleep(0)
        self.asked += 1
        loops = {name: [said] for name, text in files.items() for part, said in self.wrong.items() if part in text}
        return Checked(loops=loops, project=self.project)
