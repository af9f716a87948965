"""What a backtest shows: a bar for each policy while it goes on, then one line for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from millstream.contracts.times import to_rfc3339
from millstream_backtest.figures import FEWEST, Figures

COLUMNS = (
    *("runs", "pro-\nmoted", "re-\njected", "rolled\nback", "harm-\nful", "loss", "AUC", "an-\nswered"),
    *("CPU s", "spent"),
)
"""In two lines, so that a policy fits in the 80 characters of a terminal."""


class Bars:
    """How far each policy is."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def hear(self, policy: str, done: float) -> None:
        if policy not in self._tasks:
            self._tasks[policy] = self._progress.add_task(policy, total=1.0)
        self._progress.update(self._tasks[policy], completed=min(1.0, max(0.0, done)))


@contextmanager
def bars(console: Console) -> Iterator[Bars]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Bars(progress)


def table(found: Sequence[Figures]) -> Table:
    """One line a policy; the smallest loss is bold, where all are of as many questions."""
    shown = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    shown.add_column("policy")
    for name in COLUMNS:
        shown.add_column(name, justify="right")
    losses = [one.loss for one in found if one.loss is not None]
    best = min(losses) if len(losses) > 1 and not unlike(found) else None
    for one in found:
        loss = "–" if one.loss is None else f"{one.loss:.5f}"
        shown.add_row(
            one.policy,
            str(one.retrains) + (f" ({one.failed_runs} failed)" if one.failed_runs else ""),
            str(one.promotions),
            f"{one.rejections_by_gate} + {one.rejections_on_trial}",
            str(one.rollbacks),
            str(one.harmful_promotions),
            f"[bold]{loss}[/bold]" if best is not None and one.loss == best else loss,
            "–" if one.auc is None else f"{one.auc:.4f}",
            f"{one.answered_share:.1%}",
            _seconds(one.cpu_seconds),
            _seconds(one.spent_cpu_seconds),
        )
    return shown


def unlike(found: Sequence[Figures]) -> str:
    """That the losses cannot be compared, where policies were scored on different questions; empty: they can."""
    scored = {one.policy: one.scored for one in found if one.loss is not None}
    if len(set(scored.values())) < 2:
        return ""
    counts = ", ".join(f"{policy} {count:,}" for policy, count in scored.items())
    return (
        f"loss and AUC are of different questions and do not compare: scored were {counts}. A policy with another "
        "label.within, or a first model at another time, has other answers with a label"
    )


def _seconds(spent: float) -> str:
    return f"{spent:,.1f}" if spent < 100 else f"{spent:,.0f}"


def legend(scored_from: int | None) -> str:
    """What the columns mean; `scored_from` (microseconds): answers to questions before it do not count."""
    counted = "" if scored_from is None else f" to questions from {to_rfc3339(scored_from)} on"
    return (
        "rejected: by the gate + on trial. harmful: promotions whose version did worse on the questions of the 30 days after "
        f"than the one it replaced (at least {FEWEST} labels). CPU s: what its runs take; spent: by this backtest, which found "
        f"runs that others had made. loss and AUC: of the labelled answers{counted}"
    )
