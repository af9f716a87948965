"""From events made by hand to the stories that they belong to."""

from __future__ import annotations

import random
from dataclasses import replace

import msgspec
import pytest

from millstream.contracts.events import (
    Cause,
    Decision,
    Event,
    Finding,
    ModelState,
    Outcome,
    RolloutAction,
    RolloutMoved,
    Step,
    TrialFinding,
    WindowKind,
)
from millstream_cli import incident_view
from millstream_cli.effects import before_and_after
from millstream_cli.incidents import Fate, Incident
from millstream_cli.loop_events import Loop, loop_of
from millstream_cli.telling import outcome_of, timeline, title_of
from millstream_cli.why import pick

from .made_events import LOOP, Journal, day, drifted, first_model, on_trial, promoted


def last(journal: Journal) -> tuple[Loop, Incident]:
    loop = loop_of(journal.told, LOOP)
    return loop, pick(loop, None)


def words(journal: Journal) -> list[str]:
    loop, incident = last(journal)
    return [f"{one.what}: {one.text}" for one in timeline(loop, incident)]


def test_drift_that_a_challenger_cured_is_one_story_from_the_suspicion_to_the_cure() -> None:
    journal = Journal()
    promoted(journal)
    journal.performance(18, 0.44, "2")
    journal.window(19, Finding.CLEARED, 0.02, "2", about="inputs-1-10")
    loop, incident = last(journal)
    assert [one.what for one in timeline(loop, incident)] == [
        *("drift", "drift", "decision", "training"),
        *("rollout", "trial", "rollout", "trial", "rollout", "outcome"),
    ]
    assert (incident.fate, incident.cured) == (Fate.PROMOTED, "cleared")
    assert outcome_of(incident) == "promoted (version 2); cleared with version 2"
    assert title_of(incident) == "drift in the inputs of version 1"
    told = "\n".join(words(journal))
    assert "suspected in the inputs of version 1: effect 0.250" in told
    assert "accepted (drift, run run2): effect 0.310 in 2 of 3 windows" in told
    assert "version 2 trained on 45,123 rows in 2.5 s up to 2013-06-11 00:00, passed the gate" in told
    assert "version 2: shadow → canary 10%" in told
    assert "version 2: canary → champion: better by 0.025" in told
    assert "version 2 on trial against version 1: better after 1,500 pairs: below zero" in told


def test_every_line_names_the_event_that_led_to_it() -> None:
    journal = Journal()
    promoted(journal)
    loop, incident = last(journal)
    by_id = {one.id: one for one in timeline(loop, incident) if one.what != "outcome"}
    chain = ["moved-4"]
    while (cause := loop.told[chain[-1]].caused_by) in loop.told:
        chain.append(str(cause))
    assert chain == ["moved-4", "judged-2-False-1500"]
    assert by_id["moved-2"].caused_by == "finished-2"
    assert by_id["decided-inputs-1-10"].caused_by == "inputs-1-10"


def test_what_a_new_champion_did_to_the_loss_is_told_in_numbers() -> None:
    journal = Journal()
    promoted(journal)
    loop, incident = last(journal)
    assert before_and_after(loop, incident.runs[0]) is None, "no label of version 2 is there yet"
    journal.performance(17.5, 3.7, "2", Finding.BROKEN_DATA)
    journal.performance(17.7, 3.7, "2", Finding.SUSPECTED, whole_rows=80)
    journal.performance(18, 0.44, "2")
    loop = loop_of(journal.told, LOOP)
    effect = before_and_after(loop, loop.incidents[1].runs[0])
    assert effect is not None
    assert (effect.old, effect.new, effect.before_rows, effect.after_rows) == ("1", "2", 15000, 5000)
    assert effect.before == pytest.approx((0.45 + 0.46 + 0.55) / 3)
    assert effect.after == pytest.approx(0.44)


def test_a_challenger_that_the_gate_refused() -> None:
    journal = Journal()
    first_model(journal)
    decided = journal.decided(10, drifted(journal), Decision.ACCEPTED, run="run2")
    journal.trained(10, "2", Outcome.REJECTED, passed=False, cause=decided)
    loop, incident = last(journal)
    assert incident.fate is Fate.REJECTED_BY_GATE
    assert outcome_of(incident) == "rejected by the gate (version 2); not over yet"
    [training] = [one for one in timeline(loop, incident) if one.what == "training"]
    assert training.details == ["gate log_loss: FAILED; 0.4800 against 0.5100 of the champion"]


def test_candidates_are_told_the_best_first() -> None:
    journal = Journal()
    first_model(journal)
    decided = journal.decided(10, drifted(journal), Decision.ACCEPTED, run="run2")
    metrics = {"log_loss": 0.48, "validation_loss_all": 0.4912, "validation_loss_60d": 0.4801, "validation_rows": 900.0}
    journal.trained(10, "2", Outcome.PROMOTED, cause=decided, metrics=metrics)
    loop, incident = last(journal)
    [training] = [one for one in timeline(loop, incident) if one.what == "training"]
    assert training.details == ["gate passed: log_loss", "candidates by validation loss: 60d 0.4801, all 0.4912"]


def test_a_challenger_that_was_worse_on_live_questions() -> None:
    journal = Journal()
    on_trial(journal)
    looked = journal.judged(11, 400, 0.06, finding=TrialFinding.WORSE)
    journal.moved(11, Step.SHADOW, Step.REJECTED, cause=looked, reason="worse by 0.06")
    _, incident = last(journal)
    assert incident.fate is Fate.REJECTED_IN_TRIAL
    assert "rollout: version 2: shadow → rejected: worse by 0.06" in words(journal)


def test_a_challenger_still_on_trial() -> None:
    journal = Journal()
    on_trial(journal)
    journal.judged(11, 0, 0.0)
    journal.judged(12, 90, 0.0, reason="300 pairs are needed")
    loop, incident = last(journal)
    assert incident.fate is Fate.ON_TRIAL
    assert [one.text for one in timeline(loop, incident) if one.what == "trial"] == [
        "version 2 on trial against version 1: undecided after 200 questions, no label yet",
        "version 2 on trial against version 1: undecided after 90 pairs: 300 pairs are needed",
    ]


def test_what_a_line_above_says_already_is_not_said_again() -> None:
    journal = Journal()
    first_model(journal)
    verdict = journal.window(10, Finding.DETECTED, 0.31, reason="effect 0.310 in 2 of 3 windows")
    decided = journal.decided(10, verdict, Decision.ACCEPTED, run="run2")
    finished = journal.trained(10, "2", Outcome.ON_TRIAL, cause=decided)
    reason = "log loss 0.4800, the champion has 0.5100"
    journal.moved(10, Step.REGISTERED, Step.SHADOW, cause=finished, reason=reason)
    told = "\n".join(words(journal))
    assert "decision: accepted (drift, run run2)\n" in told
    assert "rollout: version 2: registered → shadow\n" in told
    assert (told.count("effect 0.310"), told.count(reason)) == (1, 1)


def test_a_champion_that_disappointed_on_watch_is_rolled_back() -> None:
    journal = Journal()
    promoted(journal)
    looked = journal.judged(16, 300, 0.05, watch=True, finding=TrialFinding.WORSE, reason="above zero")
    journal.moved(16, Step.CHAMPION, Step.ROLLED_BACK, cause=looked, reason="worse on watch")
    loop, incident = last(journal)
    assert incident.fate is Fate.ROLLED_BACK
    told = words(journal)
    assert any("version 2 on watch against version 1: worse" in one for one in told)
    assert "rollout: version 2: champion → rolled back: worse on watch" in told
    assert [ref.version for _, ref in loop.champions] == ["1", "2", "1"]


def test_a_person_who_takes_a_model_back_is_named_with_the_reason() -> None:
    journal = Journal()
    promoted(journal)
    wish = journal.wants(RolloutAction.ROLLBACK, "passengers complain")
    journal.moved(16, Step.CHAMPION, Step.ROLLED_BACK, cause=wish, by="Ada", reason="asked for")
    assert "rollout: version 2: champion → rolled back (Ada: passengers complain): asked for" in words(journal)


def test_what_a_person_holds_is_no_part_of_the_story_that_made_the_champion() -> None:
    journal = Journal()
    promoted(journal)
    told = words(journal)
    wish = journal.wants(RolloutAction.FREEZE, "Black Friday")
    journal.moved(90, Step.CHAMPION, Step.CHAMPION, cause=wish, by="Ada", reason="Black Friday")
    assert words(journal) == told


def test_a_watch_that_ended_well_is_the_end_of_the_story() -> None:
    journal = Journal()
    promoted(journal)
    journal.moved(17, Step.CHAMPION, Step.CHAMPION, cause="labels-17", reason="watched until 2013-06-18")
    assert "rollout: version 2 stays: watched until 2013-06-18" in words(journal)


def test_a_promotion_that_waits_for_replicas_and_its_end_are_told() -> None:
    journal = Journal()
    promotion = promoted(journal)
    journal.told = [
        replace(told, event=_waiting(told.event)) if told.id == promotion else told for told in journal.told
    ]
    reason = "1 of 2 replicas obey it, the rollout goes on; not within 60 s: serving-1 (at revision 3)"
    journal.moved(15, Step.CHAMPION, Step.CHAMPION, cause=promotion, reason=reason, numbers={"replicas": 2, "obey": 1})
    told = words(journal)
    assert "rollout: version 2: canary → champion, promoting: better by 0.025" in told
    assert f"rollout: version 2 is promoted: {reason}" in told
    assert last(journal)[1].runs[-1].fate is Fate.PROMOTED


def _waiting(event: Event) -> Event:
    assert isinstance(event, RolloutMoved)
    led_to = ModelState(
        id="s",
        loop=LOOP,
        revision=event.revision,
        step=Step.CHAMPION,
        champion=event.model,
        challenger=None,
        previous=None,
        reason=event.reason,
        at=event.at,
        promoting=event.revision,
    )
    return msgspec.structs.replace(event, led_to=led_to)


def test_a_wish_that_was_declined_is_a_story_of_its_own() -> None:
    journal = Journal()
    promoted(journal)
    wish = journal.wants(RolloutAction.ROLLBACK, "complaints")
    journal.decided(16, wish, Decision.DECLINED, Cause.MANUAL, reason="rollback: version 2 is pinned")
    _, incident = last(journal)
    assert title_of(incident) == "Ada asked: rollback: complaints"


def test_a_drift_declined_by_the_cooldown_that_went_by_itself() -> None:
    journal = Journal()
    first_model(journal)
    reason = "1.0 days since the last run, the cooldown is 3.0 days"
    verdict = drifted(journal)
    journal.decided(10, verdict, Decision.DECLINED, reason=reason, numbers={"days_since_last_run": 1.0})
    journal.window(12, Finding.CLEARED, 0.03)
    loop, incident = last(journal)
    assert outcome_of(incident) == "declined; cleared by itself"
    [decision] = [one for one in timeline(loop, incident) if one.what == "decision"]
    assert decision.text == f"declined (drift): {reason}"
    assert decision.numbers == {"days_since_last_run": 1.0}


def test_verdicts_that_repeat_and_are_declined_belong_to_the_incident_that_is_accepted_at_last() -> None:
    journal = Journal()
    first_model(journal)
    journal.decided(10, drifted(journal), Decision.DECLINED)
    again = journal.window(12, Finding.DETECTED, 0.4)
    journal.decided(12, again, Decision.ACCEPTED, run="run2")
    _, incident = last(journal)
    assert [one.decision for one in incident.decisions] == [Decision.DECLINED, Decision.ACCEPTED]
    assert incident.fate is Fate.TRAINING


def test_a_request_that_joins_a_run_belongs_to_the_incident_of_that_run() -> None:
    journal = Journal()
    on_trial(journal)
    wish = journal.retrain("wish-1")
    journal.decided(11, wish, Decision.COALESCED, Cause.MANUAL, reason="version 2 is on trial")
    drop = journal.window(11, Finding.PERFORMANCE_DROP, 0.2, kind=WindowKind.PERFORMANCE)
    journal.decided(11, drop, Decision.COALESCED, Cause.PERFORMANCE, reason="run run2 is under way")
    loop, incident = last(journal)
    assert len(loop.incidents) == 2, "the first model, and this"
    assert title_of(incident) == "drift in the inputs and a performance drop of version 1"
    assert "asked: Ada asked: the new runway" in words(journal)
    assert set(incident_view.windows_shown(loop, incident)) == {WindowKind.INPUTS, WindowKind.PERFORMANCE}


def test_broken_data_names_the_field_and_who_sends_it_and_is_over_when_it_is_whole() -> None:
    journal = Journal()
    first_model(journal)
    journal.decided(8, journal.broken(8), Decision.DECLINED, reason="broken data: distance")
    loop, incident = last(journal)
    assert (incident.cause, outcome_of(incident)) == ("broken data", "declined; not over yet")
    [drift] = [one for one in timeline(loop, incident) if one.what == "drift"]
    assert drift.details == [
        "distance: 41% missing, 0% in training (field distance of flights-scheduled, sent by tower-3)"
    ]
    journal.window(10, Finding.HEALTHY, 0.02)
    assert outcome_of(last(journal)[1]) == "declined; the data is whole again"


def test_an_approval_that_is_awaited_given_or_never_came() -> None:
    def waiting() -> Journal:
        journal = Journal()
        first_model(journal)
        journal.decided(10, drifted(journal), Decision.PENDING, run="run2", expires=day(12))
        return journal

    journal = waiting()
    loop, incident = last(journal)
    assert incident.fate is Fate.PENDING
    [decision] = [one for one in timeline(loop, incident) if one.what == "decision"]
    assert decision.text.startswith("pending until 2013-06-13 00:00 (drift)")
    assert decision.details == ["a person decides: millstream approve flight-delay run2"]

    journal.decided(12, "expired run2", Decision.EXPIRED, run="run2")
    loop, incident = last(journal)
    assert (incident.fate, len(loop.incidents)) == (Fate.EXPIRED, 2)

    journal = waiting()
    word = journal.approved("run2")
    journal.decided(11, word, Decision.ACCEPTED, run="run2")
    journal.trained(11, "2", Outcome.PROMOTED)
    loop, incident = last(journal)
    assert (incident.fate, len(loop.incidents)) == (Fate.PROMOTED, 2)
    assert "asked: Grace approved run run2: looks right" in words(journal)


def test_an_approval_of_what_nobody_asked_for_is_a_story_that_says_so() -> None:
    journal = Journal()
    first_model(journal)
    journal.decided(11, journal.approved("run9"), Decision.DECLINED, Cause.MANUAL, run="run9", reason="no run 'run9'")
    _, incident = last(journal)
    assert title_of(incident) == "Grace approved run run9: looks right"
    assert outcome_of(incident) == "declined"


def test_a_request_that_joined_another_request_stays_by_itself() -> None:
    journal = Journal()
    promoted(journal)
    wish = journal.retrain("wish-1")
    journal.decided(30, wish, Decision.COALESCED, Cause.MANUAL, reason="another request waits already")
    loop, incident = last(journal)
    assert (len(loop.incidents), title_of(incident), incident.fate.value) == (
        3,
        "Ada asked: the new runway",
        "joined another",
    )


def test_an_alert_is_a_story_of_its_own() -> None:
    journal = Journal()
    first_model(journal)
    alert = journal.retrain("alert-1", Cause.ALERT, "alertmanager", "LateFlights: delays above 40%")
    journal.decided(9, alert, Decision.ACCEPTED, Cause.ALERT, run="run2")
    journal.trained(9, "2", Outcome.FAILED)
    _, incident = last(journal)
    assert title_of(incident) == "an alert asked: LateFlights: delays above 40%"
    assert outcome_of(incident) == "failed"


def test_a_retrain_that_did_not_help_ends_its_incident_and_begins_another() -> None:
    journal = Journal()
    promoted(journal)
    journal.window(18, Finding.SUSPECTED, 0.3, "2")
    again = journal.window(20, Finding.NOT_CLEARED, 0.33, "2", about="inputs-1-10")
    journal.decided(20, again, Decision.DECLINED)
    loop = loop_of(journal.told, LOOP)
    _, old, new = loop.incidents
    assert outcome_of(old) == "promoted (version 2); not cleared: version 2 shows it too"
    assert outcome_of(new) == "declined; not over yet"


def test_a_suspicion_that_came_to_nothing_is_no_incident() -> None:
    journal = Journal()
    first_model(journal)
    journal.window(8, Finding.SUSPECTED, 0.25)
    journal.window(10, Finding.HEALTHY, 0.02)
    assert len(loop_of(journal.told, LOOP).incidents) == 1


def test_a_refused_schedule_hides_no_incident() -> None:
    journal = Journal()
    on_trial(journal)
    journal.decided(30, journal.labels(30), Decision.DECLINED, Cause.SCHEDULE)
    loop, incident = last(journal)
    assert incident.number == 2
    assert loop.incidents[-1].routine


def test_the_order_in_which_topics_are_read_tells_no_other_story() -> None:
    journal = Journal()
    promoted(journal)
    journal.window(19, Finding.CLEARED, 0.02, "2", about="inputs-1-10")
    told = [(one.id, one.text) for one in timeline(*last(journal))]
    for seed in range(20):
        random.Random(seed).shuffle(journal.told)
        assert sorted((one.id, one.text) for one in timeline(*last(journal))) == sorted(told)
        assert last(journal)[1].number == 2


def test_what_happened_at_one_moment_is_told_as_it_was_said() -> None:
    journal = Journal()
    first_model(journal)
    journal.decided(10, drifted(journal), Decision.PENDING, run="run2", expires=day(12))
    word = journal.approved("run2")
    decided = journal.decided(10, word, Decision.ACCEPTED, run="run2")
    journal.trained(10, "2", Outcome.PROMOTED, cause=decided)
    told = [one.text.partition(" ")[0] for one in timeline(*last(journal)) if one.at == day(10)]
    assert told == ["detected", "pending", "Grace", "accepted", "version", "promoted"]
