"""Characters of the trainer's stories: a loop called `tides`, its rules, and what drift says about it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from millstream.contracts.events import Cause, Finding, LabelsMatured, RetrainRequested, WindowJudged, WindowKind
from millstream.contracts.times import DAY
from millstream_trainer.domain.policy import Rules

START = datetime(2013, 1, 1, tzinfo=UTC)


class Tides:
    """Says what happens to the loop `tides`, day by day of stream time."""

    loop = "tides"
    rules = Rules(
        first_rows=1000,
        schedule=30 * DAY,
        cooldown=3 * DAY,
        budget_runs=4,
        budget_period=30 * DAY,
        causes=frozenset({Cause.DRIFT, Cause.PERFORMANCE, Cause.SCHEDULE, Cause.MANUAL}),
    )

    def day(self, day: float) -> datetime:
        return START + timedelta(days=day)

    def matured(self, day: float, matured: int = 5000) -> LabelsMatured:
        return LabelsMatured(
            id=f"labels-{day}",
            loop=self.loop,
            at=self.day(day),
            matured=matured,
            pending=0,
            expired=0,
            late=0,
            orphaned=0,
            duplicated=0,
        )

    def judged(
        self,
        day: float,
        finding: Finding = Finding.DETECTED,
        *,
        version: str = "1",
        kind: WindowKind = WindowKind.INPUTS,
        id: str | None = None,
    ) -> WindowJudged:
        return WindowJudged(
            id=id or f"{finding.value}-{day}",
            loop=self.loop,
            version=version,
            kind=kind,
            index=0,
            finding=finding,
            reason=f"{finding.value} on day {day}",
            at=self.day(day),
            start=self.day(day - 1),
            end=self.day(day),
            rows=5000,
            effect=0.4,
        )

    def wish(self, name: str, day: float | None = None) -> RetrainRequested:
        return RetrainRequested(
            id=name,
            loop=self.loop,
            cause=Cause.MANUAL,
            by="Ada",
            reason="the harbour was rebuilt",
            at=None if day is None else self.day(day),
        )


@pytest.fixture(scope="session")
def tides() -> Tides:
    return Tides()


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], object]:
    """Wait for a condition, bounded; the event loop gets on meanwhile."""
    import asyncio

    async def wait(condition: Callable[[], bool], seconds: float = 30.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110  what is waited for is any state, not one event
                await asyncio.sleep(0.01)

    return wait
