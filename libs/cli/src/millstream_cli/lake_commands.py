"""`millstream lake`: what a lake holds, and what keeps it quick and small. Safe while the mill is running."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from millstream.contracts.times import to_rfc3339
from millstream.errors import MillstreamError
from millstream.project.duration import from_text, to_timedelta
from millstream_cli.errors import CommandFailed
from millstream_cli.shell import HOME, DataOption, JsonOption, screen

if TYPE_CHECKING:
    from millstream_tiles.lake import Lake
    from millstream_tiles.lake_tables import TableState

GROUP = "features-lake"
"""Consumer group of features that fills the lake; the positions are its where no other is named."""

LAKE = typer.Option("--lake", help="Folder or s3://bucket/prefix (credentials: AWS_… variables).")
LakeOption = Annotated[str | None, LAKE]
StreamOption = Annotated[
    list[str] | None, typer.Option("--stream", "-s", help="Only this stream; may be given again. Default: all.")
]
AfterData = Annotated[
    Path | None,
    typer.Option("--data", help="Folder for everything that a mill here keeps. Default: as before the word."),
]

lake_app = typer.Typer(invoke_without_command=True)


@lake_app.callback()
def show(
    context: typer.Context,
    lake: Annotated[
        str | None,
        typer.Option("--lake", envvar="MILLSTREAM_LAKE", help=f"{LAKE.help} Default: that of the mill in --data."),
    ] = None,
    stream: StreamOption = None,
    group: Annotated[
        str,
        typer.Option("--group", help="Whose offsets: the name that the writer of a lake of your own appends under."),
    ] = GROUP,
    data: DataOption = HOME,
    as_json: JsonOption = False,
) -> None:
    """What the lake holds: rows, files, size, newest event, and how far each partition is. Nothing is read but the log.

    Example:  millstream lake --lake s3://my-bucket/lake --group my-writer
    """
    context.obj = lake or _lake_in(data)
    if context.invoked_subcommand is not None:
        return
    with _told():
        from millstream_tiles.lake_tables import state_of

        found = _lake(context, None)
        states = [state for name in _streams(found, stream) if (state := state_of(found, name, group)) is not None]
    if as_json:
        said = {"lake": found.uri, "group": group, "tables": [asdict(state) for state in states]}
        print(json.dumps(said, indent=2, default=_moment))
        return
    console = screen()
    console.print(_table(states))
    if no_offsets := [state.stream for state in states if state.rows and not state.positions]:
        console.print(
            f"group {group} has no offsets in {', '.join(no_offsets)}; name the group of whoever writes: --group",
            soft_wrap=True,
        )
    if small := [state.stream for state in states if state.small_files > 16 * state.dates]:
        console.print(f"many small files: millstream lake compact -s {' -s '.join(small)}", soft_wrap=True)


@lake_app.command()
def compact(
    context: typer.Context,
    lake: LakeOption = None,
    stream: StreamOption = None,
    data: AfterData = None,
    as_json: JsonOption = False,
) -> None:
    """Join the small files of each date into one. Rows, positions and whoever reads or writes meanwhile are not touched.

    A date that is written all the time while we try is left for the next time. What is replaced stays until a vacuum.

    Example:  millstream lake compact --stream flights-departed
    """
    done: list[dict[str, Any]] = []
    with _told(), _progress() as progress:
        from millstream_tiles.lake_upkeep import compact as run

        found = _lake(context, lake, data)
        for name in _streams(found, stream):
            bar = progress.add_task(name, total=None)
            result = run(found, name, told=_moves(progress, bar))
            done.append({"stream": name, **asdict(result)})
    _report(done, as_json, lambda one: f"{one['files']:,} files of {one['dates']:,} dates joined, {one['left']:,} left")


@lake_app.command()
def vacuum(
    context: typer.Context,
    lake: LakeOption = None,
    stream: StreamOption = None,
    older_than: Annotated[
        str, typer.Option(help="Keep what was in use this long ago: readers that began then may still read it.")
    ] = "7d",
    idle: Annotated[
        bool, typer.Option("--idle", help="Nobody reads or writes the lake now: allows less than a day.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which files would go.")] = False,
    data: AfterData = None,
    as_json: JsonOption = False,
) -> None:
    """Delete files that no version of the last days uses: what compactions replaced, what killed writers left.

    No row that can be read today is in them; older versions of a table (time travel) go with them.

    Example:  millstream lake vacuum --dry-run
    """
    try:
        age = to_timedelta(from_text(older_than))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    done: list[dict[str, Any]] = []
    with _told(), _progress() as progress:
        from millstream_tiles.lake_upkeep import vacuum as run

        found = _lake(context, lake, data)
        names = _streams(found, stream)
        bar = progress.add_task("tables", total=len(names))
        for name in names:
            progress.update(bar, description=name)
            files = run(found, name, older_than=age, dry_run=dry_run, idle=idle)
            progress.advance(bar)
            done.append({"stream": name, "deleted": not dry_run, "files": sorted(files)})
    says = "would be deleted" if dry_run else "deleted"
    _report(done, as_json, lambda one: "\n  ".join([f"{len(one['files']):,} files {says}", *one["files"] * dry_run]))


def _lake(context: typer.Context, uri: str | None, data: Path | None = None) -> Lake:
    """The lake named after the sub-command, or the mill's there, or the one named before it, or the mill's."""
    from millstream_tiles.lake import Lake

    return Lake(uri or (context.obj if data is None else _lake_in(data)))


def _lake_in(data: Path) -> str:
    return str(data / "up" / "lake")


def _streams(lake: Lake, wanted: Sequence[str] | None) -> list[str]:
    from millstream_tiles.lake_tables import streams_of

    there = streams_of(lake)
    if missing := sorted(set(wanted or ()) - set(there)):
        raise CommandFailed(f"lake {lake.uri}: no table {', '.join(missing)}; found: {', '.join(there) or 'none'}")
    return [name for name in there if not wanted or name in wanted]


def _table(states: Sequence[TableState]) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for column in ("stream", "rows", "dates", "files", "size", "newest event", "offsets"):
        number = column in ("rows", "dates", "files", "size")
        table.add_column(column, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for state in states:
        newest = "" if state.newest_event is None else f"{state.newest_event:%Y-%m-%d %H:%M:%S}"
        places = ", ".join(f"{partition}: {offset:,}" for partition, offset in state.positions.items())
        size = f"{state.bytes / 1e6:,.1f} MB"
        table.add_row(state.stream, f"{state.rows:,}", f"{state.dates:,}", f"{state.files:,}", size, newest, places)
    return table


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _moves(progress: Progress, bar: TaskID) -> Callable[[int, int], None]:
    """What moves `bar`; a table without anything to do is done at once."""
    return lambda done, of: progress.update(bar, completed=done if of else 1, total=of or 1)


def _report(done: Sequence[dict[str, Any]], as_json: bool, line: Any) -> None:
    if as_json:
        print(json.dumps(done, indent=2))
    else:
        for one in done:
            print(f"{one['stream']}: {line(one)}")


def _moment(value: datetime) -> str:
    return to_rfc3339(int(value.timestamp() * 1_000_000))


@contextmanager
def _told() -> Iterator[None]:
    """What goes wrong as one line and an exit status. Whatever was done stays done: each date is a commit of its own."""
    from millstream_tiles.errors import TilesError

    try:
        yield
    except (TilesError, MillstreamError, OSError) as error:
        print(f"millstream: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        print("millstream: stopped; what was done stays done", file=sys.stderr)
        raise typer.Exit(128 + signal.SIGINT) from error
