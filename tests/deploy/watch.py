"""What watches the services, as the tests see it: metrics as the code declares them, rules, and what a query asks for."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from .charts import ROOT, SERVICES

sys.path.append(str(ROOT / "tools"))

import alerts
import dashboards
import metrics_table

__all__ = ["FOREIGN", "METRICS", "SERIES", "SERVICES", "alerts", "dashboards", "faults", "metrics_table"]

METRICS = [metric for metrics in metrics_table.declared().values() for metric in metrics]
FOREIGN = {
    "up": {"job", "instance"},
    "process_resident_memory_bytes": {"job", "instance"},
    "process_cpu_seconds_total": {"job", "instance"},
    "ALERTS": {"alertname", "alertstate", "severity"},
}
"""What Prometheus and its client say of every process."""
SERIES: Mapping[str, set[str]] = {
    name: labels for metric in METRICS for name, labels in metric.series.items()
} | FOREIGN
BOUNDS = {f"{metric.name}_bucket": {f"{bound}" for bound in metric.bounds} for metric in METRICS if metric.bounds}
RECORDED = {
    rule["record"]: set(rule["labels"])
    for slo in alerts.objectives()
    for rule in alerts.slo_rules(slo)
    if "record" in rule
}
TARGET = {"job", "instance", "namespace", "service", "pod"}
"""Labels that Prometheus gives to whatever it reads."""
MATCHER = re.compile(r"(\w+)(=~|!~|!=|=)\"((?:[^\"\\]|\\.)*)\"")


def words_of_code() -> set[str]:
    """Every word in quotes in the code: a label's value that is none of them is never said."""
    sources = (path for folder in ("libs", "services") for path in (ROOT / folder).glob("*/src/**/*.py"))
    return set(re.findall(r"[\"']([a-z0-9_-]+)[\"']", "\n".join(path.read_text() for path in sources)))


WORDS = words_of_code()


def faults(expr: str) -> Iterator[str]:
    """What a query asks for that no code says: series, labels, values of labels, bounds of buckets."""
    asked: set[str] = set()
    series = alerts.series_of(expr)
    for name, selector in series:
        labels = SERIES.get(name, RECORDED.get(name))
        if labels is None:
            yield f"no metric {name}"
            continue
        asked |= labels
        for label, how, value in MATCHER.findall(selector):
            if label not in labels | TARGET:
                yield f"{name} has no label {label}, but {sorted(labels)}"
            elif label == "le":
                if value not in BOUNDS[name]:
                    yield f"{name} has no bucket {value}, but {sorted(BOUNDS[name], key=float)}"
            elif name in SERIES and name not in FOREIGN and not value.startswith("$"):
                for one in value.split("|") if "~" in how else [value]:
                    if one not in WORDS:
                        yield f"no code says {label}={one}"
    if not series:
        yield "it asks for no metric"
    for group in re.findall(r"\b(?:by|on|ignoring|without)\s*\(([^)]*)\)", expr):
        for label in filter(None, re.split(r",\s*", group)):
            if label not in asked | TARGET:
                yield f"none of its metrics has the label {label}"


def rules() -> list[tuple[str, Mapping[str, Any]]]:
    """Each rule with its file."""
    own = [(name, rule) for name in (alerts.EVERY, *alerts.SERVICES) for rule in alerts.rules_of(name)]
    return own + [("slo", rule) for slo in alerts.objectives() for rule in alerts.slo_rules(slo)]
