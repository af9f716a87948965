"""An incident as a page of its own: charts, columns, trial, and the timeline with the id of every event."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from millstream.contracts.events import ChallengerJudged, ColumnDrift, Finding, WindowJudged, WindowKind
from millstream_cli import charts
from millstream_cli.charts import Point
from millstream_cli.incident_view import series_of, windows_shown
from millstream_cli.incidents import Fate, Incident, RunStory
from millstream_cli.loop_events import Loop
from millstream_cli.page import Child, el, html, table
from millstream_cli.telling import Moment, moved_columns, outcome_of, timeline, title_of
from millstream_cli.troubles import WORDS

COLORS = {Finding.HEALTHY: charts.GOOD, Finding.CLEARED: charts.GOOD, Finding.SUSPECTED: charts.WARN}
CLASSES = {Fate.PROMOTED: "good", Fate.ROLLED_BACK: "bad", Fate.FAILED: "bad", Fate.PENDING: "warn", Fate.OPEN: "warn"}


def page_of(loop: Loop, incident: Incident) -> str:
    """The page."""
    title = f"{loop.name}: {title_of(incident)}"
    body: list[Child] = [
        el("h1", title),
        el("p", outcome_of(incident), class_=CLASSES.get(incident.fate)),
        el(
            "p",
            f"Incident {incident.number}, {incident.began:%Y-%m-%d %H:%M} to "
            f"{incident.ended:%Y-%m-%d %H:%M} in stream time{', and open' if incident.open else ''}.",
            class_="dim",
        ),
    ]
    for kind, windows in windows_shown(loop, incident).items():
        body += windows_section(kind, windows)
    for trouble in incident.troubles:
        if moved_columns(trouble.worst):
            body += [el("h2", "Columns that moved"), columns_table(trouble.worst)]
    for run in incident.runs:
        body += _gate(run) + _trial(run)
    body += [el("h2", "What happened"), el("ol", *(_moment(one) for one in timeline(loop, incident)), class_="time")]
    return html(title, *body)


def windows_section(kind: WindowKind, windows: Sequence[WindowJudged]) -> list[Child]:
    """Effect per window as bars."""
    points = [
        Point(
            label=f"{one.at:%Y-%m-%d}",
            value=one.effect,
            color=COLORS.get(one.finding, charts.BAD),
            title=f"{one.at:%Y-%m-%d %H:%M}, version {one.version}: {one.effect:.4f}, {one.finding.value.replace('_', ' ')}",
        )
        for one in windows
    ]
    name = f"Effect per window, {WORDS[kind]}"
    return [el("h2", name), charts.bars(points, name)]


def columns_table(window: WindowJudged) -> ET.Element:
    """The columns that make up a window's effect."""
    by_name: dict[str, ColumnDrift] = {one.column: one for one in window.columns}
    return table(
        ("column", "PSI", "importance", "missing", "in training"),
        [
            (
                name,
                f"{psi:.2f}",
                f"{importance:.2f}",
                f"{by_name[name].missing:.1%}",
                f"{by_name[name].reference_missing:.1%}",
            )
            for name, psi, importance in moved_columns(window)
        ],
        numbers=(1, 2, 3, 4),
    )


def _gate(run: RunStory) -> list[Child]:
    """What the gate saw; nothing for a run that failed before."""
    end = run.finished
    if end is None or not end.gate:
        return []
    rows = [
        (
            el("span", one.name.replace("_", " "), class_=None if one.passed else "bad"),
            "passed" if one.passed else "failed",
            one.detail,
        )
        for one in end.gate
    ]
    return [el("h2", f"Run {run.name} at the gate"), table(("check", "", "what it saw"), rows)]


def _trial(run: RunStory) -> list[Child]:
    series = series_of(run)
    if not series:
        return []
    last = series[-1][1][-1]
    name = f"Version {run.version} beside version {last.against}: difference of the loss"
    points = [[_look(one) for one in looks] for _, looks in series]
    mark = f"promoted {run.promoted_at:%Y-%m-%d}" if run.promoted_at is not None else ""
    says = [
        f"{series_name}: {looks[-1].finding.value} after {looks[-1].pairs:,} pairs, {looks[-1].difference:+.5f} "
        f"({looks[-1].low:+.5f} to {looks[-1].high:+.5f})"
        for series_name, looks in series
    ]
    end = "Below 0 the new one is better. An interval holds at every look at once; the watch counts its pairs anew."
    return [
        el("h2", name),
        charts.line(points, name, zero=True, mark=mark),
        el("p", f"{'; '.join(says)}. {end}", class_="dim"),
    ]


def _look(one: ChallengerJudged) -> Point:
    return Point(
        label=f"{one.pairs:,} pairs",
        value=one.difference,
        low=one.low,
        high=one.high,
        color={"better": charts.GOOD, "undecided": charts.BLUE}.get(one.finding.value, charts.BAD),
        title=f"{one.at:%Y-%m-%d %H:%M}, {one.pairs:,} pairs{' on watch' if one.watch else ''}: {one.difference:+.5f} "
        f"({one.low:+.5f} to {one.high:+.5f}), {one.finding.value}",
    )


def _moment(moment: Moment) -> ET.Element:
    cause = f", because of {moment.caused_by}" if moment.caused_by else ""
    return el(
        "li",
        el("span", f"{moment.at:%Y-%m-%d %H:%M} ", class_="dim"),
        el("strong", moment.what),
        f" {moment.text}",
        el("ul", *(el("li", one) for one in moment.details)) if moment.details else None,
        el("div", f"{moment.id}{cause}", class_="dim"),
    )
