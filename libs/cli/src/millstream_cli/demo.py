"""`millstream demo`: a project's recording through the whole loop, from nothing to a summary."""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from millstream.project import Project
from millstream_cli.demo_view import show
from millstream_cli.errors import CommandFailed
from millstream_cli.journal import write_file
from millstream_cli.loop_summary import Places
from millstream_cli.mill import SERVICES, Mill
from millstream_cli.recording import load_recording
from millstream_cli.replay import Addresses
from millstream_cli.running import Replayed, run_replay
from millstream_cli.summary import broken_promises, summarise
from millstream_cli.ticks import Ticks
from millstream_cli.turns import apart


async def demo(
    *, project: Project, root: Path, out: Path, tick: int, until: int | None, console: Console
) -> dict[str, Any]:
    """Run it and return the figures, which are also written to `out`/demo.json. Everything under `root` starts afresh.
    `broken_promises` among them is empty when all is well.

    Raises CommandFailed, EmbeddedError. Whatever happens, what was started is stopped.
    """
    root.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    # An interrupted run leaves no figures, least of all those of the run before.
    if not project.loops:
        raise CommandFailed(f"{project.path} has no loop, and a demo is of one; start it with: millstream up")
    for old in ("demo.json", "journal.jsonl"):
        (out / old).unlink(missing_ok=True)
    began = time.perf_counter()
    mill = Mill(
        project=project,
        root=root,
        fresh=True,
        fixed_ports=False,
        say=lambda text: console.print(f"[dim]{text}[/dim]"),
    )
    try:
        loading = asyncio.ensure_future(asyncio.to_thread(load_recording, project))
        state = await mill.start()
        recording = await loading
        asking = {loop.predict.on for loop in project.loops.values()}
        taking_turns = await asyncio.to_thread(apart, project)
        ticks = Ticks(recording.events, questions=asking, tick=tick, until=until, apart=taking_turns)
        started = time.perf_counter()
        console.print(f"replaying {ticks.events:,} events in {len(ticks):,} ticks")
        replayed = await run_replay(
            project=project,
            ticks=ticks,
            addresses=Addresses(kafka=state.kafka, ingest=state.services["ingest"], serving=state.services["serving"]),
            console=console,
            states=lambda: {
                name: ("running" if mill.processes[name].alive() else "restarting")
                + (f" ({mill.restarts[name]} restarts)" if mill.restarts[name] else "")
                for name in SERVICES
            },
            beside=mill.supervise,
        )
        write_file(out / "journal.jsonl", replayed.story.told)
        console.print("[dim]counting topics, lake and stores; recomputing features offline[/dim]")
        places = Places(kafka=state.kafka, lake=state.lake, packages=state.packages, registry=Path(state.registry))
        figures = await summarise(project, recording, ticks, replayed.story, places)
        figures |= _costs(mill, replayed, ticks, started - began, time.perf_counter() - began)
        figures["restarts"] = sum(mill.restarts.values())
        figures["broken_promises"] = broken_promises(figures)
    finally:
        console.print("[dim]stopping[/dim]")
        await asyncio.to_thread(mill.stop)
    figures = {name: finite(value) for name, value in figures.items()}
    (out / "demo.json").write_text(json.dumps(figures, indent=2, default=str, allow_nan=False) + "\n")
    show(figures, console, out)
    return figures


def finite(value: Any) -> Any:
    """`value` as JSON can say it: null for NaN (a month without labels) and for infinite (a null beside a number)."""
    if isinstance(value, dict):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _costs(mill: Mill, replayed: Replayed, ticks: Ticks, startup: float, wall: float) -> dict[str, Any]:
    usage = mill.usage()
    memory = {name: _mb(used.peak_rss_bytes) for name, used in usage.items()}
    children = {
        f"{name}: largest child": _mb(used.children_peak_rss_bytes)
        for name, used in usage.items()
        if used.children_peak_rss_bytes
    }
    return {
        "wall_seconds": round(wall, 1),
        "startup_seconds": round(startup, 1),
        "replay_seconds": round(replayed.seconds, 1),
        "waited_for_seconds": {k: round(v, 1) for k, v in replayed.spent.items()},
        "events_per_second": round(ticks.events / replayed.seconds, 1),
        "ticks": len(ticks),
        "peak_rss_mb": memory | children | {"replay": _mb(_own_peak_bytes())},
        "cpu_seconds": {name: round(used.cpu_seconds, 1) for name, used in usage.items()}
        | {"replay": round(time.process_time(), 1)},
        "cores": os.cpu_count(),
    }


def _own_peak_bytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _mb(size: int) -> float:
    return round(size / 2**20, 1)
