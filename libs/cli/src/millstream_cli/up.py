"""`millstream up` and `down`: a mill that stays."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from millstream.project import Project
from millstream_cli.errors import CommandFailed
from millstream_cli.hints import options
from millstream_cli.mill import Mill, MillState, wait_for_exit

KEPT = "project.json"
"""In a mill's folder: whose data it holds, for the next start."""
READY_WITHIN = 300.0
"""Seconds for a detached start: the first one fetches Kafka's jars."""


def kept_project(root: Path) -> Path | None:
    """The project whose data `root` holds; None where nothing was kept. Raises CommandFailed where it is not there any more."""
    path = _whose(root)
    if path is not None and not path.is_dir():
        raise CommandFailed(
            f"{root} holds the data of the project {path}, which is not there any more; name it with --project, or another "
            "folder with --data"
        )
    return path


def warning(root: Path, project: Path) -> str | None:
    """What to say to who starts `project` over the data of another one that is still there; else None."""
    kept = _whose(root)
    if kept is None or not kept.is_dir() or kept.samefile(project):
        return None
    return (
        f"{root} holds the data of {kept}: its events, models and windows stay, beside those of {project}; --fresh begins "
        "without them, --data with another folder keeps the two apart"
    )


def _whose(root: Path) -> Path | None:
    try:
        return Path(json.loads((root / KEPT).read_text())["project"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


async def foreground(project: Project, root: Path, fresh: bool, console: Console) -> None:
    """Start everything, print where it is, and keep it running until somebody interrupts."""
    root.mkdir(parents=True, exist_ok=True)
    if (running := _running(root)) is not None:
        raise CommandFailed(
            f"a mill runs already, as process {running.pid}; stop it first, with: millstream down{options(None, root.parent)}"
        )
    mill = Mill(
        project=project,
        root=root,
        fresh=fresh,
        fixed_ports=True,
        say=lambda text: console.print(f"[dim]{text}[/dim]"),
    )
    try:
        state = await mill.start()
        (root / KEPT).write_text(json.dumps({"project": state.project}))
        show(state, root.parent, console)
        await mill.supervise()
    finally:
        console.print("[dim]stopping[/dim]")
        await asyncio.to_thread(mill.stop)


def detached(project: Path, data: Path, fresh: bool, console: Console) -> None:
    """Start a mill in the background and return when it is ready. Raises CommandFailed with the end of its log."""
    root = data / "up"
    root.mkdir(parents=True, exist_ok=True)
    if (state := _running(root)) is not None:
        if fresh:
            raise CommandFailed(
                f"a mill runs already, as process {state.pid}; stop it first, with: millstream down{options(None, data)}"
            )
        console.print(f"a mill runs already, as process {state.pid}")
        show(state, data, console)
        return
    log = root / "up.log"
    with log.open("ab") as output:
        before = output.tell()
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
            said = log.read_bytes()[before:].decode(errors="replace")
            raise CommandFailed(f"it ended with status {child.returncode}:\n{said[-2000:].strip()}")
        state = _running(root)
        if state is not None and state.pid == child.pid:
            show(state, data, console)
            return
        time.sleep(0.2)
    child.terminate()
    raise CommandFailed(f"not ready after {READY_WITHIN:.0f} s; see {log}")


def _running(root: Path) -> MillState | None:
    try:
        return MillState.load(root)
    except CommandFailed:
        return None


def stop(root: Path, console: Console) -> None:
    """Stop a detached mill, if one runs. Raises CommandFailed for one that does not end."""
    state = _running(root)
    if state is None:
        console.print(f"nothing runs in {root}", soft_wrap=True, highlight=False)
        return
    os.kill(state.pid, signal.SIGTERM)
    if not wait_for_exit(state.pid, within=90):
        raise CommandFailed(f"process {state.pid} did not end within 90 s; see {root / 'up.log'}")
    console.print("stopped; data stays in " + str(root))


def show(state: MillState, data: Path, console: Console) -> None:
    """Where everything is, and what to type next, with `data` where it is not the default."""
    table = Table(show_header=False, box=None, padding=(0, 2))
    for name, url in state.services.items():
        table.add_row(name, url, f"{url}/docs")
    table.add_row("Kafka", state.kafka)
    table.add_row("Valkey", state.valkey)
    if state.mlflow:
        table.add_row("MLflow", state.mlflow)
    console.print(table)
    console.print(f"  project {state.project}", soft_wrap=True, highlight=False)
    console.print(f"  logs in {state.logs}", soft_wrap=True)
    here = options(None, data)
    recorded = (Path(state.project) / "recording.py").is_file()
    nexts = [
        (f"millstream replay{here} --until DAY", "send the project's recording up to a day, like 2013-02-01")
        if recorded
        else (f"{state.services['ingest']}/docs", "how to send events"),
        (f"millstream status{here}", "how it gets on"),
        (f"millstream down{here}", "stop it (or Ctrl-C where it runs)"),
    ]
    width = max(len(command) for command, _ in nexts)
    console.print()
    for command, what in nexts:
        console.print(f"{command:<{width}}   {what}", soft_wrap=True, highlight=False)
