"""`millstream keys …`: who may write is told ingest, which hears it within a second."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from millstream.contracts.rates import rate_of
from millstream.project.duration import from_text
from millstream.project.names import NAME
from millstream_cli.shell import HOME, DataOption, JsonOption, guarded, load, run, screen

keys_app = typer.Typer(
    help="API keys of producers, for an ingest that runs with MILLSTREAM_AUTH=keys.", no_args_is_help=True
)

KafkaOption = Annotated[str | None, typer.Option(help="Bootstrap servers. Default: those of the running mill.")]
ByOption = Annotated[
    str | None, typer.Option("--as", help="Who does it, for the record. Default: your name on this machine.")
]


@keys_app.command()
def create(
    name: Annotated[str, typer.Option(help="Whose it is, like billing.")],
    streams: Annotated[str, typer.Option(help="What it may write: names with commas, or * for every stream.")],
    expires: Annotated[str | None, typer.Option(help="How long it is good, like 90d. Default: until revoked.")] = None,
    events: Annotated[str | None, typer.Option(help="A limit of its own, like 1000/s.")] = None,
    bytes: Annotated[str | None, typer.Option(help="A limit of its own, like 5MB/s.")] = None,
    project: Annotated[
        Path | None, typer.Option("--project", "-p", help="Whose streams they are. Default: that of the running mill.")
    ] = None,
    by: ByOption = None,
    kafka: KafkaOption = None,
    data: DataOption = HOME,
    as_json: JsonOption = False,
) -> None:
    """Make a key and show it, once: only its hash is kept.

    Example:  millstream keys create --name billing --streams flights-departed,flights-landed --expires 90d
    """
    from millstream_cli.keys import Wish
    from millstream_cli.keys import create as work
    from millstream_cli.place import kafka_of

    if not name.strip() or len(name) > 100 or not name.isprintable():
        raise typer.BadParameter("write whose key it is, in up to 100 characters: --name billing")
    wish = Wish(
        name=name.strip(),
        streams=_streams(streams),
        expires=None if expires is None else _span(expires),
        events=None if events is None else _rate(events),
        bytes=None if bytes is None else _rate(bytes),
    )
    with guarded():
        if project is not None or kafka is None:
            _known(wish.streams, project, data)
        minted = run(work(kafka_of(kafka, data), wish, _me(by)))
    if as_json:
        print(json.dumps({"key": minted.text} | _row(minted.state), indent=2))
        return
    print(minted.text)
    screen(beside=True).print(
        f"Key {minted.state.key} of {minted.state.name}: shown this once, and kept nowhere. Send it as X-API-Key.",
        markup=False,
        highlight=False,
    )


@keys_app.command("list")
def list_keys(kafka: KafkaOption = None, data: DataOption = HOME, as_json: JsonOption = False) -> None:
    """Show every key: whose it is, what it may write, whether it is good.

    Example:  millstream keys list
    """
    from millstream_cli.keys import every
    from millstream_cli.place import kafka_of

    with guarded():
        rows = [_row(state) for state in run(every(kafka_of(kafka, data)))]
    if as_json:
        print(json.dumps(rows, indent=2))
    elif rows:
        _table(screen(), rows)
    else:
        print("no keys; make one with: millstream keys create --name NAME --streams STREAM")


@keys_app.command()
def revoke(
    id: Annotated[str, typer.Argument(help="Its id: what stands first in the list, and between the _ of the key.")],
    by: ByOption = None,
    kafka: KafkaOption = None,
    data: DataOption = HOME,
    as_json: JsonOption = False,
) -> None:
    """Take a key back: within a second no replica of ingest takes it any more.

    Example:  millstream keys revoke 3f2a91c0b7d4
    """
    from millstream_cli.keys import revoke as work
    from millstream_cli.place import kafka_of

    with guarded():
        state, new = run(work(kafka_of(kafka, data), id, _me(by)))
    if as_json:
        print(json.dumps(_row(state), indent=2))
    else:
        print(f"key {state.key} of {state.name} {'is' if new else 'was already'} revoked")


def _me(by: str | None) -> str:
    from millstream_cli.asking import me

    return by.strip() if by and by.strip() else me()


def _streams(said: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(word.strip() for word in said.split(",") if word.strip()))
    if not found:
        raise typer.BadParameter("name the streams that it may write: --streams flights-departed,flights-landed")
    for name in found:
        if name != "*" and re.fullmatch(NAME, name) is None:
            raise typer.BadParameter(f"{name[:60]!r} is no stream's name; write names with commas, or '*' for all")
    return found


def _known(streams: Sequence[str], project: Path | None, data: Path) -> None:
    """A stream that there is not is a slip of the keyboard; a Kafka elsewhere may have others."""
    from millstream_cli.errors import CommandFailed
    from millstream_cli.mill import MillState

    if project is None:
        try:
            project = Path(MillState.load(data / "up").project)
        except CommandFailed:
            return
    there = load(project).streams
    for name in streams:
        if name != "*" and name not in there:
            raise CommandFailed(f"{project} has no stream {name}; it has: {', '.join(sorted(there))}")


def _span(text: str) -> timedelta:
    try:
        found = timedelta(microseconds=from_text(text))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if not found:
        raise typer.BadParameter("a key is good for some time; write 90d")
    return found


def _rate(text: str) -> float:
    try:
        return rate_of(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _row(state: Any) -> dict[str, Any]:
    """Without the hash: nobody needs it."""
    now = datetime.now(UTC)
    expired = state.expires_at is not None and state.expires_at <= now
    return {
        "id": state.key,
        "name": state.name,
        "streams": list(state.streams),
        "state": "revoked" if state.revoked_at is not None else "expired" if expired else "good",
        "created_at": state.created_at.isoformat(),
        "expires_at": None if state.expires_at is None else state.expires_at.isoformat(),
        "revoked_at": None if state.revoked_at is None else state.revoked_at.isoformat(),
        "events_per_second": state.events_per_second,
        "bytes_per_second": state.bytes_per_second,
    }


def _table(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("id", "name", "streams", "state", "created", "expires", "events/s", "bytes/s"):
        table.add_column(title)
    for row in rows:
        cells = [row["id"], row["name"], ", ".join(row["streams"]), row["state"], row["created_at"][:10]]
        cells.append((row["expires_at"] or "–")[:10])
        cells += [
            "–" if row[limit] is None else f"{row[limit]:g}" for limit in ("events_per_second", "bytes_per_second")
        ]
        table.add_row(*[Text(cell) for cell in cells])
    console.print(table)
