"""A loop's report as a page of its own."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.contracts.events import WindowKind
from millstream_cli import charts
from millstream_cli.charts import Point
from millstream_cli.incident_page import CLASSES
from millstream_cli.loop_report import Measured, Report
from millstream_cli.page import Child, el, html, table
from millstream_cli.report_view import facts, finding_of


def page_of(report: Report) -> str:
    """The page."""
    said = [el("li", need, class_="bad") for need in report.needs]
    said += [el("li", notice, class_="warn") for notice in report.notices]
    needs: Child = el("ul", *said) if said else el("p", "Nothing needs you.", class_="good")
    body: list[Child] = [
        el("h1", f"{report.loop}: report"),
        el("p", f"{report.since:%Y-%m-%d} to {report.now:%Y-%m-%d %H:%M} in stream time", class_="dim"),
        needs,
        table(("", ""), facts(report)),
    ]
    titles = {WindowKind.PERFORMANCE: "Performance", WindowKind.ESTIMATED: "Performance, estimated before labels"}
    for kind, title in titles.items():
        body += _trend([one for one in report.performance if one.kind is kind], title)
    body.append(el("h2", "Incidents"))
    body.append(
        table(
            ("#", "began", "what", "came of it"),
            [
                (
                    str(one.number),
                    f"{one.began:%Y-%m-%d}",
                    one.title,
                    el("span", one.outcome, class_=CLASSES.get(one.fate)),
                )
                for one in report.incidents
            ],
            numbers=(0,),
        )
        if report.incidents
        else el("p", "None.", class_="dim")
    )
    if report.drift_at is not None:
        says = f"{report.drift_finding.replace('_', ' ')}, window until {report.drift_at:%Y-%m-%d %H:%M}"
        body += [el("h2", "Drift now"), el("p", says, class_="dim"), _drift(report)]
    return html(f"{report.loop}: report", *body)


def _trend(measured: Sequence[Measured], title: str) -> list[Child]:
    if not measured:
        return []
    points = [
        Point(
            label=f"{one.at:%Y-%m-%d}",
            value=one.loss.value,
            low=one.loss.low,
            high=one.loss.high,
            color=charts.BLUE if (one.shows or one.finding) in ("healthy", "cleared") else charts.BAD,
            title=f"{one.at:%Y-%m-%d %H:%M}, version {one.version}: {one.loss.value:.4f}, {finding_of(one)}",
        )
        for one in measured
    ]
    name = f"{title}: {measured[-1].loss.metric.replace('_', ' ')} per window"
    corrected = [one for one in measured if one.was is not None]
    if not corrected:
        return [el("h2", name), charts.line([points], name)]
    says = f"{len(corrected)} of {len(measured)} windows with labels that came late:"
    lines = [el("li", f"until {one.at:%Y-%m-%d %H:%M}: {one.loss.value:.4f}, {finding_of(one)}") for one in corrected]
    return [el("h2", name), charts.line([points], name), el("p", says, class_="dim"), el("ul", *lines)]


def _drift(report: Report) -> Child:
    return table(
        ("column", "PSI", "importance", "missing", "in training"),
        [
            (
                one.column,
                f"{one.psi:.3f}",
                f"{one.importance:.2f}",
                f"{one.missing:.1%}",
                f"{one.reference_missing:.1%}",
            )
            for one in report.drift
        ],
        numbers=(1, 2, 3, 4),
    )
