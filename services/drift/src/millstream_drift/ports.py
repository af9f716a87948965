"""What drift needs from outside, with the duties of whoever provides it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

from millstream.contracts.events import Event, ModelRef, Scalar, WindowJudged
from millstream.runtime.delivery import Record
from millstream.runtime.publisher import Outgoing
from millstream_drift.domain.baseline import Baseline
from millstream_drift.domain.content import ContentShift, Side
from millstream_drift.domain.events import Heard
from millstream_drift.domain.merge import Place
from millstream_drift.domain.windows import Window


class Snapshots(Protocol):
    """Where the state of each loop survives this process. Called by one task at a time."""

    async def load(self, loops: Sequence[str]) -> dict[str, bytes]:
        """The last one saved of each of these; loops without one are missing. Raises RetryLater."""

    async def save(self, snapshots: Mapping[str, bytes]) -> None:
        """Replace the last ones of these loops, all at once or not at all; twice is safe. Raises RetryLater."""


class Models(Protocol):
    """The references of the models, as `millstream-models` announces them. Reading never blocks."""

    def baseline(self, loop: str, version: str) -> Baseline | None:
        """What to compare this version with; None while unknown, or for good (see `is_lost`)."""

    def is_lost(self, loop: str, version: str, asked_at: int) -> bool:
        """Whether no baseline will come: its package cannot be read, or newer models have pushed it out already."""

    def ref(self, loop: str, version: str) -> ModelRef | None:
        """Where a known version's package is."""

    async def learn(self, loop: str, ref: ModelRef) -> None:
        """Read a package that was known before; a bad one makes the version lost. Twice is safe. Raises RetryLater."""


class Reader(Protocol):
    """Makes domain events of records."""

    def read(self, record: Record) -> list[tuple[str, Heard]]:
        """(loop, event) pairs; none for what does not concern us. Changes nothing, so reading twice is safe.

        Raises RejectEvent with a reason of `errors`, RetryLater for a prediction whose model is not announced yet.
        """


class Log(Protocol):
    """The topics that are heard, as Kafka has them now."""

    async def bounds(self) -> dict[Place, tuple[int, int]]:
        """(first offset, offset after the last) of every partition. Raises RetryLater."""

    async def positions(self) -> dict[Place, int]:
        """Where each partition is read on; behind transaction markers too, which are no records. Raises RetryLater."""

    def handled(self) -> dict[Place, int]:
        """Up to where (not included) each partition is done, dead letters too; one of which nothing is done may be missing."""


class Speaker(Protocol):
    """Publishes, and returns when it is safe. `millstream.runtime.publisher.Publisher` fits."""

    def outgoing(self, topic: str, event: Event, *, id: str, key: str, caused_by: str | None = None) -> Outgoing:
        """One of our own events, wrapped for its topic."""

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Raises DeliveryUnknown (retry: ids make a repeat harmless)."""


class Comparisons(Protocol):
    """Tells the content of a window from training's."""

    async def compare(self, sides: Sequence[Side]) -> list[ContentShift]:
        """Takes seconds, of another process; one for each side. The same sides give the same. Raises NotCompared."""


@dataclass(frozen=True, kw_only=True)
class ReportJob:
    """One report to draw: a window beside a sample of what the model learned from."""

    id: str
    verdict: WindowJudged
    types: dict[str, str]
    """Column → `number` or `category`."""
    current: dict[str, list[Scalar]]
    reference: dict[str, list[Scalar]]


REPORT_ROWS = 5_000
"""Rows of a window that a report is drawn of, evenly picked: eyes see no difference above this, and handing over a window of a
million would stop the fold for seconds."""


def report_on(id: str, verdict: WindowJudged, window: Window, baseline: Baseline) -> ReportJob:
    """The job to draw this window of inputs."""
    _, _, *columns = zip(*window.rows[:: -(-len(window.rows) // REPORT_ROWS)], strict=True)
    types = {column.name: column.type for column in baseline.columns}
    current = {name: list(cells) for name, cells in zip(types, columns, strict=True)}
    return ReportJob(id=id, verdict=verdict, types=types, current=current, reference=baseline.reference.sample)


class ReportEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the list of reports."""

    id: str
    loop: str
    version: str
    index: int
    at: str
    """Stream time of the window's end."""
    reason: str
    bytes: int


ReportState = Literal["ready", "in_progress", "unknown"]


class Reports(Protocol):
    """Reports on suspicious windows. A report is a help for people: losing one loses no verdict."""

    def ask(self, job: ReportJob) -> None:
        """Draw it when there is time; returns at once. Of each loop one is drawn and one waits; a newer one takes its place."""

    def state(self, id: str) -> ReportState: ...

    def html(self, id: str) -> bytes | None:
        """A finished report, self-contained; None where there is none."""

    def entries(self) -> list[ReportEntry]:
        """Finished reports, newest window first."""
