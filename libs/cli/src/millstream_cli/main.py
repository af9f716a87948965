"""The `millstream` command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from millstream.project.duration import from_text
from millstream_cli.dlq_commands import dlq_app
from millstream_cli.export_commands import export
from millstream_cli.features_commands import (
    AnyProject,
    KafkaOption,
    LakeOption,
    NamespaceOption,
    ValkeyOption,
    features_app,
)
from millstream_cli.keys_commands import keys_app
from millstream_cli.lake_commands import lake_app
from millstream_cli.loop_commands import add_to as add_loop_commands
from millstream_cli.scaling_commands import scaling_app
from millstream_cli.score_commands import score
from millstream_cli.shell import FLIGHTS, HOME, DataOption, JsonOption, ProjectOption, screen
from millstream_cli.shell import guarded as _interruptible
from millstream_cli.shell import load as _project
from millstream_cli.shell import moment_of as _moment
from millstream_cli.shell import run as _run

app = typer.Typer(
    help="A machine-learning loop on an event stream: events in, features, predictions, drift, retraining.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.add_typer(lake_app, name="lake")
app.add_typer(features_app, name="features")
app.add_typer(dlq_app, name="dlq")
app.add_typer(keys_app, name="keys")
app.add_typer(scaling_app, name="scaling")

UntilOption = Annotated[str | None, typer.Option(help="Stop at this day (UTC) of the recording, like 2013-04-01.")]
SinceOption = Annotated[
    str | None, typer.Option(help="Begin at this day (UTC). Default: where the last replay into this mill ended.")
]
TickOption = Annotated[str, typer.Option(help="Step of the simulated clock: 15m, 1h. Smaller is fresher and slower.")]
DetachOption = Annotated[bool, typer.Option("--detach", "-d", help="In the background; stop with: millstream down.")]
FreshOption = Annotated[bool, typer.Option("--fresh", help="Forget everything that an earlier mill kept.")]


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
    against: Annotated[
        str | None,
        typer.Option(
            help="Also what the streams' schemas break of those at this git ref, folder, or ingest's address."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a project: every mistake with file, line and what to write instead.

    Example:  millstream check examples/flights

    Example:  millstream check examples/flights --against main
    """
    from millstream_cli.check import check as run

    with _interruptible():
        raise typer.Exit(run(path, as_json, lake, against))


@app.command()
def keep(
    streams: Annotated[list[str] | None, typer.Argument(help="Streams. Default: all.")] = None,
    project: ProjectOption = FLIGHTS,
) -> None:
    """Write down what the schemas of streams are, as a version beside each stream's file: before you change them.

    `millstream check` then says what a change breaks, and ingest answers for every version.

    Example:  millstream keep flights-departed
    """
    from millstream.project.versions import keep as write

    found = _project(project)
    for name in streams or sorted(found.streams):
        if name not in found.streams:
            raise typer.BadParameter(f"no stream {name!r}; known: {', '.join(sorted(found.streams))}")
        with _interruptible():
            file = write(found.path, found.streams[name])
        print(f"{name}: {'the last version says the same' if file is None else f'wrote {file}'}")


@app.command()
def asyncapi(project: ProjectOption = FLIGHTS) -> None:
    """Print the AsyncAPI 3 document of a project's topics: its streams, and what the services say.

    Example:  millstream asyncapi --project examples/flights > asyncapi.json
    """
    from millstream.contracts.asyncapi import asyncapi as document

    print(json.dumps(document(_project(project).streams), indent=2))


@app.command()
def demo(
    project: ProjectOption = FLIGHTS,
    until: UntilOption = None,
    tick: TickOption = "1h",
    out: Annotated[Path, typer.Option(help="Folder for demo.json and journal.jsonl.")] = Path("out"),
    data: DataOption = HOME,
    as_json: JsonOption = False,
) -> None:
    """Replay a recording through the whole loop on this machine: real Kafka, real Valkey, five services.

    Example:  millstream demo --until 2013-04-01

    Example:  millstream demo --project examples/bikes
    """
    from millstream_cli.demo import demo as run

    found = _project(project)
    console = screen(beside=as_json)
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
    project: Annotated[
        Path | None,
        typer.Option(
            "--project",
            "-p",
            help="Folder with streams/, features/ and loops/. Default: the project whose data --data holds, else the flights.",
        ),
    ] = None,
    detach: DetachOption = False,
    fresh: FreshOption = False,
    data: DataOption = HOME,
) -> None:
    """Start the embedded servers and the five services, and keep them running. Data stays for the next time.

    Example:  millstream up --detach && millstream status
    """
    from millstream_cli.up import detached, foreground, kept_project, warning

    with _interruptible():
        path = project or kept_project(data / "up") or FLIGHTS
        found = _project(path)
        if not fresh and (said := warning(data / "up", path)):
            screen().print(f"[yellow]{said}[/yellow]", soft_wrap=True)
        if detach:
            detached(path, data, fresh, Console())
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
        _run(run(data / "up", screen(), as_json))


@app.command()
def replay(
    project: AnyProject = None,
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

    given = None if project is None else _project(project)
    with _interruptible():
        target = target_of(data / "up", project=project, kafka=kafka, ingest=ingest, serving=serving)
        found = given or _project(target.project or FLIGHTS)
        span = Span(tick=_tick(tick), since=_moment(since), until=_moment(until))
        _run(replay_into(found, target, span, Console()))


@app.command()
def skew(
    loop: Annotated[str, typer.Argument(help="A loop of the project, like flight-delay.")],
    rows: Annotated[int, typer.Option(min=1, max=1000, help="The worst differences to show and explain.")] = 10,
    sample: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Predictions to compute again, evenly chosen.")
    ] = 2000,
    since: Annotated[str | None, typer.Option(help="Only questions asked at this time (UTC) or later.")] = None,
    project: AnyProject = None,
    kafka: KafkaOption = None,
    lake: LakeOption = None,
    valkey: ValkeyOption = None,
    namespace: NamespaceOption = "millstream",
    data: DataOption = HOME,
    as_json: JsonOption = False,
) -> None:
    """Compare the features that a model was given with the lake's: the worst rows, and the events that explain them.

    Ends with status 1 when more predictions differ than the loop's drift.skew.bound allows.

    Example:  millstream skew flight-delay --rows 5 --since 2013-03-01
    """
    from millstream_cli.place import place_of
    from millstream_cli.skew import skew as run

    with _interruptible():
        place = place_of(data / "up", project=project, kafka=kafka, lake=lake, valkey=valkey, namespace=namespace)
        found = _project(place.project)
        console = screen(beside=as_json)
        kept = _run(
            run(found, place, loop, rows=rows, sample=sample, since=_moment(since), console=console, as_json=as_json)
        )
    if not kept:
        raise typer.Exit(1)


@app.command()
def backtest(
    loop: Annotated[str, typer.Argument(help="A loop of the project, like flight-delay.")],
    policy: Annotated[
        list[Path] | None,
        typer.Option(help="A loop file to try, as often as you like; what the project has is always tried."),
    ] = None,
    since: Annotated[str | None, typer.Option("--from", help="Begin at this day (UTC), without a model.")] = None,
    until: UntilOption = None,
    tick: TickOption = "1h",
    lake: Annotated[
        str | None,
        typer.Option(help="A lake (folder, s3://…). Default: that of the mill in --data, else the recording."),
    ] = None,
    chart: Annotated[Path | None, typer.Option(help="Draw the loss by month into this file (SVG).")] = None,
    project: ProjectOption = FLIGHTS,
    data: DataOption = HOME,
    as_json: JsonOption = False,
) -> None:
    """What a loop would have done under other policies: retrains, rollouts, loss; by the code that runs live.

    Example:  millstream backtest flight-delay --policy weekly.yaml --policy monthly.yaml
    """
    from millstream_cli.backtesting import Asked
    from millstream_cli.backtesting import backtest as run

    found = _project(project)
    asked = Asked(
        policies=policy or [],
        since=_moment(since),
        until=_moment(until),
        tick=_tick(tick),
        lake=lake,
        chart=chart,
    )
    with _interruptible():
        run(found, loop, asked, data, Console(stderr=as_json), as_json)


@app.command()
def topics(
    project: ProjectOption = FLIGHTS,
    kafka: Annotated[str, typer.Option(help="Bootstrap servers.")] = "127.0.0.1:9092",
    strimzi: Annotated[
        str | None, typer.Option(help="Create nothing; print KafkaTopics for Strimzi's Kafka of this name.")
    ] = None,
    users: Annotated[
        str | None,
        typer.Option(
            help="Create nothing; print KafkaUsers for Strimzi's Kafka of this name: one a service, least rights."
        ),
    ] = None,
) -> None:
    """Create the topics that a project needs, where they are missing. Existing ones stay as they are.

    Example:  millstream topics --project examples/flights --kafka localhost:9092

    Example:  millstream topics --project examples/flights --strimzi kafka --users kafka | kubectl apply -n kafka -f -
    """
    from millstream.runtime.topic_admin import ensure_topics
    from millstream_cli.kafka_rights import rights_of
    from millstream_cli.place import named
    from millstream_cli.strimzi import kafka_topics, kafka_users
    from millstream_cli.topics import topics_of

    found = _project(project)
    specs = topics_of(found)
    if strimzi is not None:
        print(kafka_topics(specs, strimzi), end="")
    if users is not None:
        print(kafka_users(rights_of(found), users), end="")
    if strimzi is not None or users is not None:
        return
    with _interruptible():
        created = _run(ensure_topics(named(kafka), specs))
    print(f"{len(created)} created, {len(specs) - len(created)} were there")


add_loop_commands(app)
app.command()(score)
app.command()(export)

if __name__ == "__main__":
    app()
