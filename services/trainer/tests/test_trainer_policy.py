"""The policy says why: one decision per request, by stream time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from millstream.contracts.events import Cause, Decision, Finding, WindowKind

from .trainer_kit import FAILED, PROMOTED, REJECTED, Desk


@pytest.fixture
def desk(tides: Any) -> Desk:
    return Desk(tides.rules)


@pytest.fixture
def served(desk: Desk, tides: Any) -> Desk:
    """The desk of a loop whose first model was promoted on day 10."""
    desk.hears(tides.matured(10))
    desk.ends(PROMOTED)
    return desk


def test_the_first_model_waits_for_enough_labels(desk: Desk, tides: Any) -> None:
    assert desk.hears(tides.matured(8, matured=999)) is None
    decided = desk.hears(tides.matured(9, matured=1000))
    assert decided is not None
    assert (decided.decision, decided.cause, decided.run) == (Decision.ACCEPTED, Cause.FIRST_MODEL, decided.run)
    assert decided.reason == "1000 labels have matured, the first model needs 1000"
    assert decided.numbers["matured"] == 1000


def test_while_the_first_model_is_trained_the_clock_asks_nothing(desk: Desk, tides: Any) -> None:
    desk.hears(tides.matured(9))
    assert desk.hears(tides.matured(10)) is None


def test_a_first_model_that_failed_is_tried_again_after_the_cooldown(desk: Desk, tides: Any) -> None:
    desk.hears(tides.matured(9))
    desk.ends(FAILED)
    assert desk.hears(tides.matured(11)) is None
    again = desk.hears(tides.matured(12))
    assert again is not None
    assert again.decision is Decision.ACCEPTED


def test_the_schedule_asks_thirty_days_after_the_last_run(served: Desk, tides: Any) -> None:
    assert served.hears(tides.matured(39)) is None
    decided = served.hears(tides.matured(40))
    assert decided is not None
    assert (decided.cause, decided.decision) == (Cause.SCHEDULE, Decision.ACCEPTED)
    assert decided.numbers["days_since_last_run"] == 30


def test_healthy_suspected_and_cleared_windows_ask_nothing(served: Desk, tides: Any) -> None:
    for finding in (Finding.HEALTHY, Finding.SUSPECTED, Finding.CLEARED):
        assert served.hears(tides.judged(20, finding)) is None


def test_drift_and_a_performance_drop_ask_with_their_own_cause(served: Desk, tides: Any) -> None:
    drift = served.hears(tides.judged(20))
    assert drift is not None
    assert (drift.cause, drift.decision) == (Cause.DRIFT, Decision.ACCEPTED)
    served.ends(REJECTED)
    drop = served.hears(tides.judged(30, Finding.PERFORMANCE_DROP))
    assert drop is not None
    assert (drop.cause, drop.decision) == (Cause.PERFORMANCE, Decision.ACCEPTED)


def test_a_second_verdict_joins_the_run_that_is_under_way(served: Desk, tides: Any) -> None:
    first = served.hears(tides.judged(20))
    second = served.hears(tides.judged(20.5, Finding.PERFORMANCE_DROP))
    assert first is not None
    assert second is not None
    assert second.decision is Decision.COALESCED
    assert first.run is not None
    assert first.run in second.reason


def test_two_verdicts_of_one_moment_are_one_run_however_fast_it_was(served: Desk, tides: Any) -> None:
    served.hears(tides.judged(20))
    served.ends(REJECTED)
    second = served.hears(tides.judged(20, Finding.PERFORMANCE_DROP))
    assert second is not None
    assert second.decision is Decision.COALESCED


def test_a_person_who_asks_at_the_time_of_the_last_run_has_one_and_is_told_of_the_other(
    served: Desk, tides: Any
) -> None:
    """She may have changed the loop's file meanwhile, and the stream may stand still: who knows it is she."""
    first = served.hears(tides.wish("first", 11))
    assert first is not None
    assert first.reason == "Ada asked: the harbour was rebuilt"
    served.ends(REJECTED)
    again = served.hears(tides.wish("again", 11))
    assert again is not None
    assert again.decision is Decision.ACCEPTED
    assert again.reason == (
        f"Ada asked: the harbour was rebuilt (run {first.run} looked up to then as well: "
        "where nothing was changed since, this makes the same model)"
    )


def test_a_time_that_has_not_come_is_none_to_look_up_to(served: Desk, tides: Any) -> None:
    """A sender that says today's date to a loop that replays the past would stop it until then."""
    ahead = served.hears(tides.wish("tomorrow", 11.5))
    assert ahead is not None
    assert (ahead.decision, ahead.at) == (Decision.ACCEPTED, tides.day(11.5))
    served.ends(REJECTED)
    lost = served.hears(tides.wish("in years", 4000))
    assert lost is not None
    assert (lost.decision, lost.at) == (Decision.ACCEPTED, tides.day(11.5))
    assert "the harbour was rebuilt (up to 2023-12-15 00:00, which has not come)" in lost.reason
    served.ends(REJECTED)
    later = served.hears(tides.judged(30))
    assert later is not None
    assert later.decision is Decision.ACCEPTED


def test_a_verdict_within_the_cooldown_is_declined_with_its_days(served: Desk, tides: Any) -> None:
    decided = served.hears(tides.judged(12))
    assert decided is not None
    assert decided.decision is Decision.DECLINED
    assert decided.reason == "2.0 days since the last run, the cooldown is 3.0 days: detected on day 12"


def test_a_person_may_ask_within_the_cooldown_but_not_past_the_budget(served: Desk, tides: Any) -> None:
    for day in (11, 11.5, 12):
        decided = served.hears(tides.wish(f"wish-{day}", day))
        assert decided is not None
        assert decided.decision is Decision.ACCEPTED
        served.ends(PROMOTED)
    last = served.hears(tides.wish("one-more", 13))
    assert last is not None
    assert last.decision is Decision.DECLINED
    assert last.reason == "4 runs within 30.0 days, the budget is 4: Ada asked: the harbour was rebuilt"


@pytest.mark.parametrize("whole", [Finding.HEALTHY, Finding.CLEARED, Finding.SUSPECTED, Finding.DETECTED])
def test_broken_data_blocks_until_a_later_window_is_whole(served: Desk, tides: Any, whole: Finding) -> None:
    broken = served.hears(tides.judged(20, Finding.BROKEN_DATA))
    assert broken is not None
    assert broken.decision is Decision.DECLINED
    assert broken.reason.startswith("broken data")
    drop = tides.judged(22, Finding.PERFORMANCE_DROP, kind=WindowKind.PERFORMANCE)
    for event in (drop, tides.matured(41)):
        decided = served.hears(event)
        assert decided is not None
        assert decided.decision is Decision.DECLINED
        assert "broken since 2013-01-20" in decided.reason
    after = [served.hears(tides.judged(42, whole)), served.hears(tides.judged(43))]
    assert Decision.ACCEPTED in [decided.decision for decided in after if decided is not None]


def test_failed_runs_stop_machines_at_the_budget_and_never_a_person(desk: Desk, tides: Any) -> None:
    for day in (10, 13, 16, 19):
        desk.hears(tides.matured(day))
        desk.ends(FAILED)
    stopped = desk.hears(tides.matured(22))
    assert stopped is not None
    assert stopped.decision is Decision.DECLINED
    assert stopped.reason == (
        "4 runs within 30.0 days, the budget is 4; 4 of them failed and stop counting with the first that does not, "
        "ask by hand when it is mended: 5000 labels have matured, the first model needs 1000"
    )
    for day in (22.5, 22.6):
        mended = desk.hears(tides.wish(f"mended-{day}", day))
        assert mended is not None
        assert (mended.decision, mended.numbers["runs_in_period"]) == (Decision.ACCEPTED, 0)
        desk.ends(FAILED)
    desk.hears(tides.wish("mended-now", 23))
    desk.ends(PROMOTED)
    drift = desk.hears(tides.judged(27, version="7"))
    assert drift is not None
    assert (drift.decision, drift.numbers["runs_in_period"]) == (Decision.ACCEPTED, 1), "what is mended is forgotten"


def test_a_run_that_failed_after_the_last_that_did_not_counts(served: Desk, tides: Any) -> None:
    for day in (20, 24, 28):
        served.hears(tides.judged(day))
        served.ends(FAILED)
    declined = served.hears(tides.judged(32))
    assert declined is not None
    assert declined.reason.startswith("4 runs within 30.0 days, the budget is 4; 3 of them failed")
    assert served.hears(tides.judged(41)).decision is Decision.ACCEPTED  # type: ignore[union-attr]


def test_broken_labels_block_until_a_later_window_of_labels_is_whole(served: Desk, tides: Any) -> None:
    broken = served.hears(tides.judged(20, Finding.BROKEN_DATA, kind=WindowKind.PERFORMANCE))
    assert broken is not None
    assert broken.reason == "broken data: broken_data on day 20; retrains wait for whole labels"
    served.hears(tides.judged(21, Finding.HEALTHY))
    blocked = served.hears(tides.judged(22))
    assert blocked is not None
    assert blocked.decision is Decision.DECLINED
    assert blocked.reason == "labels are broken since 2013-01-20 00:00; waiting for whole labels: detected on day 22"
    nothing = tides.judged(22.5, Finding.HEALTHY, kind=WindowKind.PERFORMANCE)
    served.hears(msgspec.structs.replace(nothing, metrics={"whole_rows": 80.0}))
    still = served.hears(tides.judged(22.6))
    assert still is not None
    assert still.decision is Decision.DECLINED, "most of it was asked of broken inputs: it says nothing of labels"
    served.hears(tides.judged(23, Finding.HEALTHY, kind=WindowKind.PERFORMANCE))
    decided = served.hears(tides.judged(24))
    assert decided is not None
    assert decided.decision is Decision.ACCEPTED


def test_a_broken_text_is_no_reason_to_learn_and_no_run_waits_for_what_no_model_reads(served: Desk, tides: Any) -> None:
    broken = served.hears(tides.judged(20, Finding.BROKEN_DATA, kind=WindowKind.CONTENT))
    assert broken is not None
    assert broken.decision is Decision.DECLINED
    assert broken.reason == "broken data: broken_data on day 20; no model reads it, so other retrains do not wait"
    decided = served.hears(tides.judged(21))
    assert decided is not None
    assert decided.decision is Decision.ACCEPTED


def test_a_person_may_ask_although_data_is_broken(served: Desk, tides: Any) -> None:
    served.hears(tides.judged(20, Finding.BROKEN_DATA))
    decided = served.hears(tides.wish("fixed-it", 21))
    assert decided is not None
    assert decided.decision is Decision.ACCEPTED


def test_three_rejections_in_a_row_stop_the_loop_until_a_person_asks(served: Desk, tides: Any) -> None:
    for day in (20, 35, 50):
        served.hears(tides.judged(day))
        served.ends(REJECTED)
    stopped = served.hears(tides.judged(65))
    assert stopped is not None
    assert stopped.decision is Decision.DECLINED
    assert "3 challengers in a row" in stopped.reason
    served.hears(tides.wish("look", 66))
    served.ends(REJECTED)
    again = served.hears(tides.judged(80))
    assert again is not None
    assert again.decision is Decision.ACCEPTED


def test_a_verdict_on_a_version_that_no_longer_answers_is_declined(served: Desk, tides: Any) -> None:
    served.hears(tides.judged(20))
    served.ends(PROMOTED)
    late = served.hears(tides.judged(25, version="1"))
    assert late is not None
    assert late.decision is Decision.DECLINED
    assert late.reason == "the verdict is about version 1, version 2 answers now"


def test_a_cause_that_retrain_on_does_not_list_is_declined(served: Desk, tides: Any) -> None:
    served.rules = replace(served.rules, causes=frozenset({Cause.SCHEDULE}))
    decided = served.hears(tides.judged(20))
    assert decided is not None
    assert decided.decision is Decision.DECLINED
    assert decided.reason.startswith("retrain.on does not list drift")


def test_a_wish_before_anything_was_heard_is_declined(desk: Desk, tides: Any) -> None:
    for id in ("too-early", "still-too-early"):
        decided = desk.hears(tides.wish(id))
        assert decided is not None
        assert decided.decision is Decision.DECLINED
        assert "no stream time" in decided.reason


def test_a_wish_without_a_time_trains_at_the_loops_own_stream_time(served: Desk, tides: Any) -> None:
    served.hears(tides.judged(17, Finding.HEALTHY))
    decided = served.hears(tides.wish("now"))
    assert decided is not None
    assert decided.at == tides.day(17)


def test_a_request_that_comes_twice_is_decided_once(served: Desk, tides: Any) -> None:
    assert served.hears(tides.judged(20)) is not None
    assert served.hears(tides.judged(20)) is None
