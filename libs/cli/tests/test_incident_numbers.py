"""How an incident is named: by a number that stays, by its run, or by the id of an event."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from millstream.contracts.events import Cause, Decision, Finding
from millstream_cli import incident_view
from millstream_cli.errors import CommandFailed
from millstream_cli.loop_events import loop_of
from millstream_cli.why import loop_named, pick

from .made_events import LOOP, Journal, promoted


def test_an_incident_is_named_by_number_by_run_or_by_the_id_of_an_event() -> None:
    journal = Journal()
    promoted(journal)
    loop = loop_of(journal.told, LOOP)
    assert pick(loop, "1").id == "labels-0"
    assert pick(loop, "2") is pick(loop, "run2") is pick(loop, "inputs-1-10") is pick(loop, "moved-2")
    for wrong, said in (("9", "a number from 1 to 2"), ("run", "there is none"), ("labels-9", "--list")):
        with pytest.raises(CommandFailed, match=said):
            pick(loop, wrong)
    with pytest.raises(CommandFailed, match="there is: flight-delay"):
        loop_named(journal.told, "flights")
    with pytest.raises(CommandFailed, match="no loop has said anything yet"):
        loop_named([], "flights")


def numbers_of(journal: Journal) -> dict[str, int]:
    return {incident.id: incident.number for incident in loop_of(journal.told, LOOP).incidents}


def test_incidents_of_one_moment_are_numbered_as_they_became_known() -> None:
    journal = Journal()
    for id in ("b", "c", "a"):
        journal.decided(9, journal.retrain(id), Decision.DECLINED, Cause.MANUAL)
    assert numbers_of(journal) == {"b": 1, "c": 2, "a": 3}


def test_a_later_incident_or_decision_changes_no_number() -> None:
    """Each prefix of a long journal numbers what it knows as the whole does; only what joins a run is found elsewhere."""
    journal = Journal()
    promoted(journal)
    journal.window(20, Finding.SUSPECTED, 0.3, "2")
    journal.decided(21, journal.retrain("early"), Decision.DECLINED, Cause.MANUAL)
    journal.window(22, Finding.DETECTED, 0.4, "2")
    journal.decided(23, journal.retrain("between"), Decision.ACCEPTED, Cause.MANUAL, run="run3")
    journal.decided(24, "inputs-2-22", Decision.COALESCED, reason="run run3 is under way")
    journal.decided(24, journal.retrain("beside"), Decision.COALESCED, Cause.MANUAL, reason="run run3 is under way")
    journal.decided(25, journal.retrain("late"), Decision.DECLINED, Cause.MANUAL)
    whole = numbers_of(journal)
    assert whole == {"labels-0": 1, "inputs-1-8": 2, "early": 3, "between": 5, "late": 6}
    for length in range(len(journal.told)):
        part = numbers_of(Journal(told=journal.told[:length]))
        assert {id: whole.get(id, 4) for id in part} == part
    loop = loop_of(journal.told, LOOP)
    assert pick(loop, "4") is pick(loop, "5"), "the drift of day 22 had a number while it waited"
    screen = StringIO()
    incident_view.show_list(loop, Console(file=screen, width=200))
    assert [line.split("  2013")[0].strip() for line in screen.getvalue().splitlines()[1:]] == [
        *("1", "2", "3", "5, 4", "6"),
    ]
