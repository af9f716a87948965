"""Writes docs/metrics.md: every metric of every service, as the code introduces it.

python tools/metrics_table.py            rewrite it where it is stale
python tools/metrics_table.py --check    exit 1 where it is
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
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


def metrics_table() -> str:
    lines = [
        "# Metrics",
        "",
        "Generated from the services' `metrics.py` (`make generate`). Each service shows its own at `GET /metrics`.",
    ]
    for service, register in METRICS.items():
        lines += [
            "",
            f"## {service[0].upper()}{service[1:]}",
            "",
            "| metric | kind | labels | what it says, and what to do |",
        ]
        lines += ["| --- | --- | --- | --- |", *_rows(register)]
    return "\n".join(lines) + "\n"


def _rows(register: Callable[[CollectorRegistry], Any]) -> Iterator[str]:
    registry = CollectorRegistry()
    register(registry)
    for metric in registry._collector_to_names:  # the only place that has a metric's labels before its first sample
        name, kind = metric._name, metric._type  # type: ignore[attr-defined]
        labels = ", ".join(f"`{label}`" for label in metric._labelnames)  # type: ignore[attr-defined]
        said = metric._documentation.replace("|", "\\|")  # type: ignore[attr-defined]
        yield f"| `{name}{'_total' if kind == 'counter' else ''}` | {kind} | {labels} | {said} |"


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
