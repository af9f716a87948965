"""`millstream score` finds what serving's job has to know, and becomes that job."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from millstream.runtime.kafka_security import KafkaSecurity
from millstream_cli.main import app
from millstream_cli.mill import MillState

ASKED = ["score", "flight-delay", "--input", "in.parquet", "--output", "out.parquet"]


class Became(BaseException):
    """Instead of another process."""


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    found: list[tuple[list[str], dict[str, str]]] = []

    def execve(path: str, arguments: list[str], environment: dict[str, str]) -> None:
        assert path == sys.executable
        told = {name: said for name, said in environment.items() if os.environ.get(name) != said}
        found.append((arguments[1:], told))

    monkeypatch.setattr(os, "execve", execve)
    return found


def test_the_running_mill_is_scored_with(
    became: list[tuple[list[str], dict[str, str]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def load(root: Path, project: Path | None = None) -> Any:
        return MillState(
            pid=1, project="p", kafka="k:1", valkey="", mlflow=None, services={}, lake="l", packages="m", registry="",
            logs="",
        )  # fmt: skip

    monkeypatch.setattr(MillState, "load", load)
    done = CliRunner().invoke(app, [*ASKED, "--data", str(tmp_path)])
    assert done.exit_code == 0, done.output
    ((arguments, told),) = became
    assert arguments == ["-m", "millstream_serving", *ASKED, "--features", "lookup"]
    assert told == {
        "MILLSTREAM_PROJECT": "p",
        "MILLSTREAM_KAFKA": "k:1",
        "MILLSTREAM_LAKE": "l",
        "MILLSTREAM_PACKAGES": "m",
    } | {f"MILLSTREAM_{name.upper()}": "" for name in KafkaSecurity.model_fields}, (
        "a local Kafka asks nobody who they are"
    )


def test_no_mill_is_needed_where_everything_is_named(
    became: list[tuple[list[str], dict[str, str]]], tmp_path: Path
) -> None:
    named = ["--project", "p", "--packages", "m", "--features", "given", "--version", "3", "--threads", "2", "--json"]
    done = CliRunner().invoke(app, [*ASKED, *named, "--data", str(tmp_path)])
    assert done.exit_code == 0, done.output
    ((arguments, told),) = became
    assert arguments[3:] == [*ASKED[1:], "--features", "given", "--version", "3", "--threads", "2", "--json"]
    assert told["MILLSTREAM_PROJECT"] == "p"
    assert told["MILLSTREAM_PACKAGES"] == "m"
    assert "MILLSTREAM_LAKE" not in told


def test_without_a_mill_it_says_what_to_name(became: list[Any], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [*ASKED, "--project", "p", "--data", str(tmp_path)])
    assert done.exit_code == 1
    assert "or name --packages, --lake, --kafka (or a --version, and nobody asks for the champion)" in done.stderr
    assert not became
