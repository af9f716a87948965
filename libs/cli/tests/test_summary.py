"""What the summary says when something went wrong, and that it can say it in JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from millstream_cli.demo import finite
from millstream_cli.summary import broken_promises

WELL: dict[str, Any] = {
    "events_lost": 0,
    "questions": 100,
    "predictions_effective": 60,
    "unanswered_no_model": 40,
    "skew_max": 1e-12,
    "skew_worst": "none",
    "recount_max": 0.0,
    "recount_worst": "none",
}


def test_where_all_is_well_no_promise_is_broken() -> None:
    assert broken_promises(WELL) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"events_lost": 3}, "3 events are lost"),
        ({"predictions_effective": 59}, "100 questions, 99 of them answered"),
        ({"skew_max": float("inf"), "skew_worst": "mean of F1"}, "online and offline differ: mean of F1"),
        ({"skew_max": float("nan"), "skew_worst": "mean of F1"}, "online and offline differ: mean of F1"),
        ({"recount_max": 1e-6, "recount_worst": "mean of F2"}, "online and a recount differ: mean of F2"),
    ],
)
def test_each_broken_promise_is_named(wrong: dict[str, Any], said: str) -> None:
    assert broken_promises(WELL | wrong) == [said]


def test_figures_are_json_whatever_could_not_be_measured() -> None:
    figures = {"auc_by_month": {"2013-03": float("nan")}, "skew_max": float("inf"), "timeline": [{"effect": -1.5}]}
    assert json.loads(json.dumps(finite(figures), allow_nan=False)) == {
        "auc_by_month": {"2013-03": None},
        "skew_max": None,
        "timeline": [{"effect": -1.5}],
    }
