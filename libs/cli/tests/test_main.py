"""What the commands say when they cannot begin: one line, a status, and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from millstream.testing.ports import free_port
from millstream_cli.hints import options
from millstream_cli.journal import write_file
from millstream_cli.mill import SERVICES, MillState
from millstream_cli.up import show

from .made_events import Journal, promoted

FLIGHTS = Path(__file__).parents[3] / "examples" / "flights"


def millstream(*args: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "millstream_cli.main", *(str(arg) for arg in args)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment}
    )


def test_up_names_the_port_that_is_taken_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        others = {f"MILLSTREAM_PORT_{name.upper()}": str(free_port()) for name in SERVICES if name != "serving"}
        done = millstream("up", "-p", FLIGHTS, "--data", tmp_path, MILLSTREAM_PORT_SERVING=str(port), **others)
    assert done.returncode == 1
    assert f"{port}" in done.stderr
    assert "MILLSTREAM_PORT_SERVING" in done.stderr
    assert "Kafka is ready" not in done.stdout
    assert not (tmp_path / "up" / "servers" / "kafka").exists()


def test_down_where_nothing_runs_says_so_and_is_no_failure(tmp_path: Path) -> None:
    done = millstream("down", "--data", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"nothing runs in {tmp_path / 'up'}\n", "")


@pytest.mark.parametrize("command", [("retrain", "tides"), ("freeze", "tides"), ("approve", "tides", "9a91")])
def test_a_reason_without_a_word_is_asked_for(tmp_path: Path, command: tuple[str, ...]) -> None:
    done = millstream(*command, "--reason", " ", "--data", tmp_path)
    assert done.returncode == 2
    assert 'write a reason in words, like --reason "the new runway"' in " ".join(done.stderr.replace("│", "").split())


def test_a_data_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a folder")
    done = millstream("demo", "-p", FLIGHTS, "--data", tmp_path / "data", "--out", tmp_path)
    assert done.returncode == 1
    assert str(tmp_path / "data") in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_none_or_somebody_elses_is_refused(tmp_path: Path) -> None:
    for said in ("abc", "99999", "0", "8103"):
        done = millstream(
            "up", "-p", FLIGHTS, "--data", tmp_path, MILLSTREAM_PORT_FEATURES=said, MILLSTREAM_PORT_SERVING="8103"
        )
        assert done.returncode == 1, said
        assert "MILLSTREAM_PORT_" in done.stderr, said
        assert "Traceback" not in done.stderr, said


def test_replay_without_a_mill_says_what_to_type(tmp_path: Path) -> None:
    done = millstream("replay", "-p", FLIGHTS, "--data", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "start one with: millstream up" in done.stderr


def test_a_rebuild_without_a_mill_or_with_half_of_one_says_what_to_type(tmp_path: Path) -> None:
    done = millstream("features", "rebuild", "--view", "spend", "--data", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "start one with: millstream up" in done.stderr
    done = millstream("features", "rebuild", "--kafka", "localhost:9092", "--data", tmp_path)
    assert done.returncode == 1
    assert "--project, --kafka, --lake, --valkey" in done.stderr


def test_up_over_the_data_of_a_project_that_is_gone_says_so(tmp_path: Path) -> None:
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "project.json").write_text(json.dumps({"project": str(tmp_path / "gone")}))
    done = millstream("up", "--data", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"holds the data of the project {tmp_path / 'gone'}, which is not there any more" in done.stderr


def test_a_day_that_is_none_is_refused(tmp_path: Path) -> None:
    done = millstream("demo", "-p", FLIGHTS, "--data", tmp_path, "--until", "april")
    assert done.returncode == 2
    assert "write it like 2013-04-01" in done.stderr


def test_a_folder_that_is_no_project_is_refused_by_every_command(tmp_path: Path) -> None:
    for command in ("demo", "up", "replay"):
        done = millstream(command, "-p", tmp_path, "--data", tmp_path)
        assert done.returncode == 2, command
        assert "streams" in done.stderr, command


def test_what_we_say_to_type_means_the_same_project_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FLIGHTS.parents[1])
    assert options(FLIGHTS, Path(".millstream")) == options(None, Path(".millstream")) == ""
    assert options("my shop", Path("elsewhere")) == " --project 'my shop' --data elsewhere"
    shop = tmp_path / "shop"
    shutil.copytree(FLIGHTS, shop)
    done = millstream("replay", "-p", shop, "--data", tmp_path)
    assert f"start one with: millstream up --project {shop} --data {tmp_path}\n" in done.stderr


def shown(project: Path, data: Path) -> str:
    screen = StringIO()
    state = MillState(
        pid=1, project=str(project), kafka="k:1", valkey="redis://v:1/0", mlflow=None,
        services={"ingest": "http://127.0.0.1:8101"}, lake="l", packages="p", registry="r", logs="logs",
    )  # fmt: skip
    show(state, data, Console(file=screen, width=200))
    return screen.getvalue()


def test_up_says_what_to_do_with_this_project(tmp_path: Path) -> None:
    flights = shown(FLIGHTS, tmp_path)
    assert f"millstream replay --data {tmp_path} --until DAY" in flights
    assert f"millstream down --data {tmp_path} " in flights
    shop = shown(tmp_path, tmp_path)  # it has no recording
    assert "replay" not in shop
    assert "flights" not in shop
    assert "http://127.0.0.1:8101/docs" in shop


def journal_of(folder: Path) -> Path:
    journal = Journal()
    promoted(journal)
    write_file(folder / "journal.jsonl", journal.told)
    return folder / "journal.jsonl"


def test_why_tells_an_incident_from_a_file_as_text_json_and_a_page(tmp_path: Path) -> None:
    file, page = journal_of(tmp_path), tmp_path / "pages" / "why.html"
    listed = millstream("why", "flight-delay", "--list", "--from", file, COLUMNS="150")
    assert listed.returncode == 0, listed.stderr
    assert "drift in the inputs of version 1" in listed.stdout
    text = millstream("why", "flight-delay", "--from", file, COLUMNS="150")
    assert "version 2: canary → champion: better by 0.025" in text.stdout
    both = millstream("why", "flight-delay", "2", "--from", file, "--json", "--html", page)
    assert json.loads(both.stdout)["incident"]["fate"] == "promoted"
    assert "written" in both.stderr
    assert page.read_text().startswith("<!doctype html>")
    unknown = millstream("why", "flights", "--from", file)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "there is: flight-delay" in unknown.stderr


def test_a_report_is_text_json_and_a_page(tmp_path: Path) -> None:
    file, page = journal_of(tmp_path), tmp_path / "report.html"
    text = millstream("report", "flight-delay", "--from", file, COLUMNS="150")
    assert "version 2, answers since 2013-06-16" in text.stdout
    both = millstream("report", "flight-delay", "--since", "12h", "--from", file, "--json", "--html", page)
    assert json.loads(both.stdout)["runs"] == {"retrains": 0}
    assert page.exists()


def test_what_makes_no_sense_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    for command, said in (
        (("report", "flight-delay", "--since", "a month"), "a month"),
        (("report", "flight-delay", "--since", "0s"), "write it like 30d"),
        (("why", "flight-delay", "2", "--list"), "leave out INCIDENT"),
        (("retrain", "flight-delay"), "--reason"),
        (("freeze", "flight-delay"), "--reason"),
    ):
        done = millstream(*command, "--data", tmp_path)
        assert done.returncode == 2, command
        assert said in done.stderr, command


def test_without_a_mill_each_command_of_a_loop_says_what_to_type(tmp_path: Path) -> None:
    for command in (("why", "x"), ("report", "x"), ("retrain", "x", "--reason", "r"), ("approve", "x", "run")):
        done = millstream(*command, "--data", tmp_path)
        assert (done.returncode, done.stdout) == (1, ""), command
        assert "start one with: millstream up" in done.stderr, command
    done = millstream("why", "x", "--from", tmp_path / "none.jsonl")
    assert done.returncode == 1
    assert "none.jsonl" in done.stderr
    assert "Traceback" not in done.stderr
