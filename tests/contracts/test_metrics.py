"""Every metric is introduced: what it says and what to do, in a table that is generated from the code."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

from millstream.runtime.service import Service
from millstream.runtime.settings import ServiceSettings

ROOT = Path(__file__).parents[2]


def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("metrics_table", ROOT / "tools" / "metrics_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["metrics_table"] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


TOOL = tool()


def test_the_table_is_current() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == TOOL.metrics_table(), "run: make generate"


def test_each_metric_is_ours_is_there_once_in_a_service_and_says_what_it_means_and_what_to_do() -> None:
    found = [metric for metrics in TOOL.declared().values() for metric in metrics]

    names = [metric.name for metric in found]
    assert len(names) > 90
    assert len(set(names)) == len(names), "one metric, one service"
    for metric in found:
        assert metric.name.startswith("millstream_"), metric.name
        assert metric.meaning.endswith("."), metric.name
        assert metric.remedy.endswith("."), (
            f"{metric.name}: behind what it means a sentence like 'Rises: look at Kafka.'"
        )


def test_a_remedy_begins_with_what_is_seen() -> None:
    assert TOOL.parted("Files by kind: a, b. They are small. Rises: compact.") == (
        "Files by kind: a, b. They are small.",
        "Rises: compact.",
    )
    assert TOOL.parted("Files by kind: a, b.") == ("Files by kind: a, b.", "")


def test_metrics_are_declared_where_the_table_looks_and_nowhere_else() -> None:
    """Each room `metrics.py` is in the table, and no other module makes a metric."""
    makers = re.compile(
        r"^from prometheus_client import .*\b(Counter|Gauge|Histogram|Summary|Info|Enum)\b", re.MULTILINE
    )
    sources = [path for folder in ("libs", "services") for path in (ROOT / folder).glob("*/src/**/*.py")]
    declaring = {path for path in sources if makers.search(path.read_text())}
    asked = {Path(inspect.getsourcefile(register) or "") for register in TOOL.METRICS.values()}

    assert declaring == asked


async def test_a_service_shows_what_the_table_says_and_no_more() -> None:
    """Of a real service: whatever has our prefix at /metrics is in the table, and what the table has is registered."""
    service = Service("anybody", ServiceSettings(), title="anybody")
    shown = {name for name in service.registry._names_to_collectors if name.startswith("millstream_")}
    told = {name for metric in TOOL.declared()["every service"] for name in metric.series}

    assert told <= shown
    assert {re.sub(r"_(created|total|bucket|count|sum)$", "", name) for name in shown} == {
        re.sub(r"_(total|bucket|count|sum)$", "", name) for name in told
    }
