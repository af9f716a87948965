"""`millstream scaling …`: what a values file would do, before a cluster does it."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from millstream_cli.shell import JsonOption, guarded, screen

scaling_app = typer.Typer(help="How the charts' autoscaling behaves, computed without a cluster.", no_args_is_help=True)


class Shape(StrEnum):
    """Made-up traffic over a day; `scaling.SHAPES` says how it goes."""

    DAY = "day"
    SAW = "saw"
    BURST = "burst"


@scaling_app.callback()
def scaling() -> None:
    """A command of its own although it has one: more will come."""


@scaling_app.command()
def simulate(
    chart: Annotated[Path, typer.Argument(help="Folder of the chart.")] = Path("deploy/charts/features"),
    values: Annotated[
        list[Path] | None, typer.Option("--values", "-f", help="A values file, as for helm; the last one wins.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="CSV with the columns second,rate: records a second from then on.")
    ] = None,
    shape: Annotated[Shape, typer.Option(help="Without a trace: a day of this form.")] = Shape.DAY,
    peak: Annotated[float, typer.Option(min=1, help="Without a trace: records a second at its highest.")] = 10_000,
    skew: Annotated[float, typer.Option(min=0, max=1, help="Share of the records that one partition gets.")] = 0.0,
    start: Annotated[int, typer.Option(min=0, max=3600, help="Seconds until a new pod works.")] = 30,
    pause: Annotated[
        int, typer.Option(min=0, max=600, help="Seconds that a consumer group stands still at each change.")
    ] = 3,
    html: Annotated[Path | None, typer.Option(help="Write one page with charts to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Replicas and lag over a day of traffic, by KEDA's arithmetic and the autoscaler's, for a values file.

    What no values file knows is an option. Of features and of serving's scorer; what scales on requests, on CPU or by the
    hour is left out.

    Example:  millstream scaling simulate deploy/charts/features -f my-values.yaml --shape saw --peak 12000 --html scaling.html
    """
    from millstream_cli import scaling_view as view
    from millstream_cli.scaling import World, shaped, simulate, traced
    from millstream_cli.scaling_values import read

    with guarded():
        try:
            rates = shaped(shape, peak) if trace is None else traced(trace)
        except (ValueError, UnicodeDecodeError) as error:
            raise typer.BadParameter(str(error), param_hint="--trace") from error
        scaled = read(chart, values or [])
        world = World(start=start, pause=pause, skew=skew)
        with screen(beside=True).status("simulating…"):
            outcome = simulate(rates, scaled.topics, scaled.scaler(), polling=scaled.polling, world=world)
        found = view.figures(scaled, outcome)
        if html is not None:
            view.write_page(html, scaled, outcome)
        if as_json:
            print(json.dumps(found, indent=2))
        else:
            view.show(screen(), scaled, outcome)
