"""How an incident looks: on a terminal, as JSON for scripts, and what both show of its windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from millstream.contracts.events import ChallengerJudged, Finding, WindowJudged, WindowKind
from millstream_cli.charts import bar, between
from millstream_cli.effects import before_and_after
from millstream_cli.incidents import Fate, Incident, RunStory
from millstream_cli.loop_events import Loop
from millstream_cli.telling import Moment, moved_columns, outcome_of, timeline, title_of
from millstream_cli.troubles import WORDS

BEFORE, AFTER = 4, 3
"""Windows before the trouble and after its end that show what was normal."""
MOST_LINES = 24
"""Windows or looks of one chart on a terminal; the page and --json have all."""
BAR = 30
STYLES = {
    Finding.HEALTHY: "green",
    Finding.CLEARED: "green",
    Finding.SUSPECTED: "yellow",
    Finding.DETECTED: "red",
    Finding.PERFORMANCE_DROP: "red",
    Finding.BROKEN_DATA: "red",
    Finding.NOT_CLEARED: "red",
}
FATES = {
    Fate.PROMOTED: "green",
    Fate.ROLLED_BACK: "red",
    Fate.FAILED: "red",
    Fate.PENDING: "yellow",
    Fate.OPEN: "yellow",
}


def windows_shown(loop: Loop, incident: Incident) -> dict[WindowKind, list[WindowJudged]]:
    """Per kind that was in trouble: its windows with some before and after, so that one sees what was normal."""
    shown = {}
    for kind in dict.fromkeys(one.kind for one in incident.troubles):
        windows = [one for one in loop.windows if one.kind is kind]
        first = min(one.windows[0].at for one in incident.troubles if one.kind is kind)
        last = max(incident.ended, max(one.windows[-1].at for one in incident.troubles if one.kind is kind))
        before = [one for one in windows if one.at < first][-BEFORE:]
        during = [one for one in windows if first <= one.at <= last]
        after = [one for one in windows if one.at > last][:AFTER]
        shown[kind] = [*before, *during, *after]
    return shown


def show(loop: Loop, incident: Incident, console: Console) -> None:
    """The timeline, with the charts above it."""
    console.print(
        Text(f"{loop.name}, incident {incident.number}: {title_of(incident)}", style="bold"),
        soft_wrap=True,
    )
    console.print(Text(f"{outcome_of(incident)}", style=FATES.get(incident.fate, "")), soft_wrap=True)
    for kind, windows in windows_shown(loop, incident).items():
        _windows(kind, windows, console)
    for trouble in incident.troubles:
        _columns(trouble.worst, console)
    for run in incident.runs:
        _trial(run, console)
    console.print()
    for moment in timeline(loop, incident):
        _moment(moment, console)


def _windows(kind: WindowKind, windows: Sequence[WindowJudged], console: Console) -> None:
    table = Table(
        box=None, padding=(0, 2), header_style="dim", title=f"effect per window, {WORDS[kind]}", title_justify="left"
    )
    for name in ("window until", "version", "rows", "effect", "", "finding"):
        table.add_column(name, justify="right" if name in ("rows", "effect") else "left", no_wrap=True)
    largest = max((one.effect for one in windows), default=0.0)
    for one in windows[-MOST_LINES:]:
        style = STYLES[one.finding]
        table.add_row(
            f"{one.at:%Y-%m-%d %H:%M}",
            one.version,
            f"{one.rows:,}",
            f"{one.effect:.4f}",
            Text(bar(one.effect, largest, BAR), style=style),
            Text(one.finding.value.replace("_", " "), style=style),
        )
    console.print()
    console.print(table)


def _columns(window: WindowJudged, console: Console) -> None:
    moved = moved_columns(window)
    if not moved:
        return
    table = Table(box=None, padding=(0, 2), header_style="dim", title="columns that moved most", title_justify="left")
    for name in ("column", "PSI", "importance", "PSI × importance"):
        table.add_column(name, justify="left" if name in ("column", "PSI × importance") else "right")
    largest = max(psi * importance for _, psi, importance in moved)
    for column, psi, importance in moved:
        table.add_row(column, f"{psi:.2f}", f"{importance:.2f}", bar(psi * importance, largest, BAR))
    console.print()
    console.print(table)


def _trial(run: RunStory, console: Console) -> None:
    """Trial and watch are series of their own: the watch counts its pairs anew."""
    series = [(name, looks) for name, found in series_of(run) if (looks := _spread(found, MOST_LINES))]
    scale = max((abs(edge) for _, looks in series for one in looks for edge in (one.low, one.high)), default=0.0)
    for name, looks in series:
        title = f"{name}, version {run.version} beside version {looks[-1].against}"
        title += ": difference of the loss, below 0 the new one is better"
        table = Table(box=None, padding=(0, 2), header_style="dim", title=title, title_justify="left")
        for column in ("until", "pairs", "difference", "interval", "", "finding"):
            table.add_column(column, justify="right" if column in ("pairs", "difference") else "left", no_wrap=True)
        for one in looks:
            table.add_row(
                f"{one.at:%Y-%m-%d %H:%M}",
                f"{one.pairs:,}",
                f"{one.difference:+.5f}",
                f"{one.low:+.5f} to {one.high:+.5f}",
                between(one.low, one.difference, one.high, scale, BAR + 1),
                one.finding.value,
            )
        if not looks[-1].watch and run.promoted_at is not None:
            table.add_row(f"{run.promoted_at:%Y-%m-%d %H:%M}", "", "", "", "", Text("promoted", style="green"))
        console.print()
        console.print(table)


def series_of(run: RunStory) -> list[tuple[str, list[ChallengerJudged]]]:
    """The comparisons that have pairs, as series with their names."""
    found = [("on trial", run.trial), ("on watch", run.watch)]
    return [(name, looks) for name, judged in found if (looks := [one for one in judged if one.pairs])]


def _spread(looks: Sequence[ChallengerJudged], most: int) -> Sequence[ChallengerJudged]:
    """At most so many, evenly, the first and the last among them."""
    if len(looks) <= most:
        return looks
    return [looks[round(n * (len(looks) - 1) / (most - 1))] for n in range(most)]


def _moment(moment: Moment, console: Console) -> None:
    style = {"outcome": "bold", "decision": "cyan", "rollout": "cyan"}.get(moment.what, "")
    console.print(Text(f"{moment.at:%Y-%m-%d %H:%M}  {moment.what:<9} {moment.text}", style=style), soft_wrap=True)
    for detail in moment.details:
        console.print(Text(f"{'':28}{detail}", style="dim"), soft_wrap=True)


def show_list(loop: Loop, console: Console) -> None:
    """Every incident, a line each."""
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for name in ("#", "began", "cause", "what", "came of it"):
        table.add_column(name, justify="right" if name == "#" else "left")
    for one in loop.incidents:
        table.add_row(
            ", ".join(map(str, (one.number, *one.others))),
            f"{one.began:%Y-%m-%d %H:%M}",
            one.cause.replace("_", " "),
            Text(title_of(one)),
            Text(outcome_of(one), style=FATES.get(one.fate, "")),
        )
    console.print(table)


def summary_of(incident: Incident) -> dict[str, Any]:
    """One line of --list for scripts."""
    return {
        "number": incident.number,
        "joined_by": incident.others,
        "id": incident.id,
        "began": _time(incident.began),
        "ended": None if incident.open else _time(incident.ended),
        "cause": incident.cause,
        "title": title_of(incident),
        "fate": incident.fate.value,
        "cured": incident.cured or None,
        "open": incident.open,
        "outcome": outcome_of(incident),
        "runs": [run.name for run in incident.runs],
        "versions": [run.version for run in incident.runs if run.version is not None],
    }


def as_json(loop: Loop, incident: Incident) -> dict[str, Any]:
    """All of it for scripts."""
    return {
        "loop": loop.name,
        "incident": summary_of(incident),
        "windows": {
            kind.value: [_without_columns(one) for one in windows]
            for kind, windows in windows_shown(loop, incident).items()
        },
        "columns": {
            one.kind.value: msgspec.to_builtins(sorted(one.worst.columns, key=lambda c: -c.psi * c.importance))
            for one in incident.troubles
            if one.worst.columns
        },
        "trials": {run.name: msgspec.to_builtins(run.judged) for run in incident.runs if run.judged},
        "effects": {
            run.name: msgspec.to_builtins(effect)
            for run in incident.runs
            if (effect := before_and_after(loop, run)) is not None
        },
        "timeline": msgspec.to_builtins(timeline(loop, incident)),
    }


def _without_columns(window: WindowJudged) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.to_builtins(window)
    return {name: value for name, value in row.items() if name not in ("columns", "slices", "broken")}


def _time(moment: Any) -> str:
    return str(msgspec.to_builtins(moment))
