"""`millstream backtest`: what a loop would have done under other policies, over a mill's lake or a recording."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console
from rich.text import Text

from millstream.contracts.times import to_rfc3339
from millstream.project import Project
from millstream_cli.errors import CommandFailed
from millstream_cli.recording import Recording, load_recording
from millstream_cli.shell import screen


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What was typed. Times are microseconds."""

    policies: Sequence[Path]
    since: int | None
    until: int | None
    tick: int
    lake: str | None
    chart: Path | None


def backtest(project: Project, loop: str, asked: Asked, root: Path, console: Console, as_json: bool) -> None:
    """Replay every policy and print its figures. `root` is the folder for everything that a mill here keeps.

    Raises CommandFailed, BacktestFailed.
    """
    try:
        from millstream_backtest.backtest import Recorded, Wanted
        from millstream_backtest.backtest import backtest as run
        from millstream_backtest.chart import draw
        from millstream_backtest.policies import read_policies
        from millstream_backtest.view import bars, legend, table, unlike
    except ModuleNotFoundError as error:
        raise CommandFailed(
            f"a backtest trains models, and {error.name} is not installed: pip install millstream-backtest"
        ) from error
    policies = read_policies(project, loop, asked.policies)
    source = asked.lake or _lake_of_a_mill(project, root)
    recording: Recording | None = None
    if source is None:
        recording = load_recording(project)
    wanted = Wanted(
        tick=asked.tick,
        since=asked.since,
        until=asked.until,
        scored_from=None if recording is None else recording.scored_from,
        zone="UTC" if recording is None else recording.time_zone,
    )
    told = f"the recording of {project.path}" if source is None else f"the lake {source}"
    console.print(f"[dim]backtest of {loop} over {told}[/dim]")
    with bars(console) as shown:
        found = run(
            project,
            policies,
            source or Recorded(events=recording.events if recording is not None else {}),
            wanted,
            folder=root / "backtest",
            say=lambda text: console.print(f"[dim]{text}[/dim]"),
            hear=shown.hear,
        )
    if asked.chart is not None:
        draw(found, asked.chart)
        console.print(f"[dim]loss by month: {asked.chart}[/dim]")
    if as_json:
        scored = None if wanted.scored_from is None else to_rfc3339(wanted.scored_from)
        said = {"loop": loop, "source": told, "scored_from": scored, "policies": msgspec.to_builtins(found)}
        print(json.dumps(said, indent=2))
    else:
        screen().print(table(found))
        screen().print(f"[dim]{legend(wanted.scored_from)}[/dim]")
        if different := unlike(found):
            screen().print(Text(different, style="yellow"), soft_wrap=True)


def _lake_of_a_mill(project: Project, root: Path) -> str | None:
    """Of `millstream up` in `root`, running or stopped; None where it has nothing of the project's streams."""
    lake = root / "up" / "lake"
    return str(lake) if any((lake / stream).is_dir() for stream in project.streams) else None
