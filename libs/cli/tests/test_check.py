"""`millstream check`: what a person and what a program reads, and when it fails."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from millstream_cli.check import check

EXAMPLE = Path(__file__).parents[3] / "examples" / "flights"


@pytest.fixture
def flights(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLE, tmp_path / "flights", ignore=shutil.ignore_patterns("data", "__pycache__")))


def test_the_flights_are_in_order(flights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(flights) == 0
    assert capsys.readouterr().out == f"✓ {flights}: 3 streams, 1 loop, nothing wrong\n"


def test_a_program_reads_json(flights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(flights, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {
        "ok": True,
        "problems": [],
        "streams": ["flights-departed", "flights-landed", "flights-scheduled"],
        "loops": ["flight-delay"],
    }


def test_a_feature_service_that_is_not_there_is_told(flights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loop = flights / "loops" / "flight-delay.yaml"
    loop.write_text(loop.read_text().replace("delay_v1", "delay_v0 # [bold]"))
    assert check(flights) == 1
    problem, count = capsys.readouterr().out.splitlines()
    line = loop.read_text().splitlines().index("  features: delay_v0 # [bold]") + 1
    assert problem == (
        f"loops/flight-delay.yaml:{line}: predict.features: no FeatureService 'delay_v0' in features/; found: delay_v1"
    )
    assert count == f"✗ {flights}: 1 problem"


def test_a_feature_over_a_field_that_no_event_has_is_told(flights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    definitions = flights / "features" / "definitions.py"
    definitions.write_text(definitions.read_text().replace('"arr_delay", 3, TEN_MINUTES', '"arr_dely", 3, TEN_MINUTES'))
    assert check(flights) == 1
    problem, _ = capsys.readouterr().out.splitlines()
    assert problem == (
        "features: origin_landings.mean_delay_3h: no field 'arr_dely' in stream flights-landed to aggregate; "
        "did you mean 'arr_delay'? known: arr_delay, carrier, dep_delay, dest, flight_id, landed_at, origin, tailnum"
    )


def test_definitions_that_cannot_be_imported_are_told(flights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (flights / "features" / "definitions.py").write_text("import nothing_of_that_name\n")
    assert check(flights, as_json=True) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"]
    [problem] = report["problems"]
    assert problem["file"] == "features"
    assert "definitions.py: cannot be loaded" in problem["message"]
    assert "nothing_of_that_name" in problem["message"]


def test_a_store_class_that_does_not_exist_is_told(flights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = flights / "features" / "feature_store.yaml"
    store.write_text(store.read_text().replace("MillstreamOfflineStore", "MillstreamOflineStore"))
    assert check(flights) == 1
    assert "MillstreamOflineStore" in capsys.readouterr().out


def test_a_broken_stream_is_told_once_although_the_features_read_it_too(
    flights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = flights / "streams" / "flights-landed.yaml"
    stream.write_text(stream.read_text().replace("lateness: 2h", "lateness: two hours"))
    assert check(flights) == 1
    problem, count = capsys.readouterr().out.splitlines()
    assert problem.startswith("streams/flights-landed.yaml:7: lateness: 'two hours' is no duration; write ")
    assert count == f"✗ {flights}: 1 problem"


def test_a_folder_that_is_no_project_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(tmp_path / "nowhere") == 1
    assert "no folder" in capsys.readouterr().out
    assert check(tmp_path) == 1
    assert "features/feature_store.yaml: is missing" in capsys.readouterr().out
