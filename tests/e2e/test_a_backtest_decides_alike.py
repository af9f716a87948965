"""The same events in, the same decisions out: a backtest of what a mill did says what the mill did."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from millstream.contracts.events import WindowJudged
from millstream.contracts.times import HOUR, from_rfc3339
from millstream.project import load_project
from millstream_backtest.backtest import Recorded, Wanted, backtest
from millstream_backtest.figures import Figures
from millstream_backtest.policies import read_policies
from millstream_cli.journal import row_of
from millstream_cli.recording import load_recording

from .small_mill import Outcome, run_small, small_project

UNTIL = "2013-01-13T00:00:00Z"
LOOP = "flight-delay"

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def on_trial(folder: Path) -> Path:
    """The small mill's project with trials short enough for twelve days."""
    small_project(folder, partitions=1)
    yaml, file = YAML(), folder / "loops" / f"{LOOP}.yaml"
    loop = yaml.load(file)
    loop["rollout"] = {"shadow": 300, "canary": ["30%"], "step": 300, "watch": "12h", "tolerance": 0.05}
    loop["rollout"]["guards"] = {"slower": 1000, "deadline": 60000}  # time is no part of a backtest
    loop["gate"]["tolerance"] = 0.05
    yaml.dump(loop, file)
    return folder


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    folder = tmp_path_factory.mktemp("lived")
    project = load_project(on_trial(folder / "project"))
    return folder, asyncio.run(run_small(project, folder / "mill", until=UNTIL))


def tried(folder: Path, source: Recorded | str, data: Path) -> Figures:
    project = load_project(folder / "project")
    policies = read_policies(project, LOOP, [])
    wanted = Wanted(tick=HOUR, until=from_rfc3339(UNTIL))
    [figures] = backtest(project, policies, source, wanted, folder=data)
    return figures


def told(outcome: Outcome) -> list[dict[str, Any]]:
    """What the mill's journal has of what a backtest tells: its timeline, and every window."""
    story = outcome.replayed.story
    windows = [row_of(one) for one in story.told if isinstance(one.event, WindowJudged)]
    return list({row["id"]: row for row in (*story.timeline(), *windows)}.values())


def decisions(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What was decided when, of which run and version, by which numbers; without seconds and places."""
    wanted = (
        "type",
        "id",
        "at",
        "caused_by",
        "decision",
        "cause",
        "run",
        "outcome",
        "version",
        "revision",
        "step",
        "share",
    )
    numbers = ("finding", "pairs", "difference", "low", "high", "rows", "numbers")
    return [
        (
            *(str(row.get(name)) for name in (*wanted, *numbers)),
            *((check["name"], check["passed"]) for check in row.get("gate", ())),
        )
        for row in rows
    ]


def test_over_the_recording_it_decides_what_the_mill_decided(lived: tuple[Path, Outcome], tmp_path: Path) -> None:
    folder, outcome = lived
    recording = load_recording(load_project(folder / "project"))

    figures = tried(folder, Recorded(events=recording.events), tmp_path)

    assert figures.retrains == outcome.figures["retrains"] >= 2
    assert sorted(decisions(figures.timeline)) == sorted(decisions(told(outcome)))
    steps = {row["step"] for row in figures.timeline if row["type"].startswith("millstream.rollout.moved")}
    assert {"shadow", "canary"} <= steps


def test_over_the_lake_of_the_mill_it_decides_and_answers_the_same(lived: tuple[Path, Outcome], tmp_path: Path) -> None:
    folder, outcome = lived

    figures = tried(folder, str(folder / "mill" / "lake"), tmp_path)

    assert sorted(decisions(figures.timeline)) == sorted(decisions(told(outcome)))
    assert figures.answered == outcome.figures["predictions_effective"]
    assert figures.questions == outcome.figures["questions"]
