"""What is told of data that broke: since when, until when, what a person is asked for meanwhile, and what says nothing."""

from __future__ import annotations

import pytest

from millstream.contracts.events import Cause, Decision, Finding, Step, WindowKind
from millstream_cli.telling import outcome_of, title_of

from .made_events import Journal, day, drifted, first_model, promoted, ref
from .test_incident_ends import dropped, outcomes
from .test_incident_runs import waiting
from .test_incidents import last
from .test_loop_report import report

CONDITION = "once the data is whole (a run that a person has accepted learns what is broken)"


def labels_break(journal: Journal, at: float) -> None:
    verdict = journal.window(at, Finding.BROKEN_DATA, 0.9, kind=WindowKind.PERFORMANCE, reason="every label is False")
    journal.decided(at, verdict, Decision.DECLINED, Cause.PERFORMANCE)


@pytest.mark.parametrize("decision", [Decision.SUGGESTED, Decision.PENDING])
def test_nobody_is_told_to_ask_for_a_run_while_it_would_learn_broken_labels(decision: Decision) -> None:
    journal = Journal()
    first_model(journal)
    run = "run9" if decision is Decision.PENDING else None
    journal.decided(10, drifted(journal), decision, run=run, expires=day(11) if run else None)
    if run:
        journal.decided(11, "expired run9", Decision.EXPIRED, run=run)
    assert [need for need in report(journal).needs if "ask for a run: millstream retrain" in need]
    labels_break(journal, 12)
    [need] = report(journal).needs
    assert need.startswith("broken data since 2013-06-11 00:00: every label is False")
    [notice] = report(journal).notices
    assert notice.startswith("open: incident 2, drift in the inputs of version 1"), "it is told all the same"
    journal.performance(14, 0.45)
    [need] = report(journal).needs
    assert "ask for a run: millstream retrain" in need


def test_a_break_right_after_a_promotion_did_not_begin_in_the_canary() -> None:
    """The new champion's first window holds what it was asked in its canary, while the old one's was judged whole."""
    journal = Journal()
    promoted(journal)
    journal.window(14, Finding.HEALTHY, 0.02)
    journal.window(17, Finding.BROKEN_DATA, 0.9, "2", start=day(11), reason="carrier is gone")
    assert report(journal).needs[0].startswith("broken data since 2013-06-15 00:00: carrier is gone")


def test_two_breaks_in_one_drift_are_two() -> None:
    journal = Journal()

    def title() -> str:
        return title_of(last(journal)[1])

    first_model(journal)
    drifted(journal)
    once = "drift in the inputs (broken data from 2013-06-11 00:00"
    journal.broken(12)
    assert title() == f"{once}) of version 1"
    journal.window(13, Finding.DETECTED, 0.4)
    assert title() == f"{once} until 2013-06-13 00:00) of version 1"
    journal.broken(20)
    twice = f"{once} until 2013-06-13 00:00 and from 2013-06-19 00:00"
    assert title() == f"{twice}) of version 1"
    journal.broken(21)
    journal.window(22, Finding.DETECTED, 0.4)
    assert title() == f"{twice} until 2013-06-22 00:00) of version 1", "and the days between were whole"


def test_two_glitches_and_a_suspicion_between_them_are_no_drift() -> None:
    journal = Journal()
    first_model(journal)
    journal.broken(12)
    journal.window(14, Finding.SUSPECTED, 0.25)
    journal.broken(16)
    assert title_of(last(journal)[1]) == "broken data in the inputs of version 1"


def test_broken_texts_hold_up_no_run() -> None:
    journal = Journal()
    first_model(journal)
    journal.decided(10, drifted(journal), Decision.SUGGESTED)
    journal.window(12, Finding.BROKEN_DATA, 0.9, kind=WindowKind.CONTENT, reason="comment is gone")
    broken, suggested = report(journal).needs
    assert broken.endswith("comment is gone; no model reads it, so retrains go on")
    assert "ask for a run: millstream retrain" in suggested


def test_an_open_circuit_breaker_is_no_reason_to_learn_broken_data() -> None:
    journal = Journal()
    first_model(journal)
    journal.decided(10, drifted(journal), Decision.DECLINED, numbers={"rejected_in_a_row": 3.0, "breaker": 3.0})
    journal.broken(12)
    assert any(f"so only a person may ask, {CONDITION}: millstream retrain" in need for need in report(journal).needs)


def test_labels_of_broken_questions_neither_clear_a_drop_nor_show_it() -> None:
    """Drift calls such a window healthy or suspected, for its loss, and says that it says nothing of the model."""
    journal = Journal()
    dropped(journal)
    no_word = ["promoted (version 2); no word on version 2 yet"]
    journal.performance(9, 0.44, "2", asked_while_broken=5000.0, whole_rows=0.0)
    assert outcomes(journal) == no_word
    journal.performance(10, 0.8, "2", Finding.SUSPECTED, asked_while_broken=4920.0, whole_rows=80.0)
    assert outcomes(journal) == no_word
    journal.performance(11, 0.8, "2", Finding.NOT_CLEARED)
    assert outcomes(journal)[0] == "promoted (version 2); not cleared: version 2 shows it too"


def test_labels_of_broken_questions_end_no_trouble_of_their_own_version() -> None:
    journal = Journal()
    first_model(journal)
    journal.performance(6, 0.8, finding=Finding.PERFORMANCE_DROP)
    journal.performance(8, 0.44, asked_while_broken=5000.0, whole_rows=0.0)
    assert outcomes(journal) == ["open; not over yet"]
    journal.performance(10, 0.44, asked_while_broken=3000.0, whole_rows=5000.0)
    assert outcomes(journal) == ["cleared by itself"]


def test_whole_windows_that_drift_after_a_break_are_told_as_drift() -> None:
    journal = Journal()
    first_model(journal)
    journal.decided(8, journal.broken(8), Decision.DECLINED)
    journal.broken(10)
    journal.window(12, Finding.SUSPECTED, 0.3)
    incident = last(journal)[1]
    assert title_of(incident) == "broken data in the inputs of version 1"
    suspected = "the data is whole again, drift in the inputs suspected; not over yet"
    assert outcome_of(incident) == f"declined; {suspected}"
    assert report(journal).needs == []
    journal.window(14, Finding.DETECTED, 0.3)
    incident = last(journal)[1]
    assert title_of(incident) == "broken data until 2013-06-11 00:00, then drift in the inputs of version 1"
    assert outcome_of(incident) == "declined; not over yet"
    journal.window(16, Finding.CLEARED, 0.02)
    assert outcome_of(last(journal)[1]) == "declined; cleared by itself"


def test_a_break_with_an_edge_that_is_suspected_is_a_break() -> None:
    journal = Journal()
    first_model(journal)
    journal.decided(8, journal.broken(8), Decision.DECLINED)
    journal.window(10, Finding.SUSPECTED, 0.3)
    journal.window(12, Finding.HEALTHY, 0.02)
    incident = last(journal)[1]
    assert title_of(incident) == "broken data in the inputs of version 1"
    assert outcome_of(incident) == "declined; the data is whole again"


def test_an_approval_that_would_be_declined_now_is_told_when_it_would_not() -> None:
    journal = Journal()
    waiting(journal)
    go = "millstream approve flight-delay run9"
    assert report(journal).needs[0].endswith(f"; when the trial of version 2 is over: {go}")
    journal.state(13, Step.SHADOW, "1", pinned="1", frozen="audit", challenger=ref("2"))
    held = (
        "after millstream unpin flight-delay and after millstream unfreeze flight-delay and when the trial of version 2"
    )
    assert report(journal).needs[0].endswith(f"; {held} is over: {go}")


def test_an_approval_while_data_are_broken_is_told_what_it_means() -> None:
    journal = Journal()
    first_model(journal)
    journal.decided(10, drifted(journal), Decision.PENDING, run="run9", expires=day(18))
    assert report(journal).needs[0].endswith("2 of 3 windows): millstream approve flight-delay run9")
    labels_break(journal, 12)
    _, need = report(journal).needs
    assert need.endswith(f"; {CONDITION}: millstream approve flight-delay run9")
    wish = journal.retrain("wish-1")
    journal.decided(12, wish, Decision.ACCEPTED, Cause.MANUAL, run="run2")
    assert f"; when run run2 has ended and {CONDITION}: millstream approve" in report(journal).needs[1]
