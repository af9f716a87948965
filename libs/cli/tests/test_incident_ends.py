"""When an incident is over: by the first word that there is on each of its troubles."""

from __future__ import annotations

from millstream.contracts.events import Cause, Decision, Finding, Outcome, Step, TrialFinding, WindowKind
from millstream_cli import incident_view
from millstream_cli.incidents import Fate, Incident
from millstream_cli.loop_events import Loop, loop_of
from millstream_cli.telling import outcome_of, timeline

from .made_events import LOOP, Journal, drifted, first_model, on_trial, promoted, ref


def loop(journal: Journal) -> Loop:
    return loop_of(journal.told, LOOP)


def outcomes(journal: Journal) -> list[str]:
    return [outcome_of(one) for one in loop(journal).incidents[1:]]


def bad(journal: Journal, at: float, version: str, finding: Finding = Finding.PERFORMANCE_DROP) -> str:
    return journal.performance(at, 0.8, version, finding)


def dropped(journal: Journal) -> None:
    """Version 1 has a drop on day 6, of which version 2 is made, which answers from day 8 on."""
    first_model(journal)
    decided = journal.decided(6, bad(journal, 6, "1"), Decision.ACCEPTED, Cause.PERFORMANCE, run="run2")
    finished = journal.trained(6, "2", Outcome.ON_TRIAL, cause=decided)
    journal.moved(6, Step.REGISTERED, Step.SHADOW, cause=finished)
    journal.moved(8, Step.SHADOW, Step.CHAMPION, cause="judged", previous=ref("1"))


def test_the_first_word_of_the_version_that_answers_instead_is_the_outcome_and_no_later_one() -> None:
    """Version 2 shows the drop too; that it is well weeks later, when the world has turned back, says nothing of its cure."""
    journal = Journal()
    dropped(journal)
    shown = bad(journal, 9, "2", Finding.NOT_CLEARED)
    bad(journal, 11, "2")
    journal.window(20, Finding.CLEARED, -0.3, "2", kind=WindowKind.PERFORMANCE, about="performance-1-6")
    found = loop(journal)
    assert outcomes(journal) == ["promoted (version 2); not cleared: version 2 shows it too", "cleared by itself"]
    told = timeline(found, found.incidents[1])
    assert told[-1].id == shown, "the word itself is in the timeline"
    assert "version 2: effect" in told[-1].details[0]


def test_a_version_that_was_rolled_back_has_no_incident_any_more_once_the_one_before_is_well() -> None:
    journal = Journal()
    dropped(journal)
    journal.performance(9, 0.44, "2")
    bad(journal, 11, "2")
    assert outcomes(journal)[1] == "open; not over yet"
    journal.moved(12, Step.CHAMPION, Step.ROLLED_BACK, cause="judged", reason="psi 2.36")
    assert outcomes(journal)[1] == "version 2 was rolled back; no word on version 1 yet"
    journal.window(14, Finding.CLEARED, -0.3, "1", kind=WindowKind.PERFORMANCE, about="performance-1-6")
    found = loop(journal)
    incident = found.incidents[2]
    assert outcome_of(incident) == "version 2 was rolled back; cleared with version 1"
    assert (incident.fate, incident.open) == (Fate.OVER, False)
    assert [one.text for one in timeline(found, incident) if one.what == "rollout"] == [
        "version 2: champion → rolled back: psi 2.36"
    ]


def test_an_old_incident_of_a_version_that_answers_no_more_is_over_whatever_drift_called_it() -> None:
    """`about` names the first verdict of a whole row of incidents: each is over when its own version's successor is well."""
    journal = Journal()
    promoted(journal)
    journal.window(18, Finding.SUSPECTED, 0.3, "2")
    again = journal.window(20, Finding.NOT_CLEARED, 0.33, "2", about="inputs-1-10")
    journal.decided(20, again, Decision.ACCEPTED, run="run3")
    journal.trained(20, "3", Outcome.PROMOTED)
    journal.moved(20, Step.REGISTERED, Step.CHAMPION, version="3", cause="finished-3")
    journal.window(24, Finding.CLEARED, 0.02, "3", about="inputs-1-10")
    assert outcomes(journal) == [
        "promoted (version 2); not cleared: version 2 shows it too",
        "promoted (version 3); cleared with version 3",
    ]
    assert not any(one.open for one in loop(journal).incidents)


def test_of_two_troubles_the_one_that_goes_on_is_named() -> None:
    journal = Journal()
    on_trial(journal)
    drop = journal.window(11, Finding.PERFORMANCE_DROP, 0.2, kind=WindowKind.PERFORMANCE)
    journal.decided(11, drop, Decision.COALESCED, Cause.PERFORMANCE, reason="run run2 is under way")
    journal.moved(12, Step.SHADOW, Step.CHAMPION, cause="judged")
    assert outcomes(journal) == ["promoted (version 2); no word on version 2 yet"]
    journal.performance(14, 0.44, "2")
    assert outcomes(journal) == ["promoted (version 2); no word on version 2 yet"], "of the inputs"
    journal.window(15, Finding.NOT_CLEARED, 0.3, "2")
    assert outcomes(journal)[0] == "promoted (version 2); not cleared: version 2 shows drift in the inputs too"


def test_a_suspicion_or_broken_data_say_nothing_of_a_cure() -> None:
    journal = Journal()
    promoted(journal)
    journal.window(17, Finding.SUSPECTED, 0.3, "2")
    journal.window(18, Finding.BROKEN_DATA, 0.9, "2")
    assert outcomes(journal)[0] == "promoted (version 2); no word on version 2 yet"
    journal.window(20, Finding.CLEARED, 0.02, "2")
    assert outcomes(journal)[0] == "promoted (version 2); cleared with version 2"


def test_a_challenger_that_answers_some_says_nothing_while_the_champion_answers_the_others() -> None:
    journal = Journal()
    on_trial(journal)
    journal.moved(12, Step.SHADOW, Step.CANARY, share=0.2, cause="judged")
    journal.window(13, Finding.HEALTHY, 0.02, "2")
    assert outcomes(journal) == ["on trial (version 2); not over yet"]
    journal.moved(14, Step.CANARY, Step.REJECTED, cause="judged")
    journal.window(16, Finding.CLEARED, 0.02)
    assert outcomes(journal) == ["rejected in trial (version 2); cleared by itself"]


def test_labels_that_come_after_a_version_was_replaced_open_no_incident_anew() -> None:
    journal = Journal()
    dropped(journal)
    journal.performance(9, 0.44, "2")
    late = bad(journal, 10, "1")
    journal.decided(10, late, Decision.DECLINED, Cause.PERFORMANCE)
    assert outcomes(journal) == ["promoted (version 2); cleared with version 2"]


def test_a_version_that_answers_again_and_is_bad_again_is_an_incident_of_its_own() -> None:
    journal = Journal()
    dropped(journal)
    bad(journal, 9, "2", Finding.NOT_CLEARED)
    journal.moved(10, Step.CHAMPION, Step.ROLLED_BACK, cause="judged")
    bad(journal, 12, "1")
    assert outcomes(journal) == [
        "rolled back (version 2); not cleared: version 2 shows it too",
        "version 2 was rolled back; not cleared: version 1 shows it too",
        "open; not over yet",
    ]


def test_a_champion_that_came_back_by_a_rollback_ends_its_own_trouble() -> None:
    journal = Journal()
    promoted(journal)
    looked = journal.judged(16, 300, 0.05, watch=True, finding=TrialFinding.WORSE)
    journal.moved(16, Step.CHAMPION, Step.ROLLED_BACK, cause=looked)
    assert outcomes(journal) == ["rolled back (version 2); not over yet"]
    journal.window(18, Finding.CLEARED, 0.02)
    assert outcomes(journal) == ["rolled back (version 2); cleared by itself"]


def test_scripts_are_told_whether_it_is_open() -> None:
    journal = Journal()
    first_model(journal)
    journal.decided(10, drifted(journal), Decision.DECLINED)

    def told() -> tuple[object, ...]:
        incident: Incident = loop(journal).incidents[1]
        row = incident_view.summary_of(incident)
        return row["fate"], row["cured"], row["open"], row["ended"]

    assert told() == ("declined", None, True, None)
    journal.window(12, Finding.CLEARED, 0.02)
    assert told() == ("declined", "cleared", False, "2013-06-13T00:00:00Z")
