"""`millstream features …`: commands about the features of a mill."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from millstream_cli.shell import HOME, DataOption, JsonOption, guarded, load, moment_of

features_app = typer.Typer(help="Look at the features of a mill.", no_args_is_help=True)

AnyProject = Annotated[
    Path | None, typer.Option("--project", "-p", help="Folder of the project. Default: that of the running mill.")
]
KafkaOption = Annotated[str | None, typer.Option(help="Bootstrap servers. Default: those of the running mill.")]
LakeOption = Annotated[str | None, typer.Option(help="Folder or URI of the lake. Default: the running mill's.")]
ValkeyOption = Annotated[
    str | None, typer.Option(help="Online store, redis://host:port/0. Default: the running mill's.")
]
NamespaceOption = Annotated[str, typer.Option(help="Prefix of the online store's keys (MILLSTREAM_NAMESPACE).")]


@features_app.command()
def explain(
    view: Annotated[str, typer.Argument(help="A windowed view, like origin_departures.")],
    key: Annotated[list[str], typer.Argument(help="Its key, like origin=JFK; values alone come in the view's order.")],
    at: Annotated[
        str | None, typer.Option(help="As known at this time (UTC). Default: the newest of its stream.")
    ] = None,
    feature: Annotated[str | None, typer.Option(help="One feature of the view. Default: all.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every tile and event, not only the first and last.")
    ] = False,
    project: AnyProject = None,
    lake: LakeOption = None,
    valkey: ValkeyOption = None,
    namespace: NamespaceOption = "millstream",
    data: DataOption = HOME,
    as_json: JsonOption = False,
) -> None:
    """Take a feature apart: its window, its tiles, the events in them, and its value online, offline and recounted.

    Example:  millstream features explain origin_departures origin=JFK --at 2013-03-01T12:00 --feature mean_delay_1h
    """
    from millstream_cli.explain import explain as run
    from millstream_cli.place import place_of

    with guarded():
        place = place_of(data / "up", project=project, kafka="", lake=lake, valkey=valkey, namespace=namespace)
        run(
            load(place.project),
            place,
            view,
            key,
            at=moment_of(at),
            feature=feature,
            everything=everything,
            console=Console(),
            as_json=as_json,
        )
