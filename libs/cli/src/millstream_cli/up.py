"""`millstream up`, `down` and `replay`: a mill that stays."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from millstream.contracts.times import to_rfc3339
from millstream.contracts.topics import PREDICTIONS
from millstream.project import Project
from millstream_cli.errors import CommandFailed
from millstream_cli.mill import SERVICES, Mill, MillState, wait_for_exit
from millstream_cli.recording import load_recording
from millstream_cli.replay import Addresses
from millstream_cli.resume import last_known_at
from millstream_cli.running import run_replay
from millstream_cli.ticks import Ticks

READY_WITHIN = 300.0
"""Seconds for a detached start: the first one fetches Kafka's jars."""


async def foreground(project: Project, root: Path, fresh: bool, console: Console) -> None:
    """Start everything, print where it is, and keep it running until somebody interrupts."""
    root.mkdir(parents=True, exist_ok=True)
    mill = Mill(
        project=project,
        root=root,
        fresh=fresh,
        fixed_ports=True,
        say=lambda text: console.print(f"[dim]{text}[/dim]"),
    )
    try:
        show(await mill.start(), console)
        await mill.supervise()
    finally:
        console.print("[dim]stopping[/dim]")
        await asyncio.to_thread(mill.stop)


def detached(project: Path, data: Path, fresh: bool, console: Console) -> None:
    """Start a mill in the background and return when it is ready. Raises CommandFailed with the end of its log."""
    root = data / "up"
    root.mkdir(parents=True, exist_ok=True)
    try:
        state = MillState.load(root)
    except CommandFailed:
        pass
    else:
        if fresh:
            raise CommandFailed(f"a mill runs already, as process {state.pid}; stop it first, with: millstream down")
        console.print(f"a mill runs already, as process {state.pid}")
        show(state, console)
        return
    log = root / "up.log"
    with log.open("ab") as output:
        child = subprocess.Popen(
            [
                *(sys.executable, "-m", "millstream_cli.main", "up", "--project", str(project), "--data", str(data)),
                *(["--fresh"] if fresh else []),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    console.print(f"[dim]starting (log: {log})[/dim]")
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise CommandFailed(f"it ended with status {child.returncode}:\n{log.read_text()[-2000:]}")
        try:
            state = MillState.load(root)
        except CommandFailed:
            time.sleep(0.2)
            continue
        if state.pid == child.pid:
            show(state, console)
            return
        time.sleep(0.2)
    child.terminate()
    raise CommandFailed(f"not ready after {READY_WITHIN:.0f} s; see {log}")


def stop(root: Path, console: Console) -> None:
    """Stop a detached mill. Raises CommandFailed when none runs."""
    state = MillState.load(root)
    os.kill(state.pid, signal.SIGTERM)
    if not wait_for_exit(state.pid, within=90):
        raise CommandFailed(f"process {state.pid} did not end within 90 s; see {root / 'up.log'}")
    console.print("stopped; data stays in " + str(root))


def running_addresses(root: Path, *, kafka: str | None, ingest: str | None, serving: str | None) -> Addresses:
    """Of the mill elsewhere that is named in full, else of the one that runs in `root`. Raises CommandFailed."""
    if kafka and ingest and serving:
        return Addresses(kafka=kafka, ingest=ingest, serving=serving)
    if kafka or ingest or serving:
        raise CommandFailed("name a mill elsewhere in full: --kafka, --ingest and --serving")
    state = MillState.load(root)
    return Addresses(kafka=state.kafka, ingest=state.services["ingest"], serving=state.services["serving"])


async def replay_into(
    project: Project, addresses: Addresses, *, tick: int, until: int | None, console: Console
) -> None:
    """Replay what the mill at `addresses` has not seen of the project's recording.

    Raises CommandFailed when there is nothing of the kind.
    """
    recording = load_recording(project)
    last = await last_known_at(addresses.kafka, [*project.streams, PREDICTIONS.name])
    # Of the tick that ended last a part may be missing; the event ids make its repeat harmless.
    ticks = Ticks(
        recording, questions={loop.predict.on for loop in project.loops.values()}, tick=tick, until=until, since=last
    )
    if not len(ticks):
        seen = "nothing" if last is None else f"everything up to {to_rfc3339(last)}"
        raise CommandFailed(
            f"nothing to replay: the mill has seen {seen}, and the recording holds nothing later"
            + (f" before {to_rfc3339(until)}" if until is not None else "")
            + ". A mill's time never goes back; start from nothing with: millstream down; millstream up --detach --fresh"
        )
    if last is not None:
        console.print(f"going on from {to_rfc3339(ticks.span[0])}: the mill has seen everything before")
    console.print(f"replaying {ticks.events:,} events in {len(ticks):,} ticks")
    done = await run_replay(
        project=project,
        ticks=ticks,
        addresses=addresses,
        console=console,
        states=lambda: dict.fromkeys(SERVICES, "running"),
    )
    console.print(f"{ticks.events:,} events in {done.seconds:.0f} s ({ticks.events / done.seconds:,.0f} events/s)")


def show(state: MillState, console: Console) -> None:
    """Where everything is, and what to type next."""
    table = Table(show_header=False, box=None, padding=(0, 2))
    for name, url in state.services.items():
        table.add_row(name, url, f"{url}/docs")
    table.add_row("Kafka", state.kafka)
    table.add_row("Valkey", state.valkey)
    if state.mlflow:
        table.add_row("MLflow", state.mlflow)
    table.add_row("logs", state.logs)
    console.print(table)
    console.print(
        "\nmillstream replay --until 2013-02-01   send some flights"
        "\nmillstream status                      how it gets on"
        "\nmillstream down                        stop it (or Ctrl-C where it runs)"
    )
