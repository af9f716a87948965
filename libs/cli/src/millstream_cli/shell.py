"""What every command shares: its options, and how errors and signals end it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from millstream.contracts.times import from_datetime
from millstream.errors import BadSetup, MillstreamError
from millstream.project import BadProject, Project, load_project
from millstream_cli.interrupt import Interrupted, interruptible

FLIGHTS = Path("examples/flights")
HOME = Path(".millstream")
T = TypeVar("T")

ProjectOption = Annotated[Path, typer.Option("--project", "-p", help="Folder with streams/, features/ and loops/.")]
DataOption = Annotated[
    Path, typer.Option("--data", envvar="MILLSTREAM_HOME", help="Folder for everything that a mill here keeps.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of a table.")]


WIDE = 4096
"""Columns of a line in a pipe: longer than any line that we print, for a program reads it, and nothing may be cut."""


def screen(*, beside: bool = False) -> Console:
    """As wide as the terminal; in a pipe as wide as what is printed. `beside` standard output: on standard error."""
    console = Console(stderr=beside)
    return console if console.is_terminal else Console(stderr=beside, width=WIDE)


def fail(error: BaseException) -> typer.Exit:
    """Says what went wrong; raise what it returns."""
    print(f"millstream: {error}", file=sys.stderr)
    return typer.Exit(2 if isinstance(error, BadProject | BadSetup) else 1)


def load(path: Path) -> Project:
    """The project, or the end of the command with every mistake."""
    try:
        return load_project(path)
    except BadProject as error:
        raise fail(error) from error


def moment_of(text: str | None) -> int | None:
    """Microseconds of a date or time as a person writes it; without an offset it is UTC."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no date; write it like 2013-04-01 or 2013-04-01T12:30") from error
    return from_datetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


class guarded:
    """Turns our own errors, Ctrl-C and SIGTERM into a message and an exit status. `kept` is said to who stops the command."""

    def __init__(self, kept: str = "") -> None:
        self._kept = kept

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KeyboardInterrupt):
            error = Interrupted(signal.SIGINT)
        if isinstance(error, Interrupted):
            print(f"millstream: {error}{f'; {self._kept}' if self._kept else ''}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from error
        if error is not None and _is_ours(error):
            raise fail(error) from error


def _is_ours(error: BaseException) -> bool:
    from millstream.testing.errors import EmbeddedError
    from millstream_tiles.errors import TilesError

    # OSError: a folder that cannot be written; its message names the path.
    return isinstance(error, MillstreamError | EmbeddedError | TilesError | OSError)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine until it is done or interrupted."""
    import gc

    import uvloop

    # A year has 300,000 answers, and collecting again and again among them takes a fifth of the summary's time.
    gc.set_threshold(50_000, 20, 100)
    return uvloop.run(interruptible(work))
