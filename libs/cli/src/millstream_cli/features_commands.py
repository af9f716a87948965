"""`millstream features …`: commands about the features of a mill."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from millstream_cli.shell import HOME, DataOption, JsonOption, guarded, load, moment_of, screen
from millstream_cli.shell import run as finish

features_app = typer.Typer(
    help="The features of a mill: looked at, explained, rebuilt, forgotten.", no_args_is_help=True
)

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
            console=screen(),
            as_json=as_json,
        )


ShardsOption = Annotated[
    int | None, typer.Option(help="Shards of the online store, as features has them. Default: 1, and 12 on a cluster.")
]


@features_app.command()
def rebuild(
    view: Annotated[list[str] | None, typer.Option(help="Which view; may be repeated. Default: all of them.")] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Leave out events before this time (UTC). Default: what is in no window any more."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Give up a rebuild that was stopped, and begin anew.")] = False,
    project: AnyProject = None,
    kafka: KafkaOption = None,
    lake: LakeOption = None,
    valkey: ValkeyOption = None,
    namespace: NamespaceOption = "millstream",
    shards: ShardsOption = None,
    data: DataOption = HOME,
    as_json: JsonOption = False,
) -> None:
    """Fill views anew from the lake and Kafka, beside the ones that are read, and switch when nothing is missing.

    For a view that is new, whose definition changed, or whose tiles are doubted. Stopped or killed, the same command goes
    on where it was. Features must run, with the same definitions.

    Example:  millstream features rebuild --view customer_spend_v2
    """
    from millstream_cli.features import Features
    from millstream_cli.place import place_of

    goes_on = f"the same command{' without --fresh' if fresh else ''} goes on where it was"
    with guarded(f"what was read so far is kept, and views that were not done are read as before; {goes_on}"):
        place = place_of(data / "up", project=project, kafka=kafka, lake=lake, valkey=valkey, namespace=namespace)
        console = Console(stderr=as_json)
        features = Features(place, load(place.project), shards)
        finish(features.rebuild(view or [], since=moment_of(since), anew=fresh, console=console, as_json=as_json))


@features_app.command()
def status(
    project: AnyProject = None,
    lake: LakeOption = None,
    valkey: ValkeyOption = None,
    namespace: NamespaceOption = "millstream",
    shards: ShardsOption = None,
    data: DataOption = HOME,
    as_json: JsonOption = False,
) -> None:
    """Say of each windowed view which generation of tiles is read, how many keys it has and what they weigh.

    Example:  millstream features status --json
    """
    from millstream_cli.features import Features
    from millstream_cli.place import place_of

    with guarded():
        place = place_of(data / "up", project=project, kafka="", lake=lake, valkey=valkey, namespace=namespace)
        finish(Features(place, load(place.project), shards).status(screen(), as_json))


@features_app.command()
def forget(
    view: Annotated[str, typer.Argument(help="A view that is not in features/ any more.")],
    project: AnyProject = None,
    lake: LakeOption = None,
    valkey: ValkeyOption = None,
    namespace: NamespaceOption = "millstream",
    shards: ShardsOption = None,
    data: DataOption = HOME,
    as_json: JsonOption = False,
) -> None:
    """Free the memory of a view that was removed from the definitions. Its history stays in the lake.

    Example:  millstream features forget customer_spend_v1
    """
    from millstream_cli.features import Features
    from millstream_cli.place import place_of

    with guarded():
        place = place_of(data / "up", project=project, kafka="", lake=lake, valkey=valkey, namespace=namespace)
        finish(Features(place, load(place.project), shards).forget(view, screen(), as_json))
