"""The `millstream` command."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from millstream.contracts.times import from_datetime
from millstream.errors import MillstreamError
from millstream.project import BadProject, Project, load_project
from millstream.project.duration import from_text
from millstream_cli.interrupt import Interrupted, interruptible
from millstream_cli.lake_commands import lake_app

app = typer.Typer(
    help="A machine-learning loop on an event stream: events in, features, predictions, drift, retraining.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.add_typer(lake_app, name="lake")

FLIGHTS = Path("examples/flights")
HOME = Path(".millstream")
T = TypeVar("T")

ProjectOption = Annotated[Path, typer.Option("--project", "-p", help="Folder with streams/, features/ and loops/.")]
UntilOption = Annotated[str | None, typer.Option(help="Stop at this day (UTC) of the recording, like 2013-04-01.")]
SinceOption = Annotated[
    str | None, typer.Option(help="Begin at this day (UTC). Default: where the last replay into this mill ended.")
]
TickOption = Annotated[str, typer.Option(help="Step of the simulated clock: 15m, 1h. Smaller is fresher and slower.")]
DetachOption = Annotated[bool, typer.Option("--detach", "-d", help="In the background; stop with: millstream down.")]
FreshOption = Annotated[bool, typer.Option("--fresh", help="Forget everything that an earlier mill kept.")]
DataOption = Annotated[
    Path, typer.Option("--data", envvar="MILLSTREAM_HOME", help="Folder for everything that a mill here keeps.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of a table.")]


def _fail(error: BaseException) -> typer.Exit:
    print(f"millstream: {error}", file=sys.stderr)
    return typer.Exit(2 if isinstance(error, BadProject) else 1)


def _project(path: Path) -> Project:
    try:
        return load_project(path)
    except BadProject as error:
        raise _fail(error) from error


def _moment(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no date; write it like 2013-04-01") from error
    return from_datetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _tick(text: str) -> int:
    try:
        found = from_text(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if found <= 0:
        raise typer.BadParameter("a tick takes time; write 15m or 1h")
    return found


@app.command()
def check(
    path: Annotated[Path, typer.Argument(help="The project to check.")] = FLIGHTS,
    lake: Annotated[
        str | None, typer.Option(help="Also whether this lake (folder, s3://…) can keep the events.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a project: every mistake with file, line and what to write instead.

    Example:  millstream check examples/flights
    """
    from millstream_cli.check import check as run

    with _interruptible():
        raise typer.Exit(run(path, as_json, lake))


@app.command()
def demo(
    project: ProjectOption = FLIGHTS,
    until: UntilOption = None,
    tick: TickOption = "1h",
    out: Annotated[Path, typer.Option(help="Folder for demo.json.")] = Path("out"),
    data: DataOption = HOME,
    as_json: JsonOption = False,
) -> None:
    """Replay a recording through the whole loop on this machine: real Kafka, real Valkey, five services.

    Example:  millstream demo --until 2013-04-01
    """
    from millstream_cli.demo import demo as run

    found = _project(project)
    console = Console(stderr=as_json)
    with _interruptible():
        figures = _run(
            run(project=found, root=data / "demo", out=out, tick=_tick(tick), until=_moment(until), console=console)
        )
    if as_json:
        print(json.dumps(figures, indent=2, default=str))
    if figures["broken_promises"]:
        raise typer.Exit(1)


@app.command()
def up(
    project: ProjectOption = FLIGHTS,
    detach: DetachOption = False,
    fresh: FreshOption = False,
    data: DataOption = HOME,
) -> None:
    """Start the embedded servers and the five services, and keep them running. Data stays for the next time.

    Example:  millstream up --detach && millstream status
    """
    from millstream_cli.up import detached, foreground

    found = _project(project)
    with _interruptible():
        if detach:
            detached(project, data, fresh, Console())
        else:
            _run(foreground(found, data / "up", fresh, Console()))


@app.command()
def down(data: DataOption = HOME) -> None:
    """Stop what `millstream up --detach` started."""
    from millstream_cli.up import stop

    with _interruptible():
        stop(data / "up", Console())


@app.command()
def status(data: DataOption = HOME, as_json: JsonOption = False) -> None:
    """Say how a running mill gets on: services, lag, loops and their champions."""
    from millstream_cli.status import status as run

    with _interruptible():
        _run(run(data / "up", Console(), as_json))


@app.command()
def replay(
    project: ProjectOption = FLIGHTS,
    until: UntilOption = None,
    since: SinceOption = None,
    tick: TickOption = "1h",
    kafka: Annotated[str | None, typer.Option(help="Kafka of a mill elsewhere; with --ingest and --serving.")] = None,
    ingest: Annotated[str | None, typer.Option(help="Address of its ingest, like http://ingest:8080.")] = None,
    serving: Annotated[str | None, typer.Option(help="Address of its serving.")] = None,
    data: DataOption = HOME,
) -> None:
    """Send a project's recording through a running mill, along a simulated clock.

    Goes on where the last one into this mill ended.

    Example:  millstream up --detach && millstream replay --until 2013-02-01
    """
    from millstream_cli.replaying import Span, replay_into, target_of

    found = _project(project)
    with _interruptible():
        target = target_of(data / "up", kafka=kafka, ingest=ingest, serving=serving)
        span = Span(tick=_tick(tick), since=_moment(since), until=_moment(until))
        _run(replay_into(found, target, span, Console()))


@app.command()
def topics(
    project: ProjectOption = FLIGHTS,
    kafka: Annotated[str, typer.Option(help="Bootstrap servers.")] = "127.0.0.1:9092",
) -> None:
    """Create the topics that a project needs, where they are missing. Existing ones stay as they are.

    Example:  millstream topics --project examples/flights --kafka localhost:9092
    """
    from millstream.runtime.topic_admin import ensure_topics
    from millstream_cli.topics import topics_of

    specs = topics_of(_project(project))
    with _interruptible():
        created = _run(ensure_topics(kafka, specs))
    print(f"{len(created)} created, {len(specs) - len(created)} were there")


class _interruptible:
    """Turns our own errors, Ctrl-C and SIGTERM into a message and an exit status."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KeyboardInterrupt):
            error = Interrupted(signal.SIGINT)
        if isinstance(error, Interrupted):
            print(f"millstream: {error}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from error
        if error is not None and _is_ours(error):
            raise _fail(error) from error


def _is_ours(error: BaseException) -> bool:
    from millstream.testing.errors import EmbeddedError

    # OSError: a folder that cannot be written; its message names the path.
    return isinstance(error, MillstreamError | EmbeddedError | OSError)


def _run(work: Coroutine[Any, Any, T]) -> T:
    import gc

    import uvloop

    # A year has 300,000 answers, and collecting again and again among them takes a fifth of the summary's time.
    gc.set_threshold(50_000, 20, 100)
    return uvloop.run(interruptible(work))


if __name__ == "__main__":
    app()
