"""What the summary says when something went wrong, and that it can say it in JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from millstream.contracts.events import Cause, Decision, Outcome, Step, TrialFinding
from millstream_cli.demo import finite
from millstream_cli.story import Story
from millstream_cli.summary import _decisions, broken_promises

from .made_events import Journal, promoted

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


def test_promotions_rejections_and_rollbacks_are_counted_by_who_decided() -> None:
    journal = Journal()
    promoted(journal)
    looked = journal.judged(16, 300, 0.05, watch=True, finding=TrialFinding.WORSE)
    journal.moved(16, Step.CHAMPION, Step.ROLLED_BACK, cause=looked)
    for version, outcome in (("3", Outcome.REJECTED), ("4", Outcome.FAILED), ("5", Outcome.ON_TRIAL)):
        at = 20 + int(version)
        journal.decided(at, journal.retrain(f"wish-{version}"), Decision.ACCEPTED, Cause.MANUAL, run=f"run{version}")
        journal.trained(at, version, outcome)
    journal.moved(25, Step.REGISTERED, Step.SHADOW, version="5", cause="finished-5")
    journal.moved(26, Step.SHADOW, Step.REJECTED, version="5", cause="judged-5")
    assert _decisions(Story("nowhere:0", told=journal.told)) == {
        "retrains": 5,
        "promotions": 2,
        "rejections": 2,
        "rejections_by_gate": 1,
        "rejections_by_trial": 1,
        "trials": 2,
        "rollbacks": 1,
        "failed_runs": 1,
    }
