"""What late labels made of judged windows, in the story of the incident."""

from __future__ import annotations

from millstream.contracts.events import Cause, Decision, Finding
from millstream_cli.loop_events import loop_of
from millstream_cli.telling import timeline
from millstream_cli.why import pick

from .made_events import LOOP, Journal, first_model


def test_late_labels_that_turned_a_window_are_part_of_what_followed() -> None:
    journal = Journal()
    first_model(journal)
    journal.performance(9, 0.45)
    journal.corrected(9.5, 9, Finding.HEALTHY, Finding.SUSPECTED)
    journal.corrected(9.6, 3, Finding.HEALTHY, Finding.SUSPECTED)
    journal.performance(10, 0.5, finding=Finding.PERFORMANCE_DROP)
    journal.corrected(10.5, 10, Finding.PERFORMANCE_DROP, Finding.PERFORMANCE_DROP)
    journal.decided(10, "performance-1-10", Decision.ACCEPTED, Cause.PERFORMANCE, run="run2")
    loop = loop_of(journal.told, LOOP)
    told = [one.text for one in timeline(loop, pick(loop, None)) if one.what == "drift"]
    assert told == [
        "corrected the performance of version 1: 180 labels came late: log loss 0.4912 of 5180 rows",
        "performance drop in the performance of version 1: effect 0.111",
    ], "those that changed nothing, and those of long ago, are not"
