"""Every metric is introduced: what it says and what to do, in a table that is generated from the code."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("metrics_table", ROOT / "tools" / "metrics_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_current() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == tool().metrics_table(), "run: make generate"


def test_each_metric_is_ours_is_there_once_in_a_service_and_says_something() -> None:
    found = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.*) \|$", tool().metrics_table(), re.MULTILINE)

    names = [name for name, *_ in found]
    assert len(names) > 30
    assert len(set(names)) == len(names), "one metric, one service"
    for name, _, _, said in found:
        assert name.startswith("millstream_"), name
        assert said.endswith("."), name
