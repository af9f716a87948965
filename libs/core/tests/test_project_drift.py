"""What the drift section of a loop may say, and what it is told when it says something else."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from millstream.contracts.tasks import Task
from millstream.contracts.times import HOUR
from millstream.project.drift import Drift, Span


def told(**drift: Any) -> str:
    with pytest.raises(ValidationError) as bad:
        Drift.model_validate(drift)
    (error,) = bad.value.errors()
    return str(error["msg"])


@pytest.mark.parametrize(
    ("text", "window"), [(5000, 5000), ("6h", Span(micros=6 * HOUR)), ("1d", Span(micros=24 * HOUR))]
)
def test_a_window_is_a_count_or_a_stretch_of_time(text: object, window: object) -> None:
    drift = Drift.model_validate({"window": text})
    assert drift.window == window
    assert Drift.model_validate(drift.model_dump(mode="json")) == drift
    assert drift.model_dump(mode="json")["window"] == text


@pytest.mark.parametrize(
    ("window", "says"),
    [
        (99, "99 is out of range; write at least 100"),
        (10**9, "1000000000 is out of range; write at most 1000000"),
        ("0s", "'0s' is no stretch of time; write a longer one, like 6h"),
        ("six", "'six' is no window; write predictions, like 5000, or a duration, like 6h"),
        (True, "True is no window; write predictions, like 5000, or a duration, like 6h"),
        (0.5, "0.5 is no window; write predictions, like 5000, or a duration, like 6h"),
    ],
)
def test_no_window(window: object, says: str) -> None:
    assert told(window=window) == f"Value error, {says}"


@pytest.mark.parametrize(
    ("text", "columns"), [("all", None), ("important", "important"), (["carrier", "dest"], ("carrier", "dest"))]
)
def test_columns_are_all_important_or_a_list(text: object, columns: object) -> None:
    drift = Drift.model_validate({"columns": text})
    assert drift.columns == columns
    assert Drift.model_validate(drift.model_dump(mode="json")) == drift


def test_a_slip_in_columns_is_told_once() -> None:
    assert told(columns="importent") == "Value error, unknown 'importent'; write all, important, or a list of columns"
    assert told(columns=["carrier", "carrier"]).endswith("stands there twice; name it once")


@pytest.mark.parametrize(
    ("drift", "task", "says"),
    [
        ({"estimate": True}, Task.BINARY, []),
        ({"estimate": True, "window": "6h"}, Task.MULTICLASS, []),
        ({"performance": {"metric": "squared_error"}}, Task.REGRESSION, []),
        (
            {"estimate": True, "window": 400},
            Task.BINARY,
            ["400 labels a window are too few to calibrate the answers on; "
             "write a drift.window of at least 500, or remove estimate"],
        ),
        ({"estimate": True, "window": 400}, Task.REGRESSION, []),
        (
            {"performance": {"metric": "log_loss"}},
            Task.REGRESSION,
            ["task regression is judged by squared_error; write squared_error, or remove it"],
        ),
    ],
)  # fmt: skip
def test_what_could_never_be_is_refused(drift: dict[str, Any], task: Task, says: list[str]) -> None:
    assert [str(fault) for fault in Drift.model_validate(drift).faults(task)] == says
