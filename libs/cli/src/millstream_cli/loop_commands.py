"""`millstream why`, `report`, and a person's word: retrain, register, approve, rollback, pin, unpin, freeze, unfreeze."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import timedelta
from inspect import Signature, signature
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.text import Text

from millstream.project.duration import from_text
from millstream_cli.errors import CommandFailed
from millstream_cli.shell import HOME, DataOption, JsonOption, guarded, run, screen

DAYS_30 = "30d"

LoopArgument = Annotated[str, typer.Argument(help="A loop of the project, like flight-delay.")]
KafkaOption = Annotated[str | None, typer.Option(help="Kafka of a mill elsewhere.")]
FromOption = Annotated[
    Path | None, typer.Option("--from", help="Read this file instead of Kafka, like the out/journal.jsonl of a demo.")
]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", help="Write one page, with its charts inside, to this file.")
]
ByOption = Annotated[str | None, typer.Option("--by", help="Who says so; default: your login name.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; it stays in the journal.")]
TrainerOption = Annotated[
    str | None,
    typer.Option(help="Address of a trainer elsewhere, like http://trainer:8080."),
]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the decision, and say it.")]
WithinOption = Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds to wait for it.")]
BY_HAND = "by hand"
WITHIN = 30.0
"""A decision takes milliseconds, a trainer that is starting some seconds; a request that waits for labels takes days."""


def why(
    loop: LoopArgument,
    incident: Annotated[
        str | None,
        typer.Argument(help="Its number (--list), or the id of a verdict, decision or run. Default: the last."),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Every incident, a line each.")] = False,
    html: HtmlOption = None,
    file: FromOption = None,
    kafka: KafkaOption = None,
    data: DataOption = HOME,
    as_json: JsonOption = False,
) -> None:
    """Tell one incident of a loop: what drifted, what was decided, trained, compared and rolled out, and what came of it.

    Example:  millstream why flight-delay --list

    Example:  millstream why flight-delay 3 --html why.html

    Example:  millstream why flight-delay --from out/journal.jsonl
    """
    from millstream_cli import why as work

    if listed and (incident is not None or html is not None):
        raise typer.BadParameter("--list is for all incidents; leave out INCIDENT and --html")
    console = screen(beside=as_json)
    with guarded():
        told = run(work.read_told(data / "up", kafka, file))
        if listed:
            work.list_incidents(told, loop, console=console, as_json=as_json)
        else:
            work.why(told, loop, incident, console=console, as_json=as_json, file=html)


def report(
    loop: LoopArgument,
    since: Annotated[str, typer.Option(help="How far back, in stream time: 30d, 12h.")] = DAYS_30,
    html: HtmlOption = None,
    file: FromOption = None,
    kafka: KafkaOption = None,
    data: DataOption = HOME,
    as_json: JsonOption = False,
) -> None:
    """Say on one page how a loop stands: champion, performance, incidents, drift, labels, and what needs a person.

    Example:  millstream report flight-delay --since 30d --html report.html
    """
    from millstream_cli import why as work
    from millstream_cli.mill import MillState

    span = _span(since)
    with guarded():
        told = run(work.read_told(data / "up", kafka, file))
        mill = MillState.load(data / "up") if kafka is None and file is None else None
        work.report(told, loop, span, console=screen(beside=as_json), as_json=as_json, file=html, mill=mill)


def _span(text: str) -> timedelta:
    try:
        span = timedelta(microseconds=from_text(text))
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(str(error)) from error
    if span <= timedelta():
        raise typer.BadParameter("a report looks back some time; write it like 30d or 12h")
    return span


class Asked(NamedTuple):
    """What a person asks of a loop's trainer."""

    path: str
    body: dict[str, Any]
    graph: bytes | None = None
    """A model to send first; the body then names it."""


def _asked(wish: Callable[..., Asked]) -> Callable[..., None]:
    """The command that asks for `wish` of its arguments, with the options that all of these commands have."""

    def command(
        *,
        by: ByOption = None,
        trainer: TrainerOption = None,
        wait: WaitOption = True,
        within: WithinOption = WITHIN,
        data: DataOption = HOME,
        as_json: JsonOption = False,
        **own: Any,
    ) -> None:
        from millstream_cli import asking

        loop = own["loop"]
        with guarded():
            path, body, graph = wish(**own)
            if not body["reason"].strip():
                raise typer.BadParameter(
                    'write a reason in words, like --reason "the new runway"; it stays in the journal'
                )
            office = asking.office_of(data / "up", trainer=trainer, wait=wait)
            if graph is not None:
                body = body | {"model": run(asking.give(office, loop, graph))}
            answer = run(asking.ask(office, loop, path, {"by": by or asking.me()} | body, within))
        if as_json:
            print(json.dumps(answer.as_json(), indent=2))
        else:
            Console().print(Text(answer.words), soft_wrap=True)
        if wait and not answer.decided:
            later = f"the request stands: millstream why {loop} tells what comes of it"
            print(f"millstream: not decided within {within:g} s; {later}", file=sys.stderr)
        if answer.refused or (wait and not answer.decided):
            raise typer.Exit(1)

    # Typer reads a command's options off its signature.
    own = signature(wish, eval_str=True).parameters.values()
    shared = [p for p in signature(command, eval_str=True).parameters.values() if p.kind is p.KEYWORD_ONLY]
    command.__signature__ = Signature([*own, *shared])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in [*own, *shared]}
    command.__name__, command.__doc__ = wish.__name__, wish.__doc__
    return command


@_asked
def retrain(
    loop: LoopArgument,
    reason: ReasonOption,
) -> Asked:
    """Ask for a retrain. The policy answers: a person passes the cooldown, nobody passes the budget.

    Runs that failed are no part of a person's budget: what was mended can be tried at once.

    Example:  millstream retrain flight-delay --reason "the new runway changed the delays"
    """
    return Asked("retrain", {"reason": reason})


@_asked
def register(
    loop: LoopArgument,
    manifest: Annotated[
        Path,
        typer.Option(
            "--manifest", help="What the graph does not say: see docs/models.md.", exists=True, dir_okay=False
        ),
    ],
    reason: ReasonOption,
    onnx: Annotated[
        Path | None, typer.Option("--onnx", help="The model, as an ONNX graph.", exists=True, dir_okay=False)
    ] = None,
    remote: Annotated[
        str | None, typer.Option("--remote", help="Or where it runs: https://host/v2/models/NAME (Triton, KServe, …).")
    ] = None,
) -> Asked:
    """Have a model that was made elsewhere judged as a new version: gate, shadow, canary, as any other.

    Example:  millstream register flight-delay --onnx net.onnx --manifest net.yaml --reason "the research team's network"
    """
    from millstream_cli.given import read_manifest

    said = {"reason": reason, **read_manifest(manifest)}
    if (onnx is None) == (remote is None):
        raise CommandFailed("write --onnx FILE, or --remote URL: one of them")
    if onnx is None:
        return Asked("register", said | {"remote": remote})
    return Asked("register", said, onnx.read_bytes())


@_asked
def approve(
    loop: LoopArgument,
    run: Annotated[str, typer.Argument(help="The run that waits, as millstream status names it.")],
    reason: ReasonOption = BY_HAND,
) -> Asked:
    """Say go to a run that waits for a person.

    Example:  millstream approve flight-delay 9a9167a31299
    """
    from urllib.parse import quote

    return Asked(f"runs/{quote(run, safe='')}/approve", {"reason": reason})


@_asked
def rollback(
    loop: LoopArgument,
    reason: ReasonOption = BY_HAND,
    to: Annotated[
        str | None,
        typer.Option(
            help="Version to go back to, also one that was rolled back, in its canary too. It answers everybody at once, "
            "without a trial or a watch. One that was rejected stays so. Default: the champion before."
        ),
    ] = None,
) -> Asked:
    """Take the champion back: the version before it answers again, in every replica. A trial under way ends instead.

    Example:  millstream rollback flight-delay --reason "complaints since noon"
    """
    return Asked("rollback", {"reason": reason} | ({"to": to} if to is not None else {}))


@_asked
def pin(
    loop: LoopArgument,
    version: Annotated[str, typer.Argument(help="The version that shall answer whatever comes.")],
    reason: ReasonOption = BY_HAND,
) -> Asked:
    """Have one version answer until it is unpinned: no retrain, no trial.

    Example:  millstream pin flight-delay 7 --reason "audit week"
    """
    return Asked("pin", {"reason": reason, "to": version})


@_asked
def unpin(
    loop: LoopArgument,
    reason: ReasonOption = BY_HAND,
) -> Asked:
    """Let the loop go on from the pinned version.

    Example:  millstream unpin flight-delay
    """
    return Asked("unpin", {"reason": reason})


@_asked
def freeze(
    loop: LoopArgument,
    reason: ReasonOption,
) -> Asked:
    """Stop every step forward; rejections and rollbacks go on.

    Example:  millstream freeze flight-delay --reason "Black Friday"
    """
    return Asked("freeze", {"reason": reason})


@_asked
def unfreeze(
    loop: LoopArgument,
    reason: ReasonOption = BY_HAND,
) -> Asked:
    """Let a frozen loop step forward again.

    Example:  millstream unfreeze flight-delay
    """
    return Asked("unfreeze", {"reason": reason})


COMMANDS = (why, report, retrain, register, approve, rollback, pin, unpin, freeze, unfreeze)


def add_to(app: typer.Typer) -> None:
    """Make them commands of `app`."""
    for command in COMMANDS:
        app.command()(command)
