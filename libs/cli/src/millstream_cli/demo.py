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
from rich.table import Table

from millstream.project import Project
from millstream_cli.errors import CommandFailed
from millstream_cli.journal import write_file
from millstream_cli.mill import SERVICES, Mill
from millstream_cli.recording import load_recording
from millstream_cli.replay import Addresses
from millstream_cli.running import Replayed, run_replay
from millstream_cli.summary import Places, broken_promises, summarise
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
        console.print("[dim]counting topics, lake and stores; recomputing features offline[/dim]")
        loop = next(iter(project.loops.values()))
        places = Places(kafka=state.kafka, lake=state.lake, packages=state.packages, registry=Path(state.registry))
        figures = await summarise(project, loop, recording, ticks, replayed.story, places)
        figures |= _costs(mill, replayed, ticks, started - began, time.perf_counter() - began)
        figures["loop"] = loop.name
        figures["restarts"] = sum(mill.restarts.values())
        figures["broken_promises"] = broken_promises(figures)
    finally:
        console.print("[dim]stopping[/dim]")
        await asyncio.to_thread(mill.stop)
    figures = {name: finite(value) for name, value in figures.items()}
    write_file(out / "journal.jsonl", replayed.story.told)
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


CALLED = {
    "log_loss": "log loss",
    "squared_error": "squared error",
    "auc": "AUC",
    "accuracy": "accuracy",
    "mean_absolute_error": "mean absolute error",
}
"""Losses and scores, for people."""


def show(figures: dict[str, Any], console: Console, out: Path) -> None:
    """The summary table, and where to look next."""
    table = Table(title="What happened", show_header=False, box=None, padding=(0, 2), title_justify="left")
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column(style="dim")

    def row(name: str, value: Any, note: str = "") -> None:
        table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value), note)

    f = figures
    kept = "first champion kept for ever:"
    largest = max(f["peak_rss_mb"], key=f["peak_rss_mb"].get)
    row("events", f["events_sent"], f"{f['events_in_topics']:,} in topics, {f['events_in_lake']:,} in the lake")
    row("lost / duplicated", f"{f['events_lost']} / {f['duplicates']}", f"{f['dead_letters']} dead letters")
    answered = f"{f['predictions_effective']:,} answered, {f['unanswered_no_model']:,} before the first model"
    row("questions", f["questions"], answered)
    if f["scored"]:
        for name in (f["metric"], f["score"]):
            row(CALLED[name], _score(f[name]), f"{kept} {_score(f[f'static_{name}'])}")
    else:
        row(
            CALLED[f["metric"]], "–", f"scored from {f['scored_from'] or 'the first label'} on; this replay ends before"
        )
    ended = f"{f['rejections_by_gate']} rejected by the gate, {f['rejections_by_trial']} in trial"
    row("retrains", f["retrains"], f"{f['promotions']} promoted, {ended}, {f['rollbacks']} rolled back")
    row(
        "online = offline",
        _difference(f["skew_max"]),
        f"largest difference, {f['skew_checked']:,} predictions recomputed",
    )
    row(
        "online = recount",
        _difference(f["recount_max"]),
        f"largest difference, {f['recount_checked']:,} recounted by plain loops",
    )
    row("seconds", f"{f['wall_seconds']:.0f}", f"{f['events_per_second']:,.0f} events/s while replaying")
    row("memory", f"{f['peak_rss_mb'][largest]:,.0f} MiB", f"the largest process: {largest}")
    console.print(table)
    for promise in f["broken_promises"]:
        console.print(f"BROKEN: {promise}", style="bold red", soft_wrap=True)
    console.print(
        f"\nEverything, with the timeline of verdicts, decisions, runs and models: {out / 'demo.json'}\n"
        f"Why the last model came about:         millstream why {f['loop']} --from {out / 'journal.jsonl'}\n"
        "Keep a mill running and look around:  make up\n"
        "Ask it something:                     millstream status, then the addresses it prints"
    )


def _score(value: float | None) -> str:
    """An AUC needs both outcomes, which a few hours may not have."""
    return "–" if value is None else f"{value:.4f}"


def _difference(largest: float | None) -> str:
    return "infinite" if largest is None else f"{largest:.1e}"
