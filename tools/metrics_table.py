"""Writes docs/metrics.md: every metric of every service, as the code introduces it.

python tools/metrics_table.py            rewrite it where it is stale
python tools/metrics_table.py --check    exit 1 where it is
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from millstream.runtime.metrics import RuntimeMetrics
from millstream_drift.metrics import DriftMetrics
from millstream_features.metrics import FeatureMetrics
from millstream_ingest.metrics import IngestMetrics
from millstream_serving.metrics import ServingMetrics
from millstream_trainer.metrics import TrainerMetrics

TABLE = Path(__file__).parents[1] / "docs" / "metrics.md"
METRICS: Mapping[str, Callable[[CollectorRegistry], Any]] = {
    "every service": RuntimeMetrics,
    "ingest": IngestMetrics,
    "features": FeatureMetrics,
    "serving": ServingMetrics,
    "drift": DriftMetrics,
    "trainer": TrainerMetrics,
}


WHEN = re.compile(r"[^:]{1,80}: ")
"""How the remedy begins, in a sentence after the first: what is seen, and behind the colon what to do."""


@dataclass(frozen=True, kw_only=True)
class Declared:
    """One metric, as the code introduces it. `name` is that of its samples, but for a histogram."""

    name: str
    kind: str
    labels: tuple[str, ...]
    bounds: tuple[float, ...]
    """Of a histogram's buckets, the last infinite; else empty."""
    meaning: str
    remedy: str
    """Empty where the code says none, which a test refuses."""

    @property
    def series(self) -> dict[str, set[str]]:
        """What a query may ask for, with its labels."""
        labels = set(self.labels)
        if self.kind != "histogram":
            return {self.name: labels}
        return {
            f"{self.name}_bucket": labels | {"le"},
            f"{self.name}_count": labels,
            f"{self.name}_sum": labels,
        }


def declared() -> dict[str, list[Declared]]:
    """Service → its metrics, in the order of its code."""
    return {service: [*_of(register)] for service, register in METRICS.items()}


def _of(register: Callable[[CollectorRegistry], Any]) -> Iterator[Declared]:
    registry = CollectorRegistry()
    register(registry)
    for metric in registry._collector_to_names:  # the only place that has a metric's labels before its first sample
        name, kind = metric._name, metric._type  # type: ignore[attr-defined]
        meaning, remedy = parted(metric._documentation)  # type: ignore[attr-defined]
        yield Declared(
            name=f"{name}_total" if kind == "counter" else name,
            kind=kind,
            labels=tuple(metric._labelnames),  # type: ignore[attr-defined]
            bounds=tuple(getattr(metric, "_upper_bounds", ())),
            meaning=meaning,
            remedy=remedy,
        )


def parted(said: str) -> tuple[str, str]:
    """What a metric says, and what to do: from the first sentence on that has a colon, but never the first of all."""
    sentences = re.split(r"(?<=\.) ", said)
    for number in range(1, len(sentences)):
        if WHEN.match(sentences[number]):
            return " ".join(sentences[:number]), " ".join(sentences[number:])
    return said, ""


def metrics_table() -> str:
    lines = [
        "# Metrics",
        "",
        "Generated from the services' `metrics.py` (`make generate`). Each service shows its own at `GET /metrics`.",
        "What is asked of them: [alerts and objectives](runbooks/README.md), [dashboards](observability.md).",
    ]
    for service, metrics in declared().items():
        lines += ["", f"## {service[0].upper()}{service[1:]}", ""]
        lines += ["| metric | kind | labels | what it says | what to do |", "| --- | --- | --- | --- | --- |"]
        for metric in metrics:
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            said = f"{metric.meaning} | {metric.remedy}"
            lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {said} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    table = metrics_table()
    if TABLE.exists() and TABLE.read_text() == table:
        return 0
    if "--check" in sys.argv[1:]:
        print("stale: docs/metrics.md (run: make generate)")
        return 1
    TABLE.write_text(table)
    print("wrote docs/metrics.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
