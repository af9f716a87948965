"""Evidently reports: processes draw them, for some loops at a time; a folder keeps the newest."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from millstream_drift.adapters.children import Children
from millstream_drift.adapters.evidently_child import DrawnJob
from millstream_drift.metrics import DriftMetrics
from millstream_drift.ports import ReportEntry, ReportJob, ReportState

log = logging.getLogger(__name__)

_ID = re.compile(r"[0-9a-f]{32}")
LARGEST = 16 * 1024 * 1024
"""Bytes of a report that is kept: three times what Evidently writes for 40 columns."""


class EvidentlyReports:
    """The port `Reports`. A process starts when there is something to draw and ends with it."""

    def __init__(
        self,
        folder: Path,
        *,
        metrics: DriftMetrics,
        children: Children,
        keep: int,
        command: Sequence[str] = (sys.executable, "-m", "millstream_drift.adapters.evidently_child"),
    ) -> None:
        self._folder = folder
        self._metrics = metrics
        self._children = children
        self._keep = keep
        self._command = tuple(command)
        self._waiting: dict[str, ReportJob] = {}
        """By loop, who asked first first."""
        self._drawing: dict[str, ReportJob] = {}
        """By loop: one that hangs takes no second place."""
        self._asked = asyncio.Event()

    def ask(self, job: ReportJob) -> None:
        if self.state(job.id) != "unknown":
            return
        loop = job.verdict.loop
        if loop in self._waiting:
            self._metrics.reports.labels("skipped").inc()
            log.info("report skipped, a newer one came", extra={"report": self._waiting[loop].id})
        self._waiting[loop] = job
        self._asked.set()

    def state(self, id: str) -> ReportState:
        if any(job.id == id for jobs in (self._drawing, self._waiting) for job in jobs.values()):
            return "in_progress"
        return "ready" if self._page(id) is not None else "unknown"

    def html(self, id: str) -> bytes | None:
        page = self._page(id)
        try:
            return page.read_bytes() if page is not None else None
        except FileNotFoundError:
            return None

    def entries(self) -> list[ReportEntry]:
        found = []
        for path in self._folder.glob("*.json"):
            with contextlib.suppress(OSError, msgspec.DecodeError):
                found.append(msgspec.json.decode(path.read_bytes(), type=ReportEntry))
        return sorted(found, key=lambda entry: (entry.at, entry.id), reverse=True)

    async def run(self) -> None:
        """Draw what is asked for, until cancelled. A report that cannot be drawn is logged and counted, no more."""
        async with asyncio.TaskGroup() as painters:
            for _ in range(self._children.most):
                painters.create_task(self._paint())

    async def _paint(self) -> None:
        while True:
            await self._asked.wait()
            async with self._children.place():
                job = self._next()
                if job is not None:
                    await self._draw_or_say_why(job)

    def _next(self) -> ReportJob | None:
        """Of the loops that nobody draws for, the newest report of the one that waits longest."""
        loop = next((loop for loop in self._waiting if loop not in self._drawing), None)
        if loop is None:
            self._asked.clear()
            return None
        job = self._drawing[loop] = self._waiting.pop(loop)
        return job

    async def _draw_or_say_why(self, job: ReportJob) -> None:
        try:
            await self._draw(job)
            self._metrics.reports.labels("made").inc()
        except (OSError, TimeoutError, ValueError) as error:
            self._metrics.reports.labels("failed").inc()
            log.error("no report: %s", error, extra={"report": job.id})
        finally:
            del self._drawing[job.verdict.loop]
            self._asked.set()

    async def _draw(self, job: ReportJob) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".drawing-") as drawing:
            handed, page = Path(drawing) / "job", Path(drawing) / "report.html"
            raw = DrawnJob(types=job.types, current=job.current, reference=job.reference)
            handed.write_bytes(msgspec.msgpack.encode(raw))
            await self._children.run(self._command, handed, page)
            size = page.stat().st_size
            if size > LARGEST:
                raise ValueError(f"the report has {size} bytes, {LARGEST} are kept")
            verdict = job.verdict
            entry = ReportEntry(
                id=job.id,
                loop=verdict.loop,
                version=verdict.version,
                index=verdict.index,
                at=verdict.at.isoformat(),
                reason=verdict.reason,
                bytes=size,
            )
            os.replace(page, self._folder / f"{job.id}.html")
            summary = Path(drawing) / "summary.json"
            summary.write_bytes(msgspec.json.encode(entry))
            os.replace(summary, self._folder / f"{job.id}.json")
        self._sweep()

    def _page(self, id: str) -> Path | None:
        if _ID.fullmatch(id) is None:
            return None
        page = self._folder / f"{id}.html"
        return page if page.is_file() else None

    def _sweep(self) -> None:
        """Beyond the newest `keep`, reports go: the oldest by when they were drawn."""
        pages = sorted(self._folder.glob("*.html"), key=lambda page: page.stat().st_mtime_ns, reverse=True)
        for page in pages[self._keep :]:
            page.unlink(missing_ok=True)
            page.with_suffix(".json").unlink(missing_ok=True)
