"""How an incident looks on a terminal."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from millstream.contracts.events import BrokenField, Decision, Finding
from millstream_cli import incident_view
from millstream_cli.loop_events import loop_of
from millstream_cli.telling import timeline

from .made_events import LOOP, Journal, first_model, promoted
from .test_incidents import last


def test_trial_and_watch_are_two_series_with_the_promotion_between_them() -> None:
    journal = Journal()
    promoted(journal)
    journal.judged(15.5, 150, -0.01, watch=True)
    journal.judged(16, 1600, -0.02)  # a word of the trial that comes after its end
    journal.judged(16, 200, -0.015, watch=True)
    loop, incident = last(journal)
    screen = StringIO()
    incident_view.show(loop, incident, Console(file=screen, width=160))
    charts = screen.getvalue().partition("on trial, version 2 beside version 1")[2].splitlines()
    pairs = [line.split()[2] for line in charts if line.startswith("  2013") and line.split()[2] != "drift"]
    assert pairs[:5] == ["1,000", "1,500", "promoted", "150", "200"]
    assert charts[6].startswith("on watch, version 2 beside version 1")
    trial = [one.text for one in timeline(loop, incident) if one.what == "trial"]
    assert [text.split(":")[0] for text in trial] == [
        *["version 2 on trial against version 1"] * 2,
        *["version 2 on watch against version 1"] * 2,
    ]


def test_the_terminal_shows_windows_columns_trial_and_timeline() -> None:
    journal = Journal()
    promoted(journal)
    screen = StringIO()
    incident_view.show(*last(journal), Console(file=screen, width=140))
    text = screen.getvalue()
    for said in ("effect per window, inputs", "██", "0.310", "detected", "distance", "●", "1,500", "outcome"):
        assert said in text, said
    screen = StringIO()
    incident_view.show_list(loop_of(journal.told, LOOP), Console(file=screen, width=140))
    assert "drift in the inputs of version 1" in screen.getvalue()
    assert "first model" in screen.getvalue()


def test_what_producers_and_people_write_is_no_markup() -> None:
    journal = Journal()
    first_model(journal)
    bad = BrokenField(column="[red]x", stream="s", field="f", producer="[/]", detail="[bold]")
    window = journal.window(8, Finding.BROKEN_DATA, 0.9, broken=[bad], reason="[red]boo[/blue]")
    journal.decided(8, window, Decision.DECLINED, reason="[link=x]why[/]")
    screen = StringIO()
    incident_view.show(*last(journal), Console(file=screen, width=140))
    incident_view.show_list(loop_of(journal.told, LOOP), Console(file=screen, width=140))
    assert "[red]boo[/blue]" in screen.getvalue()
    assert "[link=x]why[/]" in screen.getvalue()


def test_an_effect_just_below_its_bound_is_not_shown_as_the_bound() -> None:
    journal = Journal()
    first_model(journal)
    journal.window(8, Finding.HEALTHY, 0.1996)
    journal.window(10, Finding.DETECTED, 0.2006)
    screen = StringIO()
    incident_view.show(*last(journal), Console(file=screen, width=140))
    shown = [line.split()[4] for line in screen.getvalue().splitlines() if " 5,000 " in line]
    assert shown == ["0.1996", "0.2006"]
