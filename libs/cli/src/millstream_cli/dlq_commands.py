"""`millstream dlq …`: what nobody could use is listed, shown, sent back, dropped."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from millstream.runtime.kafka_security import Bootstrap
from millstream_cli.shell import HOME, DataOption, JsonOption, guarded, moment_of, run, screen

dlq_app = typer.Typer(
    help="Dead letters: records that a service could not use, kept for 30 days with what was wrong with them.",
    no_args_is_help=True,
)

T = TypeVar("T")
TopicArgument = Annotated[
    str, typer.Argument(help="A topic, like flights-departed, for the letters of all its groups; or a …-dlq topic.")
]
AnyTopic = Annotated[str | None, typer.Argument(help="A topic, or a …-dlq topic. Default: all.")]
ReasonOption = Annotated[list[str] | None, typer.Option(help="Only of this reason, like schema; may be repeated.")]
GroupOption = Annotated[str | None, typer.Option(help="Only those of this consumer group, like serving.")]
SinceOption = Annotated[str | None, typer.Option(help="Only what became a dead letter at this time (UTC) or later.")]
UntilOption = Annotated[str | None, typer.Option(help="Only what became a dead letter before this time (UTC).")]
KafkaOption = Annotated[str | None, typer.Option(help="Bootstrap servers. Default: those of the running mill.")]


@dlq_app.command("list")
def list_letters(
    topic: AnyTopic = None,
    reason: ReasonOption = None,
    group: GroupOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    kafka: KafkaOption = None,
    data: DataOption = HOME,
    as_json: JsonOption = False,
) -> None:
    """Count dead letters by topic, group and reason, and how many of them were replayed.

    Example:  millstream dlq list

    Example:  millstream dlq list flights-departed --since 2013-04-01 --json
    """
    from millstream_cli.dlq import chosen, size, tally
    from millstream_cli.place import kafka_of

    wanted = _wanted(reason, group, since, until)

    async def work(log: Any) -> Any:
        topics = await chosen(log, topic, wanted)
        with _bar(await size(log, topics)) as tick:
            return await tally(log, topics, wanted, tick)

    with guarded():
        found = _with_log(kafka_of(kafka, data), work)
    if as_json:
        _print([msgspec.to_builtins(one) for one in found])
    elif found:
        _table(screen(), found)
    else:
        print("no dead letters")


@dlq_app.command()
def show(
    topic: TopicArgument,
    reason: ReasonOption = None,
    group: GroupOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The newest so many.")] = 10,
    kafka: KafkaOption = None,
    data: DataOption = HOME,
    as_json: JsonOption = False,
) -> None:
    """Show the newest dead letters: what was wrong, where each came from, and the record itself.

    Example:  millstream dlq show flights-departed --reason schema --limit 3
    """
    from collections import deque

    from millstream_cli.dlq import chosen, shown, size
    from millstream_cli.place import kafka_of

    wanted = _wanted(reason, group, since, until)

    async def work(log: Any) -> Any:
        topics = await chosen(log, topic, wanted)
        newest: list[dict[str, Any]] = []
        with _bar(await size(log, topics)) as tick:
            for one in topics:
                span = await log.span(one)
                done = await log.replayed(one, span, tick)
                kept: deque[Any] = deque(maxlen=limit)
                async for letter in log.letters(one, span, tick):
                    if wanted.takes(letter):
                        kept.append(letter)
                newest += [shown(letter, was_replayed=letter.offset in done[letter.partition]) for letter in kept]
        return sorted(newest, key=lambda letter: str(letter["at"]))[-limit:]

    with guarded():
        found = _with_log(kafka_of(kafka, data), work)
    if as_json:
        _print(found)
        return
    for letter in found:
        done = ", replayed" if letter["replayed"] else ""
        id, key = letter["id"] or "–", letter["key"] or "–"
        for line in (
            f"{letter['at']}  {letter['topic']} → {letter['group']}: {letter['reason']}{done}",
            f"  {letter['detail']}",
            f"  id {id}, key {key}, from {letter['producer'] or '–'}, was at {letter['source']}, letter {letter['letter']}",
            f"  {json.dumps(letter['value'])[:2000]}",
        ):
            print(_plain(line))
    if not found:
        print("no such dead letters")


@dlq_app.command()
def replay(
    topic: TopicArgument,
    reason: ReasonOption = None,
    group: GroupOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many there are.")] = False,
    kafka: KafkaOption = None,
    data: DataOption = HOME,
    as_json: JsonOption = False,
) -> None:
    """Send dead letters back to the topic they came from, each once: what was replayed is marked and left alone.

    They keep key, value, partition, headers (with id and causation) and known-at. Mend what refused them first, or they come
    back. The topic's other groups hear them too, and know them by their ids: their stream's, or their envelope's.

    Example:  millstream dlq replay flights-departed --reason schema --dry-run

    Example:  millstream dlq replay flights-departed --group serving --since 2013-04-01
    """
    from millstream_cli.dlq import chosen, size
    from millstream_cli.dlq_replay import Replayer
    from millstream_cli.dlq_replay import replay as go
    from millstream_cli.place import kafka_of

    wanted = _wanted(reason, group, since, until)
    bootstrap: Bootstrap = ""

    async def work(log: Any) -> Any:
        topics = await chosen(log, topic, wanted)
        with _bar(await size(log, topics)) as tick:
            if dry_run:
                return await go(log, topics, wanted, None, tick)
            async with Replayer(bootstrap) as replayer:
                return await go(log, topics, wanted, replayer.send, tick)

    with guarded("what was sent is marked; the same command goes on"):
        bootstrap = kafka_of(kafka, data)
        found = _with_log(bootstrap, work)
    if as_json:
        _print({"dry_run": dry_run} | {"topics": {name: msgspec.to_builtins(one) for name, one in found.items()}})
        return
    for name, one in found.items():
        said = "would be replayed" if dry_run else "replayed"
        more = f", {one.before} had been before" if one.before else ""
        more += f", {one.cut} are not kept whole: see where they lie with `millstream dlq show`" if one.cut else ""
        print(f"{name}: {one.sent} {said}{more}")


@dlq_app.command()
def drop(
    topic: TopicArgument,
    until: Annotated[str | None, typer.Option(help="Only what became a dead letter before this time (UTC).")] = None,
    group: GroupOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be lost.")] = False,
    kafka: KafkaOption = None,
    data: DataOption = HOME,
    as_json: JsonOption = False,
) -> None:
    """Delete dead letters for good, after saying what is lost. Kafka deletes the oldest first and cannot pick by reason.

    Example:  millstream dlq drop flights-departed --until 2013-04-01 --dry-run
    """
    from millstream_cli.dlq import Wanted, chosen, size
    from millstream_cli.dlq_drop import drop as go
    from millstream_cli.dlq_drop import loss
    from millstream_cli.place import kafka_of

    async def work(log: Any) -> Any:
        topics = await chosen(log, topic, Wanted(group=group))
        with _bar(await size(log, topics)) as tick:
            return await loss(log, topics, moment_of(until), tick)

    with guarded():
        bootstrap = kafka_of(kafka, data)
        found = _with_log(bootstrap, work)
        console = screen(beside=as_json)
        if not as_json and found.lost:
            _table(console, found.lost)
        print(
            f"{found.letters} dead letters, {found.never_replayed} of them never replayed",
            file=sys.stderr if as_json else sys.stdout,
        )
        dropped = False
        if found.letters and not dry_run:
            if not yes and not (sys.stdin.isatty() and typer.confirm("Delete them for good?")):
                print("millstream: nothing was deleted; say --yes to delete them", file=sys.stderr)
                raise typer.Exit(1)
            run(go(bootstrap, found.upto))
            dropped = True
    if as_json:
        _print({"dropped": dropped, "lost": [msgspec.to_builtins(one) for one in found.lost]})
    elif dropped:
        print("deleted")


def _wanted(reason: list[str] | None, group: str | None, since: str | None, until: str | None) -> Any:
    from millstream_cli.dlq import Wanted

    return Wanted(reasons=frozenset(reason or ()), group=group, since=moment_of(since), until=moment_of(until))


def _with_log(bootstrap: Bootstrap, work: Callable[[Any], Awaitable[T]]) -> T:
    from millstream.runtime.dead_letter_log import DeadLetterLog

    async def go() -> T:
        async with DeadLetterLog(bootstrap) as log:
            return await work(log)

    return run(go())


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    """On standard error, and gone when it is done; in a pipe nothing is drawn."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading", total=total)
        yield lambda count: progress.advance(task, count)


def _table(console: Console, found: Sequence[Any]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("topic", "group", "reason", "letters", "replayed", "last", "for example"):
        table.add_column(name, justify="right" if name in ("letters", "replayed") else "left")
    for one in found:
        row = one.topic, one.group, one.reason, f"{one.letters:,}", f"{one.replayed:,}", one.last, one.example[:200]
        table.add_row(*[Text(_plain(cell)) for cell in row])
    console.print(table)


def _plain(text: str) -> str:
    """Without what moves a terminal: strangers wrote it."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _print(found: Any) -> None:
    print(json.dumps(found, indent=2))
