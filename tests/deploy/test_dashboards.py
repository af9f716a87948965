"""Dashboards are generated, ask for what the code says, and leave no metric out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from .charts import ALL, ROOT, SERVICES, documents, of_kind, template
from .test_alerts import promise
from .watch import METRICS, alerts, dashboards, faults, metrics_table

FOLDER = ROOT / "deploy" / "dashboards"
FOUND = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def queries(name: str) -> Iterator[tuple[str, str]]:
    for panel in FOUND[name]["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def test_what_is_generated_is_current_and_nothing_else_is_there() -> None:
    assert [path.relative_to(ROOT).as_posix() for path in dashboards.stale()] == [], "run: make generate"
    assert set(FOUND) == {"loop", "scaling", *SERVICES}


@pytest.mark.parametrize("name", FOUND)
def test_a_dashboard_asks_for_what_the_code_says(name: str) -> None:
    asked = list(queries(name))
    assert len(asked) > 10
    for title, expr in asked:
        assert list(faults(expr)) == [], f"{name}: {title}: {expr}"


@pytest.mark.parametrize("service", SERVICES)
def test_every_metric_of_a_service_is_on_its_dashboard_with_what_the_code_says_of_it(service: str) -> None:
    shown = {name for _, expr in queries(service) for name, _ in alerts.series_of(expr)}
    said = "\n".join(panel.get("description", "") for panel in FOUND[service]["panels"])

    declared = metrics_table.declared()
    for metric in (*declared[service], *declared["every service"]):
        assert shown & set(metric.series), metric.name
        assert metric.remedy in said, metric.name


@pytest.mark.parametrize("name", FOUND)
def test_a_dashboard_is_laid_out_without_overlaps_and_every_variable_is_there(name: str) -> None:
    panels: list[dict[str, Any]] = FOUND[name]["panels"]
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not own & cells, panel["title"]
        assert max(x for x, _ in own) < 24
        cells |= own
    assert len({panel["id"] for panel in panels}) == len(panels)
    used = set(re.findall(r"\$\{?(\w+)\}?", json.dumps(panels))) - {"__rate_interval"}
    assert used <= {variable["name"] for variable in FOUND[name]["templating"]["list"]}


def test_a_dashboard_has_an_address_of_its_own() -> None:
    assert len({found["uid"] for found in FOUND.values()}) == len(FOUND)
    assert len(METRICS) > 90


def test_promtool_reads_every_query(promtool: Path, tmp_path: Path) -> None:
    asked = [expr.replace("$__rate_interval", "5m") for name in FOUND for _, expr in queries(name)]
    rules = [{"record": f"dashboard:query:{number}", "expr": expr} for number, expr in enumerate(asked)]
    with (tmp_path / "queries.yaml").open("w") as file:
        YAML().dump({"groups": [{"name": "queries", "rules": rules}]}, file)

    promise(promtool, "check", "rules", tmp_path / "queries.yaml")


@pytest.mark.parametrize("chart", ALL)
def test_a_chart_brings_its_dashboards_where_it_is_asked_to(helm: Path, chart: str) -> None:
    def boards(*sets: str) -> list[Any]:
        found = of_kind(documents(template(helm, chart, "minimal-values.yaml", *sets)), "ConfigMap")
        return [one for one in found if one["metadata"]["name"].endswith("-dashboards")]

    (found,) = boards("dashboards.enabled=true", "dashboards.labels.team=loop")
    names = [chart] if chart in SERVICES else ["loop", "scaling"]

    assert boards() == []
    assert {"grafana_dashboard": "1", "team": "loop"}.items() <= found["metadata"]["labels"].items()
    assert {name: json.loads(text) for name, text in found["data"].items()} == {
        f"millstream-{name}.json": FOUND[name] for name in names
    }
