"""A recording is checked before anything is started."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from millstream.contracts.times import from_rfc3339
from millstream.project import load_project
from millstream_cli.errors import CommandFailed
from millstream_cli.recording import load_recording

FLIGHTS = Path(__file__).parents[3] / "examples" / "flights"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for part in ("streams", "features", "loops"):
        shutil.copytree(FLIGHTS / part, tmp_path / part)
    return tmp_path


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (None, "A replay needs a function recording()"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("x = 1", "AttributeError"),
        (
            "import polars as pl\ndef recording(): return {'trains': pl.DataFrame({'known_at': [1]})}",
            "no stream 'trains' in streams/; found: flights-departed, flights-landed, flights-scheduled",
        ),
        (
            "import polars as pl\ndef recording(): return {'flights-landed': pl.DataFrame({'known_at': ['noon']})}",
            "flights-landed: known_at must be Int64 microseconds, is String",
        ),
    ],
)
def test_a_recording_that_cannot_be_sent_says_why(project: Path, code: str | None, message: str) -> None:
    if code is not None:
        (project / "recording.py").write_text(code)
    with pytest.raises(CommandFailed) as refused:
        load_recording(load_project(project))
    assert message in str(refused.value)


def test_a_recording_says_how_its_summary_is_read(project: Path) -> None:
    code = """import polars as pl
SCORED_FROM = "2013-03-01T05:00:00Z"
TIME_ZONE = "America/New_York"
def recording(): return {}"""
    (project / "recording.py").write_text(code)
    found = load_recording(load_project(project))
    assert found.scored_from == from_rfc3339("2013-03-01T05:00:00Z")
    assert found.time_zone == "America/New_York"
    (project / "recording.py").write_text(code.replace("New_York", "Old_York"))
    with pytest.raises(CommandFailed, match="Old_York"):
        load_recording(load_project(project))


def test_a_recording_may_have_modules_of_its_own_and_they_are_nobody_elses(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(project, other, ignore=shutil.ignore_patterns("other"))
    for folder, zone in ((project, "Europe/Paris"), (other, "Europe/Rome")):
        (folder / "made_up.py").write_text(f"ZONE = {zone!r}")
        (folder / "recording.py").write_text("from made_up import ZONE as TIME_ZONE\ndef recording(): return {}")
        assert load_recording(load_project(folder)).time_zone == zone


def test_the_flights_are_all_there_and_fit_their_streams() -> None:
    project = load_project(FLIGHTS)
    found = load_recording(project).events
    assert {name: len(events) for name, events in found.items()} == {
        "flights-scheduled": 336_776,
        "flights-departed": 328_521,
        "flights-landed": 327_346,
    }
    for name, events in found.items():
        stream = project.streams[name]
        for row in events.drop("known_at").gather_every(997).iter_rows(named=True):
            stream.validator().validate(row)
        assert stream.id is not None
        assert events[stream.id].is_unique().all()
