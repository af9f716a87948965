"""Incidents with more than one run, with approvals that came to nothing, and with a model that came back."""

from __future__ import annotations

import pytest

from millstream.contracts.events import Cause, Decision, Finding, Outcome, RolloutAction, Step, TrialFinding
from millstream_cli.incidents import Fate, Incident
from millstream_cli.loop_events import loop_of
from millstream_cli.telling import outcome_of, timeline, title_of

from .made_events import LOOP, Journal, day, drifted, first_model, on_trial, promoted, ref
from .test_incidents import last
from .test_loop_report import report


def lines(journal: Journal) -> list[str]:
    loop, incident = last(journal)
    return [f"{one.at:%m-%d} {one.what}: {one.text}" for one in timeline(loop, incident)]


def waiting(journal: Journal) -> None:
    """Drift of day 10 waits for an approval until day 18, and Ada's own run since day 12 is on trial."""
    first_model(journal)
    reason = "waits for a person's word: effect 0.310"
    journal.decided(10, drifted(journal), Decision.PENDING, run="run9", expires=day(18), reason=reason)
    wish = journal.retrain("wish-1")
    journal.decided(12, wish, Decision.ACCEPTED, Cause.MANUAL, run="run2")
    finished = journal.trained(12, "2", Outcome.ON_TRIAL)
    journal.moved(12, Step.REGISTERED, Step.SHADOW, cause=finished)


@pytest.mark.parametrize("said", [Decision.COALESCED, Decision.DECLINED])
def test_an_approval_that_started_nothing_leaves_its_run_waiting(said: Decision) -> None:
    """What the trainer answered it with was `coalesced` once, and is `declined`: either way the run waits on."""
    journal = Journal()
    waiting(journal)
    word = journal.approved("run9")
    reason = "version 2 is on trial: waits for a person's word: effect 0.310"
    journal.decided(14, word, said, run="run9", reason=reason)
    journal.labels(16)
    assert [one.fate for one in loop_of(journal.told, LOOP).incidents] == [
        *(Fate.PROMOTED, Fate.PENDING, Fate.ON_TRIAL),
    ]
    [need] = report(journal).needs
    assert need.startswith("run run9 waits for an approval until 2013-06-19 00:00 (waits for a person's word: effect")
    assert need.endswith("millstream approve flight-delay run9")

    journal.decided(18, "expired run9", Decision.EXPIRED, run="run9", reason="nobody approved run run9")
    incident = loop_of(journal.told, LOOP).incidents[1]
    told = [
        f"{one.at:%m-%d} {one.what}: {one.text}: {'; '.join(one.details)}"
        for one in timeline(loop_of(journal.told, LOOP), incident)
    ]
    came_to_nothing = "the approval came to nothing: run run9 waits on" if said is Decision.COALESCED else ""
    at = told.index("06-15 asked: Grace approved run run9: looks right: ")
    assert told[at + 1] == f"06-15 decision: {said.value} (drift): {reason}: {came_to_nothing}"
    assert told[at + 2].startswith("06-19 decision: expired")
    assert incident.fate is Fate.EXPIRED


def test_an_approval_that_helped_at_last_is_told_when_it_was_given() -> None:
    journal = Journal()
    waiting(journal)
    first = journal.approved("run9")
    journal.decided(14, first, Decision.DECLINED, run="run9", reason="version 2 is on trial")
    looked = journal.judged(15, 900, 0.05, finding=TrialFinding.WORSE)
    journal.moved(15, Step.SHADOW, Step.REJECTED, cause=looked)
    journal.decided(16, "approved again", Decision.ACCEPTED, run="run9")
    found = loop_of(journal.told, LOOP)
    incident = next(one for one in found.incidents if any(run.name == "run9" for run in one.runs))
    assert incident.fate is Fate.TRAINING
    assert [f"{one.at:%m-%d}" for one in timeline(found, incident) if one.what == "asked"] == ["06-15"]


def test_a_stray_approval_hides_no_open_circuit_breaker() -> None:
    journal = Journal()
    first_model(journal)
    journal.decided(10, drifted(journal), Decision.DECLINED, numbers={"rejected_in_a_row": 3.0, "breaker": 3.0})
    journal.decided(11, journal.approved("run9"), Decision.DECLINED, Cause.MANUAL, run="run9", reason="no run 'run9'")
    assert any("only a person may ask" in need for need in report(journal).needs)


def merged(journal: Journal) -> Incident:
    """The drift that waits asks again, joins Ada's run, and nobody approves its own."""
    waiting(journal)
    again = journal.window(12, Finding.DETECTED, 0.35)
    journal.decided(12.5, again, Decision.COALESCED, reason="run run2 is under way")
    looked = journal.judged(15, 900, -0.05, finding=TrialFinding.BETTER)
    journal.moved(15, Step.SHADOW, Step.CHAMPION, cause=looked, previous=ref("1"))
    journal.decided(18, "expired run9", Decision.EXPIRED, run="run9", reason="nobody approved run run9")
    return last(journal)[1]


def test_of_several_runs_the_one_that_began_last_tells_what_came_of_it() -> None:
    journal = Journal()
    incident = merged(journal)
    assert [run.name for run in incident.runs] == ["run9", "run2"]
    assert outcome_of(incident) == "promoted (version 2); no word on version 2 yet"
    assert title_of(incident) == "drift in the inputs of version 1; Ada asked: the new runway"


def test_a_run_that_was_approved_later_than_another_began_is_the_last() -> None:
    journal = Journal()
    waiting(journal)
    again = journal.window(12, Finding.DETECTED, 0.35)
    journal.decided(12.5, again, Decision.COALESCED, reason="run run2 is under way")
    looked = journal.judged(13, 900, 0.05, finding=TrialFinding.WORSE)
    journal.moved(13, Step.SHADOW, Step.REJECTED, cause=looked)
    journal.decided(14, journal.approved("run9"), Decision.ACCEPTED, run="run9")
    journal.trained(14, "9", Outcome.PROMOTED)
    assert outcome_of(last(journal)[1]) == "promoted (version 9); not over yet"


def test_a_newer_run_that_waits_is_what_an_older_one_s_end_led_to() -> None:
    journal = Journal()
    first_model(journal)
    journal.decided(10, drifted(journal), Decision.ACCEPTED, run="run2")
    journal.trained(10, "2", Outcome.REJECTED, passed=False)
    again = journal.window(14, Finding.DETECTED, 0.35)
    journal.decided(14, again, Decision.PENDING, run="run3", expires=day(18))
    assert last(journal)[1].fate is Fate.PENDING


def taken_back(journal: Journal) -> None:
    """Ada takes version 2 back on day 18, which answered since day 15."""
    promoted(journal)
    wish = journal.wants(RolloutAction.ROLLBACK, "complaints")
    journal.moved(18, Step.CHAMPION, Step.ROLLED_BACK, cause=wish, by="Ada", reason="complaints")


def test_a_version_that_a_person_brought_back_is_not_told_as_rolled_back() -> None:
    journal = Journal()
    taken_back(journal)
    assert last(journal)[1].fate is Fate.ROLLED_BACK
    journal.moved(20, Step.CHAMPION, Step.ROLLED_BACK, version="1", cause="", by="Bo", reason="wrong", champion="2")
    assert last(journal)[1].fate is Fate.BROUGHT_BACK
    assert outcome_of(last(journal)[1]).startswith("brought back (version 2); ")
    assert "06-21 rollout: version 2 answers again (Bo): version 1: champion → rolled back" in lines(journal)
    assert report(journal).runs == {"retrains": 2, "promoted": 1, "brought back": 1}
    # Followed by another, it is still what became of its run; rolled back anew, it is not.
    journal.state(25, Step.CHAMPION, "3")
    assert last(journal)[1].fate is Fate.BROUGHT_BACK
    journal.moved(27, Step.CHAMPION, Step.ROLLED_BACK, cause="", champion="1")
    assert last(journal)[1].fate is Fate.ROLLED_BACK


def test_a_rollback_to_a_later_version_takes_none_back() -> None:
    """`rollback --to 2`, where version 2 was taken back before: the step is version 1's, which was as good as it was."""
    journal = Journal()
    first_model(journal)
    journal.moved(0, Step.REGISTERED, Step.CHAMPION, version="1", cause="finished-1")
    decided = journal.decided(10, drifted(journal), Decision.ACCEPTED, run="run2")
    journal.moved(10, Step.REGISTERED, Step.CHAMPION, cause=journal.trained(10, "2", Outcome.PROMOTED, cause=decided))
    journal.moved(12, Step.CHAMPION, Step.ROLLED_BACK, cause="", by="Ada", reason="complaints")
    journal.moved(14, Step.CHAMPION, Step.ROLLED_BACK, version="1", cause="", by="Bo", reason="wrong", champion="2")
    assert [one.fate for one in loop_of(journal.told, LOOP).incidents] == [Fate.PROMOTED, Fate.BROUGHT_BACK]
    assert [word.text for word in report(journal).people] == [
        "version 2: champion → rolled back, version 1 answers: complaints",
        "version 1: champion → rolled back, version 2 answers: wrong",
    ]


def test_a_pin_brings_a_version_back_too() -> None:
    journal = Journal()
    taken_back(journal)
    wish = journal.wants(RolloutAction.PIN, "audit week")
    journal.moved(20, Step.ROLLED_BACK, Step.CHAMPION, cause=wish, by="Ada", reason="audit week", pinned="2")
    assert last(journal)[1].fate is Fate.BROUGHT_BACK
    assert any("version 2 answers again (Ada: audit week)" in line for line in lines(journal))


def test_a_version_that_was_brought_back_and_then_pinned_away_answers_no_more() -> None:
    journal = Journal()
    taken_back(journal)
    journal.moved(20, Step.CHAMPION, Step.ROLLED_BACK, version="1", cause="", by="Bo", reason="wrong", champion="2")
    wish = journal.wants(RolloutAction.PIN, "audit week")
    journal.moved(
        22, Step.ROLLED_BACK, Step.CHAMPION, version="1", cause=wish, by="Ada", reason="audit week", pinned="1"
    )
    assert last(journal)[1].fate is Fate.ROLLED_BACK
    assert any(
        "version 2 answers no more (Ada: audit week): version 1: rolled back → champion" in o for o in lines(journal)
    )
    # One that was never rolled back was promoted, whatever is pinned for a while.
    again = Journal()
    promoted(again)
    again.moved(20, Step.CHAMPION, Step.CHAMPION, version="1", cause="", by="Ada", reason="audit week", pinned="1")
    assert last(again)[1].fate is Fate.PROMOTED
    assert any("version 2 answers no more (Ada)" in line for line in lines(again))


def test_a_freeze_is_told_where_it_held_a_trial() -> None:
    journal = Journal()
    on_trial(journal)
    for at, reason in ((12, "holiday"), (14, "back")):
        step = {"by": "Ada", "reason": reason, "cause": "", "champion": "1"}
        journal.moved(at, Step.CHAMPION, Step.CHAMPION, version="1", **step)
        journal.state(at, Step.SHADOW, "1", challenger=ref("2"), cause="the step before")
    told = [line for line in lines(journal) if "version 1 stays" in line]
    assert told == ["06-13 rollout: version 1 stays (Ada): holiday", "06-15 rollout: version 1 stays (Ada): back"]


def test_one_that_answers_after_a_newer_one_was_rolled_back_was_promoted_all_along() -> None:
    journal = Journal()
    promoted(journal)
    journal.state(20, Step.CHAMPION, "3")
    journal.moved(22, Step.CHAMPION, Step.ROLLED_BACK, version="3", cause="", champion="2")
    assert last(journal)[1].fate is Fate.PROMOTED


def test_data_that_broke_after_they_drifted_are_dated_by_their_break() -> None:
    journal = Journal()
    first_model(journal)
    journal.decided(10, drifted(journal), Decision.DECLINED)
    for at in (12, 14):
        journal.decided(at, journal.broken(at), Decision.DECLINED, reason="broken data: distance")
    incident = last(journal)[1]
    assert title_of(incident) == "drift in the inputs (broken data from 2013-06-11 00:00) of version 1"
    assert incident.cause == "drift"
    [need] = report(journal).needs
    assert need.startswith("broken data since 2013-06-11 00:00: distance: 41% missing")
    journal.window(16, Finding.DETECTED, 0.4)
    assert report(journal).needs == []
    dates = "broken data from 2013-06-11 00:00 until 2013-06-15 00:00"
    assert title_of(last(journal)[1]) == f"drift in the inputs ({dates}) of version 1"
    journal.broken(18)
    [need] = report(journal).needs
    assert need.startswith("broken data since 2013-06-17 00:00: ")
