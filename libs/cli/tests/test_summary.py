"""What the summary says when something went wrong, of each loop by itself, and that it can say it in JSON."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from millstream.contracts.events import Cause, Decision, Outcome, Step, TrialFinding
from millstream_cli.demo import finite
from millstream_cli.demo_view import show
from millstream_cli.journal import Told
from millstream_cli.loop_summary import decisions
from millstream_cli.story import Story
from millstream_cli.summary import broken_promises, told_of

from .made_events import LOOP, Journal, promoted

WELL: dict[str, Any] = {
    "questions": 100,
    "predictions_effective": 60,
    "unanswered_no_model": 40,
    "skew_max": 1e-12,
    "skew_worst": "none",
    "skew_checked": 60,
    "recount_max": 0.0,
    "recount_worst": "none",
    "recount_checked": 60,
    "scored": 50,
    "metric": "log_loss",
    "log_loss": 0.45,
    "static_log_loss": 0.5,
    "score": "auc",
    "auc": 0.76,
    "static_auc": 0.7,
    "retrains": 6,
    "promotions": 2,
    "rejections_by_gate": 1,
    "rejections_by_trial": 1,
    "rollbacks": 1,
    "failed_runs": 1,
    "open_runs": 1,
}
BASKETS = WELL | {
    "score": "accuracy",
    "accuracy": 0.61,
    "static_accuracy": 0.5,
    "failed_runs": 0,
    "open_runs": 0,
}
AMOUNTS = WELL | {
    "metric": "squared_error",
    "squared_error": 5.64,
    "static_squared_error": 27.06,
    "score": "mean_absolute_error",
    "mean_absolute_error": 1.9,
    "static_mean_absolute_error": 4.2,
}
SHARED: dict[str, Any] = {
    "events_sent": 300,
    "events_in_topics": 300,
    "events_in_lake": 300,
    "events_lost": 0,
    "duplicates": 0,
    "dead_letters": 0,
    "wall_seconds": 12.0,
    "events_per_second": 30.0,
    "peak_rss_mb": {"features": 500.0},
    "broken_promises": [],
}
THREE = {"kiosk-amount": AMOUNTS, "kiosk-basket": BASKETS, "kiosk-buy": WELL}


def test_where_all_is_well_no_promise_is_broken() -> None:
    assert broken_promises(told_of(SHARED, {LOOP: WELL})) == []
    assert broken_promises(told_of(SHARED, THREE)) == [], (
        "each loop answers all questions of the stream that they share"
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"predictions_effective": 59}, "100 questions, 99 of them answered"),
        ({"skew_max": float("inf"), "skew_worst": "mean of F1"}, "online and offline differ: mean of F1"),
        ({"skew_max": float("nan"), "skew_worst": "mean of F1"}, "online and offline differ: mean of F1"),
        ({"recount_max": 1e-6, "recount_worst": "mean of F2"}, "online and a recount differ: mean of F2"),
    ],
)
def test_each_broken_promise_is_named_and_whose_it_is_where_there_are_several(wrong: dict[str, Any], said: str) -> None:
    assert broken_promises(told_of(SHARED, {LOOP: WELL | wrong})) == [said]
    assert broken_promises(told_of(SHARED, THREE | {"kiosk-buy": WELL | wrong})) == [f"kiosk-buy: {said}"]


def test_lost_events_are_nobody_s_alone() -> None:
    assert broken_promises(told_of(SHARED | {"events_lost": 3}, THREE)) == ["3 events are lost"]


def test_a_loop_that_is_alone_has_its_figures_at_the_top_too() -> None:
    one = told_of(SHARED, {LOOP: WELL})
    assert (one["loop"], one["log_loss"], one["loops"]) == (LOOP, 0.45, {LOOP: WELL})
    several = told_of(SHARED, THREE)
    assert set(several) == {*SHARED, "loops"}, "a figure at the top would be of nobody knows which loop"
    assert several["loops"]["kiosk-amount"]["squared_error"] == 5.64


def shown(loops: dict[str, dict[str, Any]]) -> str:
    screen = StringIO()
    show(told_of(SHARED, loops), Console(file=screen, width=160), Path("out"))
    return screen.getvalue()


def test_every_loop_has_its_own_part_of_the_summary() -> None:
    text = shown(THREE)
    parts = [
        text.index(said) for said in ("kiosk-amount", "squared error", "kiosk-basket", "accuracy", "kiosk-buy", "AUC")
    ]
    assert parts == sorted(parts)
    assert "millstream why LOOP --from out/journal.jsonl" in text
    alone = shown({LOOP: WELL})
    assert f"millstream why {LOOP} --from out/journal.jsonl" in alone
    assert alone.count(LOOP) == 1, "who has one loop need not be told its name in the table"


def test_every_retrain_is_in_the_line_that_counts_them() -> None:
    text = shown({LOOP: WELL})
    assert "2 promoted, 1 rejected by the gate, 1 in trial, 1 failed, 1 under way, 1 rolled back" in text
    assert "failed" not in shown({LOOP: BASKETS})


def test_a_loop_that_no_model_answered_says_so() -> None:
    text = shown({LOOP: WELL | {"scored": 0, "predictions_effective": 0, "scored_from": None}})
    assert "no model answered" in text


def test_figures_are_json_whatever_could_not_be_measured() -> None:
    figures = {"auc_by_month": {"2013-03": float("nan")}, "skew_max": float("inf"), "timeline": [{"effect": -1.5}]}
    assert json.loads(json.dumps(finite(figures), allow_nan=False)) == {
        "auc_by_month": {"2013-03": None},
        "skew_max": None,
        "timeline": [{"effect": -1.5}],
    }


def test_promotions_rejections_and_rollbacks_are_counted_by_who_decided_and_each_loop_for_itself() -> None:
    journal = Journal()
    promoted(journal)
    other = [Told(f"tides-{one.id}", one.caused_by, _of(one, "tides")) for one in journal.told]
    looked = journal.judged(16, 300, 0.05, watch=True, finding=TrialFinding.WORSE)
    journal.moved(16, Step.CHAMPION, Step.ROLLED_BACK, cause=looked)
    for version, outcome in (("3", Outcome.REJECTED), ("4", Outcome.FAILED), ("5", Outcome.ON_TRIAL)):
        at = 20 + int(version)
        journal.decided(at, journal.retrain(f"wish-{version}"), Decision.ACCEPTED, Cause.MANUAL, run=f"run{version}")
        journal.trained(at, version, outcome)
    journal.moved(25, Step.REGISTERED, Step.SHADOW, version="5", cause="finished-5")
    journal.moved(26, Step.SHADOW, Step.REJECTED, version="5", cause="judged-5")
    journal.decided(27, journal.retrain("wish-6"), Decision.ACCEPTED, Cause.MANUAL, run="run6")
    story = Story("nowhere:0", told=[*journal.told, *other])
    assert decisions(story, LOOP) == {
        "retrains": 6,
        "promotions": 2,
        "rejections": 2,
        "rejections_by_gate": 1,
        "rejections_by_trial": 1,
        "trials": 2,
        "rollbacks": 1,
        "failed_runs": 1,
        "open_runs": 1,
    }
    assert decisions(story, "tides")["retrains"] == 2


def _of(told: Told, loop: str) -> Any:
    changed: dict[str, Any] = {"loop": loop, "id": f"tides-{told.id}"}
    return msgspec.structs.replace(told.event, **changed)
