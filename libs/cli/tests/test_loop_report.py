"""What somebody who was away for a month is told."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO

import pytest
from rich.console import Console

from millstream.contracts.events import Cause, Decision, Finding, Outcome, RolloutAction, Step, TrialFinding, WindowKind
from millstream_cli import report_view
from millstream_cli.errors import CommandFailed
from millstream_cli.loop_events import loop_of
from millstream_cli.loop_report import Report, report_of
from millstream_cli.report_page import page_of

from .made_events import LOOP, Journal, day, drifted, first_model, on_trial, promoted, ref


def report(journal: Journal, days: float = 30) -> Report:
    return report_of(loop_of(journal.told, LOOP), timedelta(days=days))


def test_a_month_in_numbers() -> None:
    journal = Journal()
    promoted(journal)
    journal.performance(18, 0.44, "2")
    journal.window(19, Finding.CLEARED, 0.02, "2", about="inputs-1-10")
    journal.labels(20, matured=30000)
    found = report(journal)
    assert (found.champion, found.previous, found.answers_since) == ("2", "1", day(15))
    assert found.age_days == 20
    assert found.runs == {"retrains": 2, "promoted": 2}
    assert found.decisions == {"accepted": 2}
    assert [line.outcome for line in found.incidents] == [
        "promoted (version 1)",
        "promoted (version 2); cleared with version 2",
    ]
    assert found.labels is not None
    assert (found.labels.matured, found.labels.new) == (30000, 30000)
    assert [one.loss.value for one in found.performance] == [0.45, 0.46, 0.55, 0.44]
    assert found.mean is not None
    assert found.mean.value == pytest.approx(0.475)
    assert [(one.column, one.psi) for one in found.drift] == [("distance", 0.02)]
    assert found.needs == []


def test_a_window_that_late_labels_corrected_is_told_corrected_and_says_so() -> None:
    journal = Journal()
    promoted(journal)
    journal.performance(17, 0.45, "2")
    journal.performance(18, 0.44, "2")
    journal.corrected(18.5, 17, Finding.HEALTHY, Finding.HEALTHY, "2")
    journal.corrected(19, 17, Finding.HEALTHY, Finding.SUSPECTED, "2")
    found = report(journal, days=3)
    first, second = found.performance
    assert first.was is not None
    assert (first.loss.value, first.loss.rows, first.was.value, first.late) == (0.4912, 5180, 0.45, 180)
    assert (first.finding, first.shows) == ("healthy", "suspected")
    assert (second.was, second.late, second.shows) == (None, 0, "")
    assert found.mean is not None
    assert found.mean.value == pytest.approx((0.4912 * 5180 + 0.44 * 5000) / 10180)
    out = StringIO()
    report_view.show(found, Console(file=out, width=200))
    assert "healthy; corrected by 180 late labels, was 0.4500, suspected with them" in out.getvalue()
    told = json.loads(json.dumps(report_view.as_json(found), default=str))["performance"]
    assert [one["late"] for one in told] == [180, 0]
    assert told[0]["was"]["value"] == 0.45
    assert "1 of 2 windows with labels that came late:" in page_of(found)


def test_what_was_before_the_span_is_left_out() -> None:
    journal = Journal()
    promoted(journal)
    journal.labels(20, matured=30000)
    found = report(journal, days=12)
    assert found.decisions == {"accepted": 1}
    assert [one.loss.value for one in found.performance] == [0.55]
    assert found.labels is not None
    assert found.labels.new == 9000
    assert len(found.incidents) == 1


def test_a_trial_and_a_watch_are_shown_with_their_comparison() -> None:
    journal = Journal()
    on_trial(journal)
    trial = report(journal).trial
    assert trial is not None
    assert (trial.version, trial.against, trial.step, trial.compared) == ("2", "1", "shadow", None)
    journal.judged(11, 500, -0.01)
    trial = report(journal).trial
    assert trial is not None
    assert trial.compared is not None
    assert trial.compared.pairs == 500

    journal = Journal()
    promoted(journal)
    journal.judged(16, 100, 0.001, watch=True)
    trial = report(journal).trial
    assert trial is not None
    assert (trial.version, trial.step) == ("2", "on watch until 2013-06-18 00:00")
    assert trial.compared is not None
    assert trial.compared.watch


def test_what_needs_a_person_comes_with_what_to_type() -> None:
    journal = Journal()
    first_model(journal)
    journal.decided(10, drifted(journal), Decision.PENDING, run="run2", expires=day(14))
    journal.skew(10, Finding.DETECTED)
    journal.broken(12)
    journal.state(12, Step.CHAMPION, "1", frozen="Black Friday", pinned="1")
    found = report(journal)
    assert [need.split(":")[0].split(" (")[0] for need in found.needs] == [
        "broken data since 2013-06-11 00",
        "run run2 waits for an approval until 2013-06-15 00",
        "online and offline features differ",
        "frozen",
        "pinned to version 1",
    ]
    said = " ".join(found.needs)
    for command in ("approve flight-delay run2", "skew flight-delay", "unfreeze flight-delay", "unpin flight-delay"):
        assert f"millstream {command}" in said
    assert "field distance of flights-scheduled, sent by tower-3" in said


def test_an_approval_that_expired_is_waited_for_no_more() -> None:
    journal = Journal()
    first_model(journal)
    journal.decided(10, drifted(journal), Decision.PENDING, run="run2", expires=day(14))
    journal.labels(15)
    assert report(journal).needs == []


def test_a_loop_whose_first_model_nobody_approved_needs_a_person() -> None:
    journal = Journal()
    asked = journal.labels(0)
    assert report(journal).needs == [], "nothing was asked yet"
    journal.decided(0, asked, Decision.PENDING, Cause.FIRST_MODEL, run="run1", expires=day(2))
    [need] = report(journal).needs
    assert need.endswith("millstream approve flight-delay run1")
    journal.decided(
        *(2, "expired run1", Decision.EXPIRED, Cause.FIRST_MODEL), run="run1", reason="nobody approved run run1"
    )
    assert report(journal).needs == [
        "no model answers: nobody approved run run1; ask for one: millstream retrain flight-delay --reason …"
    ]
    wish = journal.retrain("wish-1")
    journal.decided(3, wish, Decision.ACCEPTED, Cause.MANUAL, run="run2")
    assert report(journal).needs == [], "one is on its way"
    journal.trained(3, "2", Outcome.FAILED)
    [need] = report(journal).needs
    assert need.startswith("no model answers: run run2 failed: ")


@pytest.mark.parametrize(("numbers", "open_"), [({}, True), ({"breaker": 5.0}, False)])
def test_an_open_circuit_breaker_needs_a_person(numbers: dict[str, float], open_: bool) -> None:
    journal = Journal()
    first_model(journal)
    verdict = drifted(journal)
    journal.decided(10, verdict, Decision.DECLINED, numbers={"rejected_in_a_row": 3.0} | numbers)
    assert any("only a person may ask" in need for need in report(journal).needs) is open_


def shown(journal: Journal, days: float = 30) -> str:
    screen = StringIO()
    report_view.show(report(journal, days), Console(file=screen, width=200))
    return screen.getvalue()


def test_over_an_open_incident_nobody_is_told_that_nothing_needs_them() -> None:
    journal = Journal()
    first_model(journal)
    assert "nothing needs you" in shown(journal)
    reason = "1.0 days since the last run, the cooldown is 3.0 days"
    journal.decided(10, drifted(journal), Decision.DECLINED, reason=reason)
    found = report(journal)
    assert (found.needs, found.notices) == (
        [],
        [
            "open: incident 2, drift in the inputs of version 1, since 2013-06-09 00:00: declined; not over yet "
            f"({reason}); millstream why flight-delay 2"
        ],
    )
    assert "nothing needs you" not in shown(journal)
    assert found.notices[0] in page_of(found)
    assert "Nothing needs you" not in page_of(found)
    journal.window(12, Finding.CLEARED, 0.02)
    assert "nothing needs you" in shown(journal)


def test_what_the_loop_only_suggests_needs_a_person_while_it_is_open() -> None:
    journal = Journal()
    first_model(journal)
    journal.decided(10, drifted(journal), Decision.SUGGESTED)
    [need] = report(journal).needs
    assert need.startswith(
        "incident 2, drift in the inputs of version 1, is open and nothing runs for it: suggested; not over"
    )
    assert need.endswith("millstream retrain flight-delay --reason …")
    journal.window(12, Finding.CLEARED, 0.02)
    assert report(journal).needs == []


def test_labels_that_are_broken_need_a_person_as_inputs_do() -> None:
    journal = Journal()
    first_model(journal)
    why = "every label is False"
    journal.decided(
        10,
        journal.window(10, Finding.BROKEN_DATA, 0.9, kind=WindowKind.PERFORMANCE, reason=why),
        Decision.DECLINED,
        Cause.PERFORMANCE,
    )
    found = report(journal)
    need = f"broken data since 2013-06-09 00:00: {why}; retrains wait until it is whole"
    assert (found.needs, found.notices) == ([need], [])


def test_the_last_run_needs_a_person_where_it_failed_and_an_earlier_one_is_told() -> None:
    journal = Journal()
    first_model(journal)

    def ran(at: float, version: str, outcome: Outcome) -> None:
        wish = journal.retrain(f"wish-{version}")
        journal.decided(at, wish, Decision.ACCEPTED, Cause.MANUAL, run=f"run{version}")
        journal.trained(at, version, outcome)

    ran(10, "2", Outcome.FAILED)
    failed = (
        "run run2 failed 2013-06-11 00:00: log loss 0.4800, the champion has 0.5100; millstream why flight-delay run2"
    )
    assert (report(journal).needs, report(journal).notices) == ([failed], [])
    ran(12, "3", Outcome.REJECTED)
    assert (report(journal).needs, report(journal).notices) == ([], [failed])
    assert report(journal, days=1).notices == [], "before the span"


def test_a_loop_that_has_only_labels_is_reported_too() -> None:
    journal = Journal()
    journal.labels(1, matured=5)
    found = report(journal)
    assert (found.champion, found.trial, found.mean, found.drift_at) == (None, None, None, None)
    assert "none yet" in dict(report_view.facts(found))["champion"]


def test_runs_are_counted_by_what_became_of_them() -> None:
    journal = Journal()
    on_trial(journal)
    looked = journal.judged(12, 600, 0.05, finding=TrialFinding.WORSE)
    journal.moved(12, Step.SHADOW, Step.REJECTED, cause=looked)
    for version, outcome in (("3", Outcome.REJECTED), ("4", Outcome.FAILED)):
        at = 12 + int(version)
        wish = journal.retrain(f"wish-{version}")
        journal.decided(at, wish, Decision.ACCEPTED, Cause.MANUAL, run=f"run{version}")
        journal.trained(at, version, outcome)
    assert report(journal).runs == {
        "retrains": 4,
        "failed": 1,
        "rejected by the gate": 1,
        "rejected in trial": 1,
        "promoted": 1,
    }


def test_what_people_did_is_listed() -> None:
    journal = Journal()
    promoted(journal)
    wish = journal.wants(RolloutAction.FREEZE, "Black Friday")
    journal.moved(18, Step.CHAMPION, Step.CHAMPION, cause=wish, by="Ada", reason="Black Friday")
    [word] = report(journal).people
    assert (word.by, word.text) == ("Ada", "freeze, version 2 stays: Black Friday")


def test_a_replica_s_clock_is_not_the_loop_s() -> None:
    journal = Journal()
    first_model(journal)
    journal.obeyed(5000, "serving-0", 1)
    assert report(journal).now == day(5)


def test_the_terminal_and_json_carry_the_numbers() -> None:
    journal = Journal()
    promoted(journal)
    journal.performance(18, 0.44, "2")
    journal.state(18, Step.CHAMPION, "2", previous=ref("1"), frozen="[red]audit[/x]")
    screen = StringIO()
    report_view.show(report(journal), Console(file=screen, width=150))
    text = screen.getvalue()
    for said in ("version 2", "0.4400 (0.4300 to 0.4500)", "[red]audit[/x]", "drift in the inputs", "millstream why"):
        assert said in text, said
    told = json.loads(json.dumps(report_view.as_json(report(journal))))
    assert told["champion"] == "2"
    assert told["performance"][-1]["loss"]["value"] == 0.44
    assert told["incidents"][1]["outcome"].startswith("promoted (version 2)")


def test_labels_that_came_again_are_told_and_many_of_them_are_noticed() -> None:
    journal = Journal()
    first_model(journal)
    journal.labels(10, matured=30000, duplicated=300)
    assert "300 came again" in shown(journal)
    assert report(journal).notices == [], "a producer that started anew repeats as many"
    journal.labels(20, matured=32000, duplicated=2180)
    found = report(journal, days=10)
    assert found.labels is not None
    assert (found.labels.duplicated, found.labels.new_duplicated) == (2180, 1880)
    [notice] = found.notices
    assert notice.startswith("1,880 labels (48%) came again for a question that had one")
    assert "2,180 came again" in dict(report_view.facts(found))["labels"]
    assert "nothing needs you" not in shown(journal, days=10)
    decided = journal.decided(20, journal.retrain("wish-1"), Decision.ACCEPTED, Cause.MANUAL, run="run2")
    journal.trained(20, "2", Outcome.REJECTED, passed=False, cause=decided)
    assert report(journal, days=10).notices == [], "the run has said how many"
    journal.labels(21, matured=33000, duplicated=3180)
    [notice] = report(journal, days=10).notices
    assert notice.startswith("1,000 labels (50%) came again")


def test_labels_that_drift_counts_anew_are_not_taken_from_the_new_ones() -> None:
    journal = Journal()
    first_model(journal)
    for at, matured in ((10, 30000), (11, 30500), (12, 700), (13, 1300)):
        journal.labels(at, matured=matured, duplicated=matured // 100)
    found = report(journal, days=3)
    assert found.labels is not None
    assert (found.labels.new, found.labels.new_duplicated) == (1100, 11)


def test_a_loss_of_broken_labels_is_no_part_of_the_mean() -> None:
    journal = Journal()
    first_model(journal)
    journal.performance(10, 3.7, finding=Finding.BROKEN_DATA)
    found = report(journal)
    assert found.mean is not None
    assert found.mean.value == pytest.approx(0.455)
    assert (
        dict(report_view.facts(found))["performance"]
        == "log loss 0.4550 over 10,000 labels, without 1 window of broken data"
    )


def test_of_a_loop_that_was_only_asked_about_there_is_nothing_to_report() -> None:
    journal = Journal()
    journal.retrain("wish-1")
    with pytest.raises(CommandFailed, match="nothing was heard of loop 'flight-delay' yet"):
        report(journal)


def test_what_a_fitted_model_has_learned_is_not_said_to_the_day() -> None:
    """Part of what its run looked at judged it."""
    journal = Journal()
    first_model(journal)
    assert "version 1, answers since" in shown(journal)
    assert ", trained on what was labelled by 2013-06-01 (" in shown(journal)
