"""How a loop's report looks on a terminal, and as JSON for scripts."""

from __future__ import annotations

from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from millstream.contracts.events import WindowKind
from millstream_cli.charts import bar, span
from millstream_cli.incident_view import FATES
from millstream_cli.loop_report import Measured, Report
from millstream_cli.losses import Loss
from millstream_cli.telling import compared

MOST_COLUMNS = 8
MOST_WINDOWS = 24
"""Lines of a terminal; the page and --json have all."""
BAR = 30


def show(report: Report, console: Console) -> None:
    """One screen: what needs a person comes first."""
    console.print(
        Text(f"{report.loop}, {report.since:%Y-%m-%d} to {report.now:%Y-%m-%d %H:%M} in stream time", style="bold")
    )
    for need in report.needs:
        console.print(Text(f"needs you: {need}", style="bold red"), soft_wrap=True)
    for notice in report.notices:
        console.print(Text(notice, style="yellow"), soft_wrap=True)
    if not report.needs and not report.notices:
        console.print(Text("nothing needs you", style="green"))
    console.print()
    for name, said in facts(report):
        console.print(Text(f"{name:<12} {said}"), soft_wrap=True)
    _performance(report, console)
    _incidents(report, console)
    _drift(report, console)


def facts(report: Report) -> list[tuple[str, str]]:
    """The figures that need no table."""
    found = [("champion", _champion(report))]
    trial = report.trial
    if trial is not None:
        says = f"; {trial.compared.finding.value}, {compared(trial.compared)}" if trial.compared is not None else ""
        found.append(("trial", f"version {trial.version} beside version {trial.against}, {trial.step}{says}"))
    if report.mean is not None:
        left = report.mean_left_out
        without = f", without {left} window{'s' * (left > 1)} of broken data" if left else ""
        found.append(("performance", f"{_loss(report.mean)} over {report.mean.rows:,} labels{without}"))
    found.append(("decisions", _counts(report.decisions)))
    found.append(("runs", _counts(report.runs)))
    found += [("person", f"{word.at:%Y-%m-%d %H:%M} {word.by}: {word.text}") for word in report.people]
    labels = report.labels
    if labels is not None:
        found.append(
            (
                "labels",
                f"{labels.matured:,} matured ({labels.new:,} new), {labels.pending:,} pending, {labels.expired:,} expired, "
                f"{labels.late:,} late, {labels.duplicated:,} came again, {labels.orphaned:,} without a question",
            )
        )
    skew = report.skew
    if skew is None:
        found.append(("skew", "no difference between online and offline was reported"))
    else:
        found.append(
            ("skew", f"{skew.finding.value} {skew.at:%Y-%m-%d %H:%M}: {skew.differing:,} of {skew.checked:,} differ")
        )
    return found


def _champion(report: Report) -> str:
    if report.champion is None:
        return "none yet"
    since = f", answers since {report.answers_since:%Y-%m-%d %H:%M}" if report.answers_since is not None else ""
    learned = "trained on what was labelled by" if report.fitted else "learned until"
    age = (
        f", {learned} {report.learned_until:%Y-%m-%d} ({report.age_days:.1f} days ago)" if report.learned_until else ""
    )
    before = f", before it version {report.previous}" if report.previous is not None else ""
    return f"version {report.champion}{since}{age}{before}"


def _counts(counts: dict[str, int]) -> str:
    return (
        ", ".join(f"{count} {name.removesuffix('s') if count == 1 else name}" for name, count in counts.items())
        or "none"
    )


def _loss(loss: Loss) -> str:
    interval = f" ({loss.low:.4f} to {loss.high:.4f})" if loss.low is not None and loss.high is not None else ""
    return f"{loss.metric.replace('_', ' ')} {loss.value:.4f}{interval}"


def _performance(report: Report, console: Console) -> None:
    if not report.performance:
        return
    table = Table(
        box=None, padding=(0, 2), header_style="dim", title="performance per window of labels", title_justify="left"
    )
    for name in ("until", "version", "rows", "loss", "", "finding"):
        table.add_column(name, justify="right" if name == "rows" else "left", no_wrap=True)
    shown = report.performance[-MOST_WINDOWS:]
    edges = [edge for one in shown for edge in (one.loss.low, one.loss.high, one.loss.value) if edge is not None]
    for one in shown:
        table.add_row(
            f"{one.at:%Y-%m-%d %H:%M}",
            one.version,
            f"{one.loss.rows:,}",
            _loss(one.loss),
            span(one.loss.low, one.loss.value, one.loss.high, (min(edges), max(edges)), BAR),
            finding_of(one),
        )
    console.print()
    console.print(table)


def finding_of(one: Measured) -> str:
    """What the window said, and what late labels made of it."""
    said = one.finding.replace("_", " ") + (", estimated" if one.kind is WindowKind.ESTIMATED else "")
    if one.was is None:
        return said
    labels = f"{one.late:,} late label{'s' * (one.late > 1)}"
    turned = f", {one.shows.replace('_', ' ')} with them" if one.shows else ""
    return f"{said}; corrected by {labels}, was {one.was.value:.4f}{turned}"


def _incidents(report: Report, console: Console) -> None:
    console.print()
    if not report.incidents:
        console.print(Text("no incident", style="dim"))
        return
    table = Table(box=None, padding=(0, 2), header_style="dim", title="incidents", title_justify="left")
    for name in ("#", "began", "what", "came of it"):
        table.add_column(name, justify="right" if name == "#" else "left")
    for one in report.incidents:
        style = FATES.get(one.fate, "")
        table.add_row(str(one.number), f"{one.began:%Y-%m-%d %H:%M}", Text(one.title), Text(one.outcome, style=style))
    console.print(table)
    console.print(Text(f"each of them: millstream why {report.loop} NUMBER", style="dim"))


def _drift(report: Report, console: Console) -> None:
    if report.drift_at is None:
        return
    title = f"drift now ({report.drift_finding.replace('_', ' ')}, window until {report.drift_at:%Y-%m-%d %H:%M})"
    table = Table(box=None, padding=(0, 2), header_style="dim", title=title, title_justify="left")
    for name in ("column", "PSI", "importance", "missing", "PSI × importance"):
        table.add_column(name, justify="left" if name in ("column", "PSI × importance") else "right")
    largest = max((one.psi * one.importance for one in report.drift), default=0.0)
    for one in report.drift[:MOST_COLUMNS]:
        table.add_row(
            one.column,
            f"{one.psi:.3f}",
            f"{one.importance:.2f}",
            f"{one.missing:.1%}",
            bar(one.psi * one.importance, largest, BAR),
        )
    console.print()
    console.print(table)


def as_json(report: Report) -> dict[str, Any]:
    """All of it for scripts."""
    found: dict[str, Any] = msgspec.to_builtins(report)
    return found | {"age_days": None if report.age_days is None else round(report.age_days, 3)}
