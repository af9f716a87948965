"""`millstream features …`: the windowed views of a mill, rebuilt, looked at, forgotten."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table as Lines

from millstream.contracts.times import to_rfc3339
from millstream.project import Project
from millstream_cli.errors import CommandFailed
from millstream_cli.place import Place
from millstream_tiles.definition import View
from millstream_tiles.generations import Generations
from millstream_tiles.lake import Lake
from millstream_tiles.rebuild import Progress as Step
from millstream_tiles.rebuild import Rebuild, Rebuilt
from millstream_tiles.standings import ViewState, states_of
from millstream_tiles.sweep import forget_view
from millstream_tiles.tile_store import ValkeyTileStore

TILES, LAKE = "features-tiles", "features-lake"
"""The consumer groups of the features service."""
PLAIN_EVERY = 10.0
"""Seconds between lines where the output is no terminal."""


class Features:
    """The windowed views of the mill at `place`. Its methods raise CommandFailed, Stuck, TilesError."""

    def __init__(self, place: Place, project: Project, shards: int | None = None) -> None:
        self._place = place
        self._project = project
        self._store = ValkeyTileStore(place.valkey, place.namespace, shards)
        self._generations = Generations(self._store, TILES)

    async def rebuild(
        self, names: list[str], *, since: int | None, anew: bool, console: Console, as_json: bool
    ) -> None:
        """Rebuild `names` (none: every view), those of one stream together."""
        from millstream_cli.topic_log import TopicLog

        known = await self._views()
        if unknown := sorted(set(names) - set(known)):
            raise CommandFailed(f"no windowed view {unknown[0]!r} in features/; there are {', '.join(sorted(known))}")
        wanted = [known[name] for name in (dict.fromkeys(names) or sorted(known))]
        done: list[Rebuilt] = []
        try:
            for stream in dict.fromkeys(view.stream for view in wanted):
                views = [view for view in wanted if view.stream == stream]
                readers = [view for view in known.values() if view.stream == stream]
                async with TopicLog(self._place.kafka, self._project.streams, views, readers) as topics:
                    with Bar(", ".join(view.name for view in views), console) as bar:
                        work = Rebuild(
                            generations=self._generations,
                            views=views,
                            lake=Lake(self._place.lake),
                            lake_group=LAKE,
                            topics=topics,
                            say=bar.step,
                        )
                        done.append(await work.run(since=since, anew=anew))
                _report(done[-1], console)
        finally:
            await self._store.close()
        if as_json:
            print(json.dumps({"rebuilt": [asdict(one) for one in done]}, indent=2))

    async def forget(self, name: str, console: Console, as_json: bool) -> None:
        """Remove a view that the project does not define any more."""
        try:
            if name in await self._views():
                raise CommandFailed(f"{name} is defined in features/; remove it there and start features again first")
            removed = await forget_view(self._generations, name)
        finally:
            await self._store.close()
        if as_json:
            print(json.dumps({"view": name, "keys_removed": removed}))
            return
        said = f"{name} is forgotten: {removed:,} keys removed; its history stays in the lake"
        console.print(said, soft_wrap=True)

    async def status(self, console: Console, as_json: bool) -> None:
        """Every view with its generation, how many keys it has in the store and what they weigh."""
        try:
            found = await states_of(self._generations, await self._views())
        finally:
            await self._store.close()
        if as_json:
            print(json.dumps({"views": [asdict(one) for one in found]}, indent=2))
            return
        lines = Lines(box=None, padding=(0, 2), header_style="dim")
        for column in ("view", "state", "generation", "keys", "memory", "known up to"):
            words = column in ("view", "state", "known up to")
            lines.add_column(column, justify="left" if words else "right", overflow="fold")
        for one in found:
            lines.add_row(*_cells(one))
        console.print(lines)
        for one in found:
            if one.remedy:
                console.print(f"{one.view}: {one.remedy}", soft_wrap=True, highlight=False)

    async def _views(self) -> dict[str, View]:
        """The windowed views as the project defines them. Imports Feast (seconds)."""
        from millstream_tiles.registry import describe

        return dict((await asyncio.to_thread(describe, self._project.path / "features")).views)


def _cells(one: ViewState) -> tuple[str, ...]:
    time = to_rfc3339(one.stream_time) if one.stream_time else "nothing yet"
    if not one.generation:  # its stream's time says nothing of it
        time = "not filled"
    generation = str(one.generation or "none") + (f" (coming: {one.coming})" if one.coming else "")
    return one.view, one.state, generation, f"{one.keys:,}", f"{one.bytes / 2**20:,.1f} MiB", time


def _report(done: Rebuilt, console: Console) -> None:
    said = f"{', '.join(done.views)}: {done.events:,} events in {done.seconds:.1f} s"
    console.print(
        f"{said} ({done.events / max(done.seconds, 1e-9):,.0f} events/s); now read from generation {done.generation}"
    )
    if done.lost:
        console.print(f"{done.lost:,} offsets are neither in the lake nor in Kafka any more", style="yellow")
    if done.whole_from is not None:
        console.print(f"--since cut into windows: they are whole from {to_rfc3339(done.whole_from)} on", style="yellow")


class Bar:
    """How far a rebuild is: a bar on a terminal, a line every ten seconds elsewhere. Use as a context manager."""

    def __init__(self, what: str, console: Console) -> None:
        self._what = what
        self._console = console
        self._clock = asyncio.get_running_loop().time
        self._began = self._drawn = self._clock()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]} events/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task(what, total=None, rate="…")

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def step(self, step: Step) -> None:
        now = self._clock()
        rate = f"{step.done / max(now - self._began, 1e-9):,.0f}"
        said = f"{self._what}, from the {step.reading}"
        self._bar.update(self._task, description=said, completed=step.done, total=step.total, rate=rate)
        if not self._console.is_terminal and now - self._drawn >= PLAIN_EVERY:
            self._drawn = now
            self._console.print(f"{said}: {step.done:,} of {step.total:,} events, {rate} events/s")
