"""`millstream features …`: the windowed views of a mill, rebuilt, looked at, forgotten."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table as Lines

from millstream.contracts.times import to_rfc3339
from millstream.project import Project, load_project
from millstream_cli.errors import CommandFailed
from millstream_cli.mill import MillState
from millstream_tiles.definition import View
from millstream_tiles.errors import TilesError
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


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a mill keeps its features."""

    project: Project
    kafka: str
    valkey: str
    lake: str
    namespace: str
    shards: int | None = None

    @classmethod
    def of(
        cls,
        root: Path,
        *,
        project: Path | None,
        kafka: str | None,
        valkey: str | None,
        lake: str | None,
        namespace: str,
        shards: int | None,
    ) -> Place:
        """The mill elsewhere that is named in full, else the one that runs in `root`. Raises CommandFailed, BadProject."""
        if project and kafka and valkey and lake:
            found = load_project(project)
            return cls(project=found, kafka=kafka, valkey=valkey, lake=lake, namespace=namespace, shards=shards)
        if kafka or valkey or lake:
            raise CommandFailed("name a mill elsewhere in full: --project, --kafka, --valkey and --lake")
        state = MillState.load(root)
        found = load_project(project or Path(state.project))
        return cls(
            project=found, kafka=state.kafka, valkey=state.valkey, lake=state.lake, namespace=namespace, shards=shards
        )

    def views(self) -> dict[str, View]:
        """The windowed views as the project defines them. Imports Feast (seconds). Raises CommandFailed."""
        from millstream_tiles.registry import describe

        try:
            return dict(describe(self.project.path / "features").views)
        except TilesError as error:
            raise CommandFailed(str(error)) from error


async def rebuild(
    place: Place, names: list[str], *, since: int | None, anew: bool, console: Console, as_json: bool
) -> None:
    """Rebuild `names` (none: every view), those of one stream together. Raises CommandFailed, Stuck."""
    from millstream_cli.topic_log import TopicLog

    known = await asyncio.to_thread(place.views)
    if unknown := sorted(set(names) - set(known)):
        raise CommandFailed(f"no windowed view {unknown[0]!r} in features/; there are {', '.join(sorted(known))}")
    wanted = [known[name] for name in (dict.fromkeys(names) or sorted(known))]
    done: list[Rebuilt] = []
    store = ValkeyTileStore(place.valkey, place.namespace, place.shards)
    try:
        for stream in dict.fromkeys(view.stream for view in wanted):
            views = [view for view in wanted if view.stream == stream]
            async with TopicLog(place.kafka, place.project.streams, views) as topics:
                with Bar(", ".join(view.name for view in views), console) as bar:
                    work = Rebuild(
                        generations=Generations(store, TILES),
                        views=views,
                        lake=Lake(place.lake),
                        lake_group=LAKE,
                        topics=topics,
                        say=bar.step,
                    )
                    done.append(await work.run(since=since, anew=anew))
            _report(done[-1], console)
    except TilesError as error:
        raise CommandFailed(str(error)) from error
    except asyncio.CancelledError:
        console.print("stopped; the same command goes on where it was, and the live view is as it was", soft_wrap=True)
        raise
    finally:
        await store.close()
    if as_json:
        print(json.dumps({"rebuilt": [asdict(one) for one in done]}, indent=2))


async def forget(place: Place, name: str, console: Console) -> None:
    """Remove a view that the project does not define any more. Raises CommandFailed."""
    if name in await asyncio.to_thread(place.views):
        raise CommandFailed(f"{name} is defined in features/; remove it there and start features again first")
    store = ValkeyTileStore(place.valkey, place.namespace, place.shards)
    try:
        removed = await forget_view(Generations(store, TILES), name)
    except TilesError as error:
        raise CommandFailed(str(error)) from error
    finally:
        await store.close()
    console.print(f"{name} is forgotten: {removed:,} entities removed; its history stays in the lake", soft_wrap=True)


async def status(place: Place, console: Console, as_json: bool) -> None:
    """Every view with its generation, how many entities it has and what they weigh. Raises CommandFailed."""
    known = await asyncio.to_thread(place.views)
    store = ValkeyTileStore(place.valkey, place.namespace, place.shards)
    try:
        found = await states_of(Generations(store, TILES), known)
    except TilesError as error:
        raise CommandFailed(str(error)) from error
    finally:
        await store.close()
    if as_json:
        print(json.dumps({"views": [asdict(one) for one in found]}, indent=2))
        return
    lines = Lines(box=None, padding=(0, 2), header_style="dim")
    for column in ("view", "state", "generation", "entities", "memory", "known up to"):
        lines.add_column(column, justify="left" if column in ("view", "state", "known up to") else "right")
    for one in found:
        lines.add_row(*_cells(one))
    console.print(lines)
    for one in found:
        if one.remedy:
            console.print(f"{one.view}: {one.remedy}", soft_wrap=True, highlight=False)


def _cells(one: ViewState) -> tuple[str, ...]:
    time = to_rfc3339(one.stream_time) if one.stream_time else "nothing yet"
    generation = str(one.generation or "none") + (f" (coming: {one.coming})" if one.coming else "")
    return one.view, one.state, generation, f"{one.entities:,}", f"{one.bytes / 2**20:,.1f} MiB", time


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
