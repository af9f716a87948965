"""Writes what follows from deploy/alerts: the rules of its objectives, the charts' alerts, and the list of runbooks.

python tools/alerts.py            rewrite what is stale
python tools/alerts.py --check    exit 1 and name what is stale
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
ALERTS = ROOT / "deploy" / "alerts"
SERVICES = ("ingest", "features", "serving", "drift", "trainer")
EVERY = "every-service"
WINDOWS = ("5m", "30m", "1h", "6h")
BURNS = (("critical", 14.4, "1h", "5m"), ("warning", 6.0, "6h", "30m"))
"""Severity, how many times too fast the budget goes, long and short window: 2 % of 30 days' budget in an hour, 5 % in six
(Beyer et al., The Site Reliability Workbook, 2018, chapter 5, table 5-8)."""
RECORDED = "millstream:slo_bad:ratio_rate"
SERIES = re.compile(r"\b(millstream[_:][a-zA-Z0-9_:]+|up|ALERTS|process_[a-z_]+)\b(?:\{([^}]*)\})?")
"""A series in a query, and its selector."""

Rule = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One entry of deploy/slos.yaml. `bad` and `all` are sums; `objective` is the share that has to be good."""

    slo: str
    service: str
    alert: str
    objective: float
    promise: str
    says: str
    bad: Sequence[str]
    all: Sequence[str]

    @property
    def budget(self) -> float:
        return round(1 - self.objective, 6)


def read(path: Path) -> Any:
    return YAML(typ="safe").load(path)


def objectives() -> list[Objective]:
    return [Objective(**entry) for entry in read(ROOT / "deploy" / "slos.yaml")]


def rules_of(name: str) -> list[Rule]:
    """The rules of one file that people write."""
    return [rule for group in read(ALERTS / f"{name}.yaml")["groups"] for rule in group["rules"]]


def slo_rules(slo: Objective) -> Iterator[Rule]:
    """What records an objective's share of bad events, and what alerts on it."""
    for window in WINDOWS:
        bad, every = (_sum(terms, window) for terms in (slo.bad, slo.all))
        # Of no event at all there is no share.
        expr = f"(\n{bad}\n)\n/\n((\n{every}\n) > 0)"
        yield {"record": f"{RECORDED}{window}", "expr": expr, "labels": {"slo": slo.slo}}
    for severity, times, long, short in BURNS:
        most = f"{times:g} * {slo.budget:g}"
        one, other = (f'{RECORDED}{window}{{slo="{slo.slo}"}} > {most}' for window in (long, short))
        yield {
            "alert": slo.alert,
            "expr": f"{one}\nand\n{other}",
            "labels": {"severity": severity, "window": long},
            "annotations": {
                "promise": slo.promise,
                "summary": f"Not held: {slo.says[0].lower()}{slo.says[1:-1]}, {100 * slo.objective:g} % of 30 days. Of the last"
                f" {long} {{{{ $value | humanizePercentage }}}} were not so.",
                "remedy": "The page says where to look.",
                "runbook": f"docs/runbooks/{slo.alert}.md",
            },
        }


def _sum(terms: Sequence[str], window: str) -> str:
    """A counter that nobody has counted yet is no series, and would take the whole sum along."""
    return "\n+\n".join(f"  ({term.replace('WINDOW', window)} or vector(0))" for term in terms)


def series_of(expr: str) -> list[tuple[str, str]]:
    """Every series that a query asks for, with what is in its braces."""
    return [(found[1], found[2] or "") for found in SERIES.finditer(expr)]


def narrowed(expr: str) -> str:
    """The query with `%s` in every selector, where a chart writes what names its release. A job's name is not known there."""

    def selector(found: re.Match[str]) -> str:
        own = "" if found[1] == "up" or not found[2] else f"{found[2]},"
        return f"{found[1]}{{{own}%s}}"

    return SERIES.sub(selector, expr)


def text_of(rules: Sequence[Rule], *, narrow: bool = False) -> str:
    """Rules as YAML. Queries are block scalars, so that quotes in them need none of their own."""
    lines = []
    for rule in rules:
        kind = "record" if "record" in rule else "alert"
        expr = narrowed(rule["expr"]) if narrow else rule["expr"]
        lines += [f"- {kind}: {rule[kind]}", "  expr: |-", *(f"    {line}" for line in expr.splitlines())]
        if "for" in rule:
            lines.append(f"  for: {rule['for']}")
        labels = [f"{name}: {value}" for name, value in rule["labels"].items()]
        labels += ["%l"] if narrow and kind == "record" else []
        lines.append(f"  labels: {{ {', '.join(labels)} }}")
        if kind == "alert":
            lines.append("  annotations:")
            lines += [
                f"    {name}: {json.dumps(said, ensure_ascii=False)}" for name, said in rule["annotations"].items()
            ]
    return "\n".join(lines) + "\n"


def slo_file() -> str:
    lines = ["# The objectives of deploy/slos.yaml as rules. Generated by `make generate`.", "groups:"]
    for service in SERVICES:
        rules = [rule for slo in objectives() if slo.service == service for rule in slo_rules(slo)]
        if rules:
            lines += [f"  - name: millstream-{service}-objectives", "    rules:"]
            lines += [f"      {line}" for line in text_of(rules).splitlines()]
    return "\n".join(lines) + "\n"


def chart_file(service: str) -> str:
    own = [rule for slo in objectives() if slo.service == service for rule in slo_rules(slo)]
    rules = [*rules_of(EVERY), *rules_of(service), *own]
    said = "# This service's rules of deploy/alerts, by `make generate`. What names the release is put for the marks."
    return f"{said}\n{text_of(rules, narrow=True)}"


def runbooks() -> str:
    lines = [
        "# Alerts and objectives",
        "",
        "Generated from deploy/alerts and deploy/slos.yaml by `make generate`. One page an alert: what it means, how to",
        "see it, what to do.",
        "",
        "## Objectives",
        "",
        "Over 30 days. An alert comes when the budget goes 14.4 times too fast (critical: 2 % of it in an hour) or 6 times",
        "(warning: 5 % in six hours), each over a long and a short window, so that it goes as quickly as it came. Where",
        "little is asked, one bad answer is a large share: take the critical one for a warning there.",
        "",
        "| objective | of | good | alert |",
        "| --- | --- | --- | --- |",
    ]
    for slo in objectives():
        lines.append(f"| {slo.says} | {slo.service} | {100 * slo.objective:g} % | [{slo.alert}]({slo.alert}.md) |")
    lines += [
        "",
        "## Alerts",
        "",
        "| alert | of | severity | promise | what happened |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in (EVERY, *SERVICES):
        for rule in rules_of(name):
            said, labels = rule["annotations"], rule["labels"]
            summary = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: found[1].upper(), said["summary"])
            of = "every service" if name == EVERY else name
            page = f"[{rule['alert']}]({rule['alert']}.md)"
            lines.append(f"| {page} | {of} | {labels['severity']} | {said['promise']} | {summary} |")
    return "\n".join(lines) + "\n"


def wanted() -> dict[Path, str]:
    """Every generated file and what it should hold."""
    files = {ALERTS / "slo.yaml": slo_file(), ROOT / "docs" / "runbooks" / "README.md": runbooks()}
    return files | {ROOT / "deploy" / "charts" / service / "alerts.yaml": chart_file(service) for service in SERVICES}


def stale() -> list[Path]:
    return [path for path, text in wanted().items() if not path.exists() or path.read_text() != text]


def main() -> int:
    found = stale()
    if "--check" in sys.argv[1:]:
        for path in found:
            print(f"stale: {path.relative_to(ROOT)} (run: make generate)")
        return 1 if found else 0
    files = wanted()
    for path in found:
        path.write_text(files[path])
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
