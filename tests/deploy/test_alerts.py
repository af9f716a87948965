"""Rules ask for what the code says, come when they should, and each has a page. Prometheus' own tool evaluates them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from .charts import ROOT, SERVICES, documents, of_kind, read_yaml, template
from .watch import SERIES, alerts, faults, rules

TESTS = ROOT / "deploy" / "alerts" / "tests"
PAGES = ROOT / "docs" / "runbooks"
HEADINGS = ["## What it means", "## How to see it", "## What to do"]
ALERTS = {rule["alert"]: (file, rule) for file, rule in rules() if "alert" in rule}
ENOUGH_FACTS = {"promise", "summary", "remedy", "runbook"}


def promise(promtool: Path, *arguments: str | Path, cwd: Path = ROOT) -> None:
    said = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False, timeout=120, cwd=cwd)
    assert said.returncode == 0, said.stdout + said.stderr


def test_what_is_generated_is_current() -> None:
    assert [path.relative_to(ROOT).as_posix() for path in alerts.stale()] == [], "run: make generate"


@pytest.mark.parametrize(("file", "rule"), [pytest.param(*one, id=str(number)) for number, one in enumerate(rules())])
def test_a_rule_asks_for_what_the_code_says(file: str, rule: dict[str, Any]) -> None:
    assert list(faults(rule["expr"])) == [], f"{file}: {rule}"


def test_a_mistake_in_a_rule_is_seen() -> None:
    for wrong, says in {
        "millstream_events_taken_total > 0": "no metric millstream_events_taken_total",
        'millstream_events_applied_total{loop="delay"} > 0': "has no label loop",
        'millstream_requests_refused_total{reason="bussy"} > 0': "no code says reason=bussy",
        'millstream_event_readable_seconds_bucket{le="4.0"} > 0': "has no bucket 4.0",
        "sum by (stream) (millstream_skew_share) > 0": "none of its metrics has the label stream",
        "vector(1) > 0": "it asks for no metric",
    }.items():
        assert says in " ".join(faults(wrong)), wrong


def test_an_alert_has_its_name_for_itself_and_says_what_was_promised_and_what_to_do() -> None:
    own = [rule["alert"] for file, rule in rules() if "alert" in rule and file != "slo"]

    assert len(own) == len(set(own)) > 25
    assert len({slo.alert for slo in alerts.objectives()} - set(own)) == len(alerts.objectives())
    for name, (_, rule) in ALERTS.items():
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        assert set(rule["annotations"]) == ENOUGH_FACTS, name
        assert rule["annotations"]["runbook"] == f"docs/runbooks/{name}.md"


def test_each_alert_has_a_page_and_each_page_an_alert() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == set(ALERTS) | {"README"}
    for name in ALERTS:
        lines = (PAGES / f"{name}.md").read_text().splitlines()
        assert lines[0] == f"# {name}"
        assert [line for line in lines if line.startswith("##")] == HEADINGS, name


def test_pages_name_metrics_that_there_are() -> None:
    said = "\n".join(path.read_text() for path in PAGES.glob("*.md"))
    names = {name for name, _ in alerts.series_of(said) if name.startswith("millstream_")}

    assert names
    families = {series.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for series in SERIES}
    assert names <= set(SERIES) | families


@pytest.mark.parametrize("file", [alerts.EVERY, *SERVICES, "slo"])
def test_each_alert_comes_in_a_test_and_stays_away_in_another(file: str) -> None:
    said = read_yaml(TESTS / f"{file}.yaml")
    assert said["rule_files"] == [f"../{file}.yaml"]
    samples = [check["exp_samples"] for test in said["tests"] for check in test["promql_expr_test"]]
    come = {sample["labels"].partition('alertname="')[2].partition('"')[0] for some in samples for sample in some}

    assert {name for name, (where, _) in ALERTS.items() if where == file} <= come
    for name in come - {""}:
        assert any(f'alertname="{name}"' not in str(some) for some in samples), name


def test_promtool_reads_the_rules(promtool: Path) -> None:
    files = [ROOT / "deploy" / "alerts" / f"{name}.yaml" for name in (alerts.EVERY, *SERVICES, "slo")]

    promise(promtool, "check", "rules", "--lint=all", "--lint-fatal", *files)


def test_alerts_come_when_they_should_and_only_then(promtool: Path) -> None:
    promise(promtool, "test", "rules", *sorted(TESTS.glob("*.yaml")))


def test_the_prometheus_of_compose_reads_them_all(promtool: Path, tmp_path: Path) -> None:
    """As they are mounted: the rules beside the configuration."""
    shutil.copy(ROOT / "deploy" / "observability" / "prometheus.yml", tmp_path)
    (tmp_path / "alerts").symlink_to(ROOT / "deploy" / "alerts")

    promise(promtool, "check", "config", "--lint=all", "--lint-fatal", tmp_path / "prometheus.yml")


@pytest.mark.parametrize("service", SERVICES)
def test_a_chart_has_the_rules_of_its_service_and_asks_for_its_own_release_alone(
    helm: Path, promtool: Path, service: str, tmp_path: Path
) -> None:
    (found,) = of_kind(
        documents(template(helm, service, "minimal-values.yaml", "prometheusRule.enabled=true")), "PrometheusRule"
    )
    rules_there = [rule for group in found["spec"]["groups"] for rule in group["rules"]]
    own = {name for name, (file, rule) in ALERTS.items() if file in (alerts.EVERY, service)}
    own |= {slo.alert for slo in alerts.objectives() if slo.service == service}

    assert {rule["alert"] for rule in rules_there if "alert" in rule} == own
    for rule in rules_there:
        for name, selector in alerts.series_of(rule["expr"]):
            assert 'namespace="mill",service=~"' in selector, f"{name} is asked of everybody's pods"
        if "record" in rule:
            assert rule["labels"]["namespace"] == "mill"
            assert rule["labels"]["service"] == service
    with (tmp_path / "rules.yaml").open("w") as file:
        YAML().dump({"groups": found["spec"]["groups"]}, file)
    promise(promtool, "check", "rules", tmp_path / "rules.yaml")
