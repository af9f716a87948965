"""Writes deploy/dashboards: Grafana's dashboards, from the metrics as the code introduces them.

python tools/dashboards.py            rewrite what is stale
python tools/dashboards.py --check    exit 1 and name what is stale
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alerts import ROOT, SERIES, SERVICES, series_of
from metrics_table import declared
from panels import LOOP, PROCESS, SCALING, Panel, panel_of

FOLDER = ROOT / "deploy" / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
DECLARED = declared()
BY_SERIES = {series: metric for metrics in DECLARED.values() for metric in metrics for series in metric.series}
WHERE = 'namespace=~"$namespace"'
WIDE, HIGH, COLUMNS = 8, 8, 24


def described(panel: Panel) -> str:
    """What the code says of the metrics, each once."""
    names = dict.fromkeys(name for expr, _ in panel.asks for name, _ in series_of(expr))
    metrics = dict.fromkeys(BY_SERIES[name] for name in names if name in BY_SERIES)
    return "\n\n".join(f"`{one.name}`: {one.meaning} {one.remedy}" for one in metrics)


def chosen(expr: str) -> str:
    """The query for what is chosen above the dashboard. Without namespaces every value of that label is none."""

    def selector(found: Any) -> str:
        own = [found[2]] if found[2] else []
        own += ['loop=~"$loop"'] if found[1] in BY_SERIES and "loop" in BY_SERIES[found[1]].labels else []
        if found[1] in BY_SERIES and BY_SERIES[found[1]] in DECLARED["every service"]:
            own.append('job=~"$job"')
        return f"{found[1]}{{{', '.join([*own, WHERE])}}}"

    return SERIES.sub(selector, expr)


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def dashboard(name: str, about: str, rows: dict[str, Sequence[Panel]], jobs: str) -> dict[str, Any]:
    """Grafana's JSON. `jobs` is a series of the services that it is about: they are those of its jobs."""
    return {
        "uid": f"millstream-{name}",
        "title": f"Millstream: {name}",
        "description": about,
        "tags": ["millstream"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "links": [
            {"type": "dashboards", "title": "Millstream", "tags": ["millstream"], "asDropdown": True, "keepTime": True}
        ],
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
                _variable("namespace", f"label_values({jobs}, namespace)"),
                _variable("job", f"label_values({jobs}, job)"),
                _variable("loop", "label_values(millstream_predictions_served_total, loop)"),
            ]
        },
        "panels": list(_panels(rows)),
    }


def _panels(rows: dict[str, Sequence[Panel]]) -> Iterator[dict[str, Any]]:
    top = number = 0
    for heading, panels in rows.items():
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": heading,
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1},
        }
        top += 1
        for place, panel in enumerate(panels):
            number += 1
            at = {"x": place * WIDE % COLUMNS, "y": top + place * WIDE // COLUMNS * HIGH, "w": WIDE, "h": HIGH}
            yield _panel(panel, number) | {"gridPos": at}
        top += -(-len(panels) * WIDE // COLUMNS) * HIGH


def _panel(panel: Panel, number: int) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + at), "datasource": SOURCE, "expr": chosen(expr), "legendFormat": legend}
        for at, (expr, legend) in enumerate(panel.asks)
    ]
    return {
        "id": number,
        "type": "stat" if panel.steady else "timeseries",
        "title": panel.title,
        "description": described(panel),
        "datasource": SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "options": {"reduceOptions": {"calcs": ["lastNotNull"]}}
        if panel.steady
        else {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": targets,
    }


def dashboards() -> dict[str, dict[str, Any]]:
    found = {
        "loop": dashboard(
            "loop", "One loop: answers, truth, drift, learning, rollout.", LOOP, "millstream_predictions_served_total"
        ),
        "scaling": dashboard(
            "scaling",
            "What waits, what is turned away, and who is there for it.",
            SCALING,
            "millstream_records_published_total",
        ),
    }
    for service in SERVICES:
        metrics = DECLARED[service]
        rows = {
            service: [panel_of(metric) for metric in metrics],
            "Kafka": [panel_of(metric) for metric in DECLARED["every service"]],
            "Process": PROCESS,
        }
        first = next(iter(metrics[0].series))
        found[service] = dashboard(service, f"Every metric of {service}, as its code introduces it.", rows, first)
    return found


def text_of(found: dict[str, Any]) -> str:
    """A panel is a line: a change of one is seen as that."""
    panels = ",\n  ".join(json.dumps(panel, ensure_ascii=False) for panel in found["panels"])
    rest = [
        f"{json.dumps(key)}: {json.dumps(said, ensure_ascii=False)}" for key, said in found.items() if key != "panels"
    ]
    return "{\n " + ",\n ".join([*rest, f'"panels": [\n  {panels}\n ]']) + "\n}\n"


def wanted() -> dict[Path, str]:
    """Every generated file and what it should hold."""
    return {FOLDER / f"{name}.json": text_of(found) for name, found in dashboards().items()}


def stale() -> list[Path]:
    return [path for path, text in wanted().items() if not path.exists() or path.read_text() != text]


def main() -> int:
    found = stale()
    if "--check" in sys.argv[1:]:
        for path in found:
            print(f"stale: {path.relative_to(ROOT)} (run: make generate)")
        return 1 if found else 0
    files = wanted()
    FOLDER.mkdir(exist_ok=True)
    for path in found:
        path.write_text(files[path])
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
