"""`millstream replay`: what a running mill has not seen of a project's recording."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from millstream.contracts.times import from_rfc3339, to_rfc3339
from millstream.contracts.topics import PREDICTIONS
from millstream.project import Project
from millstream_cli.errors import CommandFailed
from millstream_cli.hints import options
from millstream_cli.mill import POSITION, MillState
from millstream_cli.place import named
from millstream_cli.probes import Probes
from millstream_cli.recording import load_recording
from millstream_cli.replay import Addresses
from millstream_cli.resume import last_known_at
from millstream_cli.running import run_replay
from millstream_cli.ticks import Ticks
from millstream_cli.turns import apart


@dataclass(frozen=True, kw_only=True)
class Target:
    """A running mill."""

    addresses: Addresses
    services: Mapping[str, str]
    """Those whose state we can ask for, and where."""
    project: Path | None
    """The one that it runs; None for a mill elsewhere."""
    position: Path | None
    """Where it is kept how far the last replay came; None for a mill elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """What of the recording, in which steps; microseconds."""

    tick: int
    since: int | None
    until: int | None


def target_of(
    root: Path, *, project: Path | None, kafka: str | None, ingest: str | None, serving: str | None
) -> Target:
    """The mill elsewhere that is named in full, else the one that runs in `root`; `project` is the one that is meant.

    Raises CommandFailed.
    """
    if kafka and ingest and serving:
        addresses = Addresses(kafka=named(kafka), ingest=ingest, serving=serving)
        return Target(addresses=addresses, services={"ingest": ingest, "serving": serving}, project=None, position=None)
    if kafka or ingest or serving:
        raise CommandFailed("name a mill elsewhere in full: --kafka, --ingest and --serving")
    state = MillState.load(root, project)
    addresses = Addresses(kafka=state.kafka, ingest=state.services["ingest"], serving=state.services["serving"])
    return Target(addresses=addresses, services=state.services, project=Path(state.project), position=root / POSITION)


async def replay_into(project: Project, target: Target, span: Span, console: Console) -> None:
    """Raises CommandFailed when there is nothing to send, or when it would come too late."""
    since = span.since if span.since is not None else _position(target)
    asking = {loop.predict.on for loop in project.loops.values()}
    ticks = Ticks(
        load_recording(project).events,
        questions=asking,
        tick=span.tick,
        until=span.until,
        since=since,
        apart=await asyncio.to_thread(apart, project),
    )
    if not len(ticks):
        raise CommandFailed(
            "nothing to replay: the recording has no event"
            + (f" after {to_rfc3339(since)}" if since is not None else "")
            + (f" before {to_rfc3339(span.until)}" if span.until is not None else "")
        )
    await _check_time(project, target, ticks, span.tick)
    if since is not None:
        console.print(f"going on from {to_rfc3339(since)}")
    console.print(f"replaying {ticks.events:,} events in {len(ticks):,} ticks")
    probes = Probes(target.services)
    done = await run_replay(
        project=project,
        ticks=ticks,
        addresses=target.addresses,
        console=console,
        states=lambda: probes.states,
        beside=probes.run,
        on_tick=lambda tick: _note(target, tick.end),
    )
    console.print(f"{ticks.events:,} events in {done.seconds:.0f} s ({ticks.events / done.seconds:,.0f} events/s)")


async def _check_time(project: Project, target: Target, ticks: Ticks, tick: int) -> None:
    """Of the first tick a part may have been sent (the ids make its repeat harmless); nothing later may be known yet."""
    last = await last_known_at(target.addresses.kafka, [*project.streams, PREDICTIONS.name])
    start = ticks.span[0]
    if last is not None and last > start + tick:
        fresh = ", or start it from nothing"
        if target.position is not None:
            data = target.position.parents[1]
            down, up = options(None, data), options(project.path, data)
            fresh = f", or start from nothing: millstream down{down}; millstream up --detach --fresh{up}"
        raise CommandFailed(
            f"this mill's time is {to_rfc3339(last)}, by an event or a question that somebody sent, and the replay would go on "
            f"from {to_rfc3339(start)}: all before would come too late for its windows. Skip it with --since "
            f"{to_rfc3339(last)}{fresh}"
        )


def _position(target: Target) -> int | None:
    if target.position is None:
        return None
    try:
        return from_rfc3339(json.loads(target.position.read_text())["sent_until"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # nothing was sent yet; if it was, the mill's own time says so


def _note(target: Target, until: int) -> None:
    """Also after each tick of thousands: a replay that is killed goes on from there."""
    if target.position is not None:
        new = target.position.with_suffix(".new")
        new.write_text(json.dumps({"sent_until": to_rfc3339(until)}))
        os.replace(new, target.position)
