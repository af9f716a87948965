"""A replay with its view: what `millstream replay` and `millstream demo` share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from rich.console import Console

from millstream.project import Project
from millstream_cli.meters import Meters
from millstream_cli.replay import Addresses, Replay
from millstream_cli.story import Story
from millstream_cli.ticks import Tick, Ticks
from millstream_cli.view import ReplayView


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What is left of a replay besides the topics."""

    story: Story
    seconds: float
    spent: dict[str, float]
    """Seconds by what was waited for."""


async def run_replay(
    *,
    project: Project,
    ticks: Ticks,
    addresses: Addresses,
    console: Console,
    states: Callable[[], dict[str, str]],
    beside: Callable[[], Awaitable[None]] | None = None,
    on_tick: Callable[[Tick], None] = lambda tick: None,
) -> Replayed:
    """Send `ticks` through the mill at `addresses` while showing how it gets on. `beside` runs meanwhile (supervision); its
    failure ends the replay. Raises CommandFailed, Stuck."""
    for line in ticks.late(project.streams):
        console.print(line, style="yellow")
    meters = Meters(addresses.kafka, list(project.streams))
    several = len(project.loops) > 1
    view = ReplayView(console, ticks=len(ticks), states=states, readings=lambda: meters.readings, named=several)
    story = Story(addresses.kafka, on_event=view.told)

    def ticked(tick: Tick) -> None:
        view.ticked(tick)
        on_tick(tick)

    replay = Replay(
        project=project,
        ticks=ticks,
        addresses=addresses,
        story=story,
        on_tick=ticked,
        say=lambda line: console.print(line, style="yellow"),
    )
    began = time.perf_counter()
    helpers: list[asyncio.Future[None]] = []
    try:
        await story.start()
        helpers.append(asyncio.create_task(meters.run()))
        if beside is not None:
            helpers.append(asyncio.ensure_future(beside()))
        with view:
            await _first_failure(asyncio.create_task(replay.run()), helpers)
    finally:
        for helper in helpers:
            helper.cancel()
        for helper in helpers:
            with suppress(asyncio.CancelledError, Exception):
                await helper
        await story.stop()
    return Replayed(story=story, seconds=time.perf_counter() - began, spent=replay.spent.seconds)


async def _first_failure(work: asyncio.Task[None], helpers: list[asyncio.Future[None]]) -> None:
    """Wait for `work`; a helper that fails first takes it down."""
    try:
        done, _ = await asyncio.wait([work, *helpers], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task
        if not work.done():
            await work
    finally:
        if not work.done():
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work
