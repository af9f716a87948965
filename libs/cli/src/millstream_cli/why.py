"""`millstream why` and `millstream report`: one incident, or how a loop stands, from what its topics say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from rich.console import Console

from millstream_cli import incident_page, incident_view, page, report_page, report_view
from millstream_cli.errors import CommandFailed
from millstream_cli.incidents import Incident
from millstream_cli.journal import Told, read_file, read_journal
from millstream_cli.loop_events import Loop, loop_of
from millstream_cli.loop_report import report_of
from millstream_cli.mill import MillState
from millstream_cli.place import named
from millstream_cli.unjudged import unjudged

SHORTEST = 4
"""Characters of an id that are enough to name it, when only one begins so."""


async def read_told(root: Path, kafka: str | None, file: Path | None) -> list[Told]:
    """From `file`, from Kafka at `kafka`, or from the mill that runs in `root`. Raises CommandFailed, OSError."""
    if file is not None:
        return read_file(file)
    if kafka is not None:
        return await read_journal(named(kafka))
    try:
        state = MillState.load(root)
    except CommandFailed as error:
        raise CommandFailed(f"{error}; or name what to read: --kafka, or --from out/journal.jsonl") from error
    return await read_journal(state.kafka)


def loop_named(told: Sequence[Told], name: str) -> Loop:
    """Raises CommandFailed, with the loops that there are."""
    names = sorted({one.loop for one in told} - {""})
    if name not in names:
        there = f"there is: {', '.join(names)}" if names else "no loop has said anything yet"
        raise CommandFailed(f"nothing is said of a loop {name!r}; {there}")
    return loop_of(told, name)


def pick(loop: Loop, wanted: str | None) -> Incident:
    """The incident that has number `wanted`, or an event or run whose id begins so; None: the last that is no routine.

    Raises CommandFailed.
    """
    if not loop.incidents:
        raise CommandFailed(f"{loop.name} has no incident yet: no verdict, no request and no run")
    if wanted is None:
        return next((one for one in reversed(loop.incidents) if not one.routine), loop.incidents[-1])
    by_number = {str(number): one for one in loop.incidents for number in (one.number, *one.others)}
    if wanted in by_number:
        return by_number[wanted]
    found = [
        one for one in loop.incidents if len(wanted) >= SHORTEST and any(id.startswith(wanted) for id in _ids(one))
    ]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} incidents have an id that begins so" if found else "there is none"
    raise CommandFailed(
        f"incident {wanted!r}: {what}; write a number from 1 to {len(by_number)}, or the id of a verdict, a decision or a "
        f"run: millstream why {loop.name} --list"
    )


def _ids(incident: Incident) -> set[str]:
    ids = {incident.id} | {one.id for one in incident.decisions} | {one.request for one in incident.decisions}
    ids |= {window.id for trouble in incident.troubles for window in trouble.windows}
    for run in incident.runs:
        ids |= {run.name} | {move.id for move in run.moves} | {look.id for look in run.judged}
        ids |= {started.id for started in run.started}
        ids |= {run.finished.id} if run.finished is not None else set()
    return ids


def why(
    told: Sequence[Told], name: str, wanted: str | None, *, console: Console, as_json: bool, file: Path | None
) -> None:
    """Tell one incident. Raises CommandFailed, OSError."""
    loop = loop_named(told, name)
    incident = pick(loop, wanted)
    if file is not None:
        page.write(file, incident_page.page_of(loop, incident))
        console.print(f"written: {file}", highlight=False)
    if as_json:
        print(json.dumps(incident_view.as_json(loop, incident), indent=2))
    elif file is None:
        incident_view.show(loop, incident, console)


def list_incidents(told: Sequence[Told], name: str, *, console: Console, as_json: bool) -> None:
    """A line an incident. Raises CommandFailed."""
    loop = loop_named(told, name)
    if as_json:
        print(json.dumps([incident_view.summary_of(one) for one in loop.incidents], indent=2))
    else:
        incident_view.show_list(loop, console)


def report(
    told: Sequence[Told],
    name: str,
    since: timedelta,
    *,
    console: Console,
    as_json: bool,
    file: Path | None,
    mill: MillState | None = None,
) -> None:
    """Say how a loop stands; of a `mill` that runs also what only its services and packages know. Raises CommandFailed,
    OSError."""
    loop = loop_named(told, name)
    found = report_of(loop, since)
    if mill is not None:
        found = replace(found, needs=[*asyncio.run(unjudged(loop, mill)), *found.needs])
    if file is not None:
        page.write(file, report_page.page_of(found))
        console.print(f"written: {file}", highlight=False)
    if as_json:
        print(json.dumps(report_view.as_json(found), indent=2))
    elif file is None:
        report_view.show(found, console)
