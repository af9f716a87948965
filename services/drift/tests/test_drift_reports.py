"""Reports: drawn beside, kept within bounds, served as a page that can reach nobody."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from httpx import ASGITransport, AsyncClient
from prometheus_client import CollectorRegistry

from millstream.contracts.times import HOUR
from millstream.runtime.http import http_app
from millstream_drift.adapters import children
from millstream_drift.adapters.children import Children
from millstream_drift.adapters.evidently_child import DrawnJob, drawable
from millstream_drift.adapters.evidently_reports import EvidentlyReports
from millstream_drift.adapters.memory import MemoryReports
from millstream_drift.api import routes
from millstream_drift.metrics import DriftMetrics
from millstream_drift.ports import REPORT_ROWS, ReportJob

from .drift_kit import JUNE, LOOP, Desk, Topics, World

PAINTER = """
import sys, time
from pathlib import Path
page = Path(sys.argv[2])
gate = page.parents[1] / "gate"
while gate.exists():
    time.sleep(0.01)
page.write_text("<h1>storm</h1>")
"""
"""Stands for Evidently where only the handling counts; waits while the file `gate` is there."""


HANGING = """
import sys, time
from pathlib import Path
if b"hang" in Path(sys.argv[1]).read_bytes():
    time.sleep(600)
Path(sys.argv[2]).write_text("<h1>storm</h1>")
"""


@pytest.fixture(autouse=True)
def _children_have_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """As nice as in production they would hardly begin while other tests keep the cores busy."""
    monkeypatch.setattr(children, "NICENESS", os.getpriority(os.PRIO_PROCESS, 0))


async def storm() -> ReportJob:
    desk = await Desk(Topics().add(World(stretch=3.0).hours(JUNE, 8).said)).start()
    await desk.read_all()
    (job,) = desk.reports.asked
    return job


def renamed(job: ReportJob, letter: str, loop: str = LOOP) -> ReportJob:
    verdict = msgspec.structs.replace(job.verdict, loop=loop)
    return ReportJob(id=letter * 32, verdict=verdict, types=job.types, current=job.current, reference=job.reference)


def hanging(job: ReportJob) -> ReportJob:
    return dataclasses.replace(job, types=job.types | {"hang": "number"})


@asynccontextmanager
async def drawing(
    folder: Path, program: str, **settings: float
) -> AsyncIterator[tuple[EvidentlyReports, DriftMetrics]]:
    metrics = DriftMetrics(CollectorRegistry())
    keep = int(settings.pop("keep", 200))
    places = Children(most=int(settings.pop("workers", 1)), timeout=settings.pop("timeout", 30.0))
    reports = EvidentlyReports(
        folder, metrics=metrics, children=places, keep=keep, command=(sys.executable, "-c", program)
    )
    task = asyncio.create_task(reports.run())
    try:
        yield reports, metrics
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until_done(reports: EvidentlyReports, id: str) -> None:
    async with asyncio.timeout(30):
        while reports.state(id) == "in_progress":  # noqa: ASYNC110 - the state of another task
            await asyncio.sleep(0.01)


def drawings(folder: Path) -> list[Path]:
    """Folders of painters at work."""
    return list(folder.glob(".drawing-*"))


def outcomes(metrics: DriftMetrics) -> dict[str, float]:
    return {
        sample.labels["outcome"]: sample.value
        for sample in next(iter(metrics.reports.collect())).samples
        if sample.name.endswith("_total")
    }


async def test_one_waits_while_one_is_drawn_and_a_newer_one_takes_its_place(tmp_path: Path) -> None:
    job = await storm()
    gate = tmp_path / "gate"
    gate.touch()
    async with drawing(tmp_path, PAINTER) as (reports, metrics):
        reports.ask(renamed(job, "a"))
        async with asyncio.timeout(30):
            while not drawings(tmp_path):  # noqa: ASYNC110 - a folder
                await asyncio.sleep(0.01)
        reports.ask(renamed(job, "b"))
        reports.ask(renamed(job, "b"))
        reports.ask(renamed(job, "c"))
        assert [reports.state(letter * 32) for letter in "abc"] == ["in_progress", "unknown", "in_progress"]
        gate.unlink()
        await until_done(reports, "a" * 32)
        await until_done(reports, "c" * 32)
        assert [reports.state(letter * 32) for letter in "abc"] == ["ready", "unknown", "ready"]
        assert outcomes(metrics) == {"made": 2, "skipped": 1}
        reports.ask(renamed(job, "a"))
        assert reports.state("a" * 32) == "ready", "what is there is not drawn again"


async def test_folding_goes_on_while_a_report_is_drawn(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    world = World(stretch=3.0).hours(JUNE, 8)
    topics = Topics().add(world.said)
    async with drawing(tmp_path, PAINTER) as (reports, _):
        desk = Desk(topics)
        desk.judging._reports = reports
        await (await desk.start()).read_all()
        id = next(one.report for one in desk.verdicts if one.report)
        async with asyncio.timeout(30):
            while not drawings(tmp_path):  # noqa: ASYNC110 - a folder
                await asyncio.sleep(0.01)
        before, known = len(desk.verdicts), len(world.said)
        topics.add(world.hours(JUNE + 8 * HOUR, 12).said[known:])
        await desk.read_all()
        assert len(desk.verdicts) > before
        assert reports.state(id) == "in_progress", "nothing waited for the painter"
        gate.unlink()
        await until_done(reports, id)
        assert reports.state(id) == "ready"


async def test_a_large_window_is_handed_over_thinned() -> None:
    topics = Topics().add(World(stretch=3.0).hours(JUNE, 2, each=REPORT_ROWS + 1, labels=False).said)
    desk = await (await Desk(topics).start()).read_all()
    (job,) = desk.reports.asked
    assert job.verdict.rows == REPORT_ROWS + 1
    assert {len(cells) for cells in job.current.values()} == {REPORT_ROWS // 2 + 1}


async def test_a_painter_that_hangs_or_fails_costs_its_report_and_nothing_else(tmp_path: Path) -> None:
    job = await storm()
    (tmp_path / "gate").touch()
    async with drawing(tmp_path, PAINTER, timeout=1.0) as (reports, metrics):
        reports.ask(renamed(job, "a"))
        await until_done(reports, "a" * 32)
        assert outcomes(metrics) == {"failed": 1}
    async with drawing(tmp_path, "raise SystemExit('no paint')") as (reports, metrics):
        reports.ask(renamed(job, "b"))
        await until_done(reports, "b" * 32)
        assert outcomes(metrics) == {"failed": 1}
        assert reports.state("b" * 32) == "unknown"
    assert not drawings(tmp_path)


async def test_a_loop_whose_report_hangs_holds_up_no_other_and_not_itself_for_ever(tmp_path: Path) -> None:
    """Two interpreters start and end within the seconds that the hanging one has."""
    job = await storm()
    async with drawing(tmp_path, HANGING, workers=2, timeout=12.0) as (reports, metrics):
        reports.ask(hanging(renamed(job, "a", "stuck")))
        reports.ask(renamed(job, "b", "other"))
        reports.ask(renamed(job, "c", "third"))
        async with asyncio.timeout(30):
            while not drawings(tmp_path):  # noqa: ASYNC110 - a folder
                await asyncio.sleep(0.01)
        reports.ask(hanging(renamed(job, "d", "stuck")))  # another of the same loop takes no second place
        reports.ask(renamed(job, "e", "stuck"))  # and a newer one its place in the line
        await until_done(reports, "b" * 32)
        await until_done(reports, "c" * 32)
        assert [reports.state(letter * 32) for letter in "abce"] == ["in_progress", "ready", "ready", "in_progress"]
        await until_done(reports, "e" * 32)
        assert [reports.state(letter * 32) for letter in "ade"] == ["unknown", "unknown", "ready"]
        assert outcomes(metrics) == {"made": 3, "failed": 1, "skipped": 1}
    assert not drawings(tmp_path)


async def test_no_more_are_drawn_at_once_than_there_are_workers(tmp_path: Path) -> None:
    job = await storm()
    (tmp_path / "gate").touch()
    async with drawing(tmp_path, PAINTER, workers=2) as (reports, metrics):
        for letter in "abcd":
            reports.ask(renamed(job, letter, f"loop-{letter}"))
        async with asyncio.timeout(30):
            while len(drawings(tmp_path)) < 2:  # noqa: ASYNC110 - a folder
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        assert len(drawings(tmp_path)) == 2
        (tmp_path / "gate").unlink()
        for letter in "abcd":
            await until_done(reports, letter * 32)
        assert outcomes(metrics) == {"made": 4}


async def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    job = await storm()
    async with drawing(tmp_path, PAINTER, keep=2) as (reports, _):
        for second, letter in enumerate("abc"):
            reports.ask(renamed(job, letter))
            await until_done(reports, letter * 32)
            os.utime(tmp_path / f"{letter * 32}.html", (second, second))
        assert [reports.state(letter * 32) for letter in "abc"] == ["unknown", "ready", "ready"]
        assert {entry.id for entry in reports.entries()} == {"b" * 32, "c" * 32}


async def test_http_shows_windows_and_reports() -> None:
    desk = await Desk(Topics().add(World(stretch=3.0).hours(JUNE, 8).said)).start()
    await desk.read_all()
    reports: MemoryReports = desk.reports
    (job,) = reports.asked
    app = http_app(title="drift")
    app.include_router(routes({LOOP: desk.judging}, reports))
    async with AsyncClient(transport=ASGITransport(app), base_url="http://drift") as http:
        windows = (await http.get(f"/v1/loops/{LOOP}/windows")).json()
        assert {window["finding"] for window in windows["windows"]} == {"suspected", "healthy"}
        nobody = await http.get("/v1/loops/nobody/windows")
        assert (nobody.status_code, nobody.json()["error"]) == (404, "unknown_loop")
        assert LOOP in nobody.json()["message"]
        under_way = await http.get(f"/v1/reports/{job.id}")
        assert (under_way.status_code, under_way.json()["status"]) == (202, "in_progress")
        for path in ("/v1/reports/..%2F..%2Fetc%2Fpasswd", "/v1/nothing"):
            nothing = await http.get(path)
            assert (nothing.status_code, nothing.json()["error"]) == (404, "not_found")
        unknown = await http.get(f"/v1/reports/{'0' * 32}")
        assert (unknown.status_code, unknown.json()["error"]) == (404, "unknown_report")
        reports.finished[job.id] = b"<html>storm</html>"
        page = await http.get(f"/v1/reports/{job.id}")
        assert (page.status_code, page.content) == (200, b"<html>storm</html>")
        policy = page.headers["content-security-policy"]
        assert "sandbox allow-scripts;" in policy
        assert "default-src 'none'" in policy
        assert "connect-src 'none'" in policy
        assert "unsafe-eval" not in policy
        assert [entry["id"] for entry in (await http.get("/v1/reports")).json()["reports"]] == [job.id]
        await desk.judging.assigned([])
        elsewhere = await http.get(f"/v1/loops/{LOOP}/windows")
        assert (elsewhere.status_code, elsewhere.json()["error"]) == (503, "elsewhere")


@pytest.mark.parametrize("id", ["..", "../x", "A" * 32, "a" * 31, "a" * 32 + "/", "a" * 32 + "\n"])
async def test_strange_ids_reach_no_file(tmp_path: Path, id: str) -> None:
    async with drawing(tmp_path, PAINTER) as (reports, _):
        assert (reports.state(id), reports.html(id)) == ("unknown", None)


def test_columns_without_values_are_left_out_of_the_page() -> None:
    job = DrawnJob(
        types={"a": "number", "b": "number", "c": "category"},
        current={"a": [1.0], "b": [None], "c": ["x"]},
        reference={"a": [1.0], "b": [2.0]},
    )
    assert drawable(job) == {"a": "number"}


@pytest.mark.connected
@pytest.mark.timeout(240)
async def test_evidently_draws_a_real_page_that_needs_nobody(tmp_path: Path) -> None:
    """Not a server, but half a minute where the disk is cold."""
    job = await storm()
    reports = EvidentlyReports(
        tmp_path, metrics=DriftMetrics(CollectorRegistry()), children=Children(most=1, timeout=200.0), keep=5
    )
    task = asyncio.create_task(reports.run())
    try:
        reports.ask(job)
        async with asyncio.timeout(220):
            while reports.state(job.id) == "in_progress":  # noqa: ASYNC110 - the state of another task
                await asyncio.sleep(0.1)
        page = reports.html(job.id)
        assert page is not None
        assert b"origin__mean_1h" in page
        assert b'src="http' not in page
        (entry,) = reports.entries()
        assert (entry.loop, entry.bytes) == (LOOP, len(page))
        assert msgspec.to_builtins(entry)["reason"].startswith("effect")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
