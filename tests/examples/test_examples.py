"""Every example holds together: its project has no mistake, and what its recording sends fits its streams."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from millstream.contracts.times import from_rfc3339, to_datetime
from millstream.project import load_project
from millstream_cli.check import examine
from millstream_cli.recording import load_recording

from .example import EXAMPLES, Example

EVENTS = {
    "bikes": {"bikes-hours": 17_472, "bikes-rides": 17_315, "bikes-weather": 1_456},
    "machines": {"machines-checks": 21_600, "machines-inspected": 21_600, "machines-readings": 86_400},
}


@pytest.fixture(scope="module", params=sorted(EVENTS))
def example(request: pytest.FixtureRequest) -> Example:
    return Example(request.param)


def test_every_example_but_the_flights_is_told_of_here() -> None:
    assert {folder.name for folder in EXAMPLES.iterdir() if folder.is_dir()} == {*EVENTS, "flights"}


def test_a_check_finds_nothing(example: Example) -> None:
    project, problems = examine(example.project.path)
    assert problems == []
    assert project is not None


def test_it_is_small_enough_for_a_demo_of_a_minute(example: Example) -> None:
    events = example.recording.events
    assert {name: len(found) for name, found in events.items()} == EVENTS[example.project.path.name]
    assert sum(len(found) for found in events.values()) <= 150_000


def test_what_is_sent_fits_the_streams(example: Example) -> None:
    for name, events in example.recording.events.items():
        stream = example.project.streams[name]
        assert stream.id is not None
        assert events[stream.id].is_unique().all()
        assert events["known_at"].is_sorted()
        for row in events.gather_every(97).iter_rows(named=True):
            known_at = row.pop("known_at")
            stream.validator().validate(row)
            assert 0 <= known_at - from_rfc3339(row[stream.time]) <= stream.lateness


def test_a_second_recording_is_the_same(example: Example) -> None:
    again = load_recording(load_project(example.project.path)).events
    for name, events in example.recording.events.items():
        assert events.equals(again[name])


def test_what_it_learns_in_three_weeks_is_better_than_knowing_nothing(example: Example, tmp_path: Path) -> None:
    [loop] = example.project.loops.values()
    begin = to_datetime(int(example.recording.events[loop.predict.on]["known_at"][0]))
    result = example.trained(tmp_path, until=begin.astimezone(UTC) + timedelta(days=22))
    assert result.passed, result.reason
    assert result.rows + result.metrics["holdout_rows"] >= loop.train.first_after.rows
    checks = {check.name: check for check in result.gate}
    nothing = checks.get("better_than_mean") or checks["better_than_base_rate"]
    assert nothing.champion is not None
    assert nothing.challenger < nothing.champion / 2


def test_scores_begin_when_there_is_a_model(example: Example) -> None:
    [loop] = example.project.loops.values()
    events = example.recording.events[loop.label.stream]
    enough = int(events["known_at"][loop.train.first_after.rows])
    assert example.recording.scored_from is not None
    assert enough < example.recording.scored_from < enough + 15 * 86_400_000_000


def test_the_years_are_those_of_the_readme(example: Example) -> None:
    starts = {"bikes": datetime(2024, 2, 1, tzinfo=UTC), "machines": datetime(2024, 4, 1, tzinfo=UTC)}
    first = min(int(events["known_at"][0]) for events in example.recording.events.values())
    assert to_datetime(first).astimezone(UTC) - starts[example.project.path.name] < timedelta(hours=1)
