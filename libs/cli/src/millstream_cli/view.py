"""What one watches during a replay: a bar for the stream's time, a line a service, retrains and swaps as they happen."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from millstream.contracts.events import (
    Finding,
    ModelState,
    RetrainDecided,
    RolloutMoved,
    TrainingFinished,
    WindowCorrected,
    WindowJudged,
    WindowSkipped,
)
from millstream.contracts.times import to_datetime
from millstream_cli.journal import Told
from millstream_cli.meters import Reading
from millstream_cli.steps import step_of
from millstream_cli.ticks import Tick

PLAIN_EVERY = 10.0
"""Seconds between lines where the output is no terminal."""


def line_of(told: Told, answering: dict[str, str], *, named: bool = False) -> str | None:
    """One line of news, or None for what is not news. `answering`: the version of each loop told last; kept here. `named`: the
    line says which loop it is about, as it must where there are several."""
    news = _news(told, answering)
    if news is None:
        return None
    at, who, says = news
    return f"{at:%Y-%m-%d %H:%M}  {who:<8} {f'{told.loop}: ' if named else ''}{says}"


def _news(told: Told, answering: dict[str, str]) -> tuple[datetime, str, str] | None:
    event = told.event
    if isinstance(event, WindowJudged) and event.finding not in (Finding.HEALTHY, Finding.SUSPECTED):
        return event.at, "drift", f"{event.finding}: {event.reason}"
    if isinstance(event, WindowCorrected) and event.finding is not event.was:
        return event.at, "drift", f"corrected: {event.reason}"
    if isinstance(event, WindowSkipped):
        return event.at, "drift", f"window {event.index}: {event.reason}"
    if isinstance(event, RetrainDecided):
        return event.at, "trainer", f"{event.decision} ({event.cause}): {event.reason}"
    if isinstance(event, TrainingFinished):
        version = f" version {event.version}" if event.version else ""
        return event.at, "trainer", f"{event.outcome}{version} after {event.seconds:.1f} s: {event.reason}"
    if isinstance(event, RolloutMoved):
        return event.at, "rollout", f"version {event.version}: {step_of(event.step, event.share)}: {event.reason}"
    # Not while it is promoted: the state in which all replicas obey follows, whatever a person holds meanwhile.
    if isinstance(event, ModelState) and event.champion and not event.promoting:
        version = event.champion.version
        if answering.get(event.loop) != version:
            answering[event.loop] = version
            return event.at, "serving", f"champion is version {version}"
    return None


class ReplayView:
    """Live on a terminal, a line every ten seconds elsewhere. Use as a context manager."""

    def __init__(
        self,
        console: Console,
        *,
        ticks: int,
        states: Callable[[], dict[str, str]],
        readings: Callable[[], Mapping[str, Reading]],
        named: bool = False,
    ) -> None:
        """`states` says of each service whether it runs; `readings` how it gets on; `named`: see `line_of`."""
        self._named = named
        self._console = console
        self._states = states
        self._readings = readings
        self._began = time.monotonic()
        self._drawn = 0.0
        self._events = 0
        self._answering: dict[str, str] = {}
        self._clock = "…"
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("ticks"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task("replay", total=ticks)
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> ReplayView:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def told(self, told: Told) -> None:
        line = line_of(told, self._answering, named=self._named)
        if line is None:
            return
        # News stays on the page above the live part.
        self._console.print(
            Text(line, style="cyan" if isinstance(told.event, ModelState) else ""), soft_wrap=True, highlight=False
        )

    def ticked(self, tick: Tick) -> None:
        self._progress.advance(self._task)
        self._events += tick.size
        self._clock = f"{to_datetime(tick.end):%Y-%m-%d %H:%M}"
        now = time.monotonic()
        if now - self._drawn < (0.25 if self._live else PLAIN_EVERY):
            return
        self._drawn = now
        if self._live:
            self._progress.update(self._task, description=self._clock)
            self._live.update(self._page(), refresh=True)
        else:
            done = self._progress.tasks[0]
            self._console.print(
                f"{self._clock}  {done.completed:.0f}/{done.total:.0f} ticks, {self._rate():,.0f} events/s"
            )

    def _rate(self) -> float:
        return self._events / max(1e-9, time.monotonic() - self._began)

    def _page(self) -> RenderableType:
        table = Table(box=None, padding=(0, 2), show_header=True, header_style="dim")
        table.add_column("service")
        table.add_column("state")
        table.add_column("events/s", justify="right")
        table.add_column("lag", justify="right")
        readings = self._readings()
        for name, state in self._states().items():
            reading = readings.get(name)
            rate, lag = (f"{reading.rate:,.0f}", f"{reading.lag:,}") if reading else ("…", "…")
            table.add_row(name, state, rate, lag)
        return Group(self._progress, table)
