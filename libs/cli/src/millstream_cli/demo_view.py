"""How a demo's figures look on a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

CALLED = {
    "log_loss": "log loss",
    "squared_error": "squared error",
    "auc": "AUC",
    "accuracy": "accuracy",
    "mean_absolute_error": "mean absolute error",
}
"""Losses and scores, for people."""
KEPT = "first champion kept for ever:"


def show(figures: dict[str, Any], console: Console, out: Path) -> None:
    """The summary table, a part for each loop where there are several, and where to look next."""
    table = Table(title="What happened", show_header=False, box=None, padding=(0, 2), title_justify="left")
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column(style="dim")
    f, loops = figures, figures["loops"]
    largest = max(f["peak_rss_mb"], key=f["peak_rss_mb"].get)
    _row(table, "events", f["events_sent"], f"{f['events_in_topics']:,} in topics, {f['events_in_lake']:,} in the lake")
    _row(table, "lost / duplicated", f"{f['events_lost']} / {f['duplicates']}", f"{f['dead_letters']} dead letters")
    for name, loop in loops.items():
        if len(loops) > 1:
            table.add_row()
            table.add_row(name, style="bold")
        _loop(table, loop)
    if len(loops) > 1:
        table.add_row()
    _row(table, "seconds", f"{f['wall_seconds']:.0f}", f"{f['events_per_second']:,.0f} events/s while replaying")
    _row(table, "memory", f"{f['peak_rss_mb'][largest]:,.0f} MiB", f"the largest process: {largest}")
    console.print(table)
    for promise in f["broken_promises"]:
        console.print(f"BROKEN: {promise}", style="bold red", soft_wrap=True)
    name = next(iter(loops)) if len(loops) == 1 else "LOOP"
    console.print(
        f"\nEverything, with the timeline of verdicts, decisions, runs and models: {out / 'demo.json'}\n"
        f"Why the last model came about:         millstream why {name} --from {out / 'journal.jsonl'}\n"
        "Keep a mill running and look around:  make up\n"
        "Ask it something:                     millstream status, then the addresses it prints"
    )


def _row(table: Table, name: str, value: Any, note: str = "") -> None:
    table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value), note)


def _loop(table: Table, f: dict[str, Any]) -> None:
    """What one loop did."""
    answered = f"{f['predictions_effective']:,} answered, {f['unanswered_no_model']:,} before the first model"
    _row(table, "questions", f["questions"], answered)
    if f["scored"]:
        for name in (f["metric"], f["score"]):
            _row(table, CALLED[name], _score(f[name]), f"{KEPT} {_score(f[f'static_{name}'])}")
    else:
        _row(table, CALLED[f["metric"]], "–", _unscored(f))
    _row(table, "retrains", f["retrains"], _runs(f))
    recomputed = f"largest difference, {f['skew_checked']:,} predictions recomputed"
    _row(table, "online = offline", _difference(f["skew_max"]), recomputed)
    recounted = f"largest difference, {f['recount_checked']:,} recounted by plain loops"
    _row(table, "online = recount", _difference(f["recount_max"]), recounted)


def _unscored(f: dict[str, Any]) -> str:
    if not f["predictions_effective"]:
        return "no model answered"
    return f"scored from {f['scored_from'] or 'the first label'} on; this replay ends before"


def _runs(f: dict[str, Any]) -> str:
    """What became of them. Each is counted once; those that were rolled back had been promoted."""
    said = [
        f"{f['promotions']} promoted",
        f"{f['rejections_by_gate']} rejected by the gate",
        f"{f['rejections_by_trial']} in trial",
        *([f"{f['failed_runs']} failed"] if f["failed_runs"] else []),
        *([f"{f['open_runs']} under way"] if f["open_runs"] else []),
        f"{f['rollbacks']} rolled back",
    ]
    return ", ".join(said)


def _score(value: float | None) -> str:
    """An AUC needs both outcomes, which a few hours may not have."""
    return "–" if value is None else f"{value:.4f}"


def _difference(largest: float | None) -> str:
    return "infinite" if largest is None else f"{largest:.1e}"
