"""Parcels whose comments turn to something new, in a replay of seconds: every window is compared, at the same place."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from millstream.contracts.events import (
    Cause,
    Decision,
    Finding,
    RetrainDecided,
    WindowJudged,
    WindowKind,
    WindowSkipped,
)
from millstream.contracts.times import HOUR, from_datetime, from_rfc3339
from millstream.project import Project, load_project
from millstream_cli.recording import load_recording
from millstream_cli.ticks import Ticks
from millstream_cli.turns import apart

from .small_mill import LATE_GIVEN_UP, running_mill

PROJECT = Path(__file__).parent / "parcels"
TURNED = from_rfc3339("2024-05-06T12:00:00Z")
UNTIL = from_rfc3339("2024-05-07T03:00:00Z")

COMMENTS = """

MOVED = END  # what the model reads stays as it is
TURNED = datetime(2024, 5, 6, 12, tzinfo=UTC)
_without = recording


def recording() -> dict[str, pl.DataFrame]:
    found = _without()
    sent, rng = found["parcels-sent"], np.random.default_rng(7)
    usual = rng.choice(["ring twice", "leave it at the door", "the neighbour takes it", "not before noon"], len(sent))
    new = (sent["known_at"] >= int(TURNED.timestamp() * 1e6)).to_numpy() & (rng.random(len(sent)) < 0.5)
    comments = np.where(new, "a drone may land in the garden", usual)
    return found | {"parcels-sent": sent.with_columns(comment=pl.Series(comments.tolist()))}
"""

pytestmark = [pytest.mark.e2e, pytest.mark.prove, pytest.mark.timeout(900)]


def project_with_comments(folder: Path) -> Project:
    shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "recording.py").open("a") as recording:
        recording.write(COMMENTS)
    yaml, stream_file = YAML(), folder / "streams" / "parcels-sent.yaml"
    stream = yaml.load(stream_file)
    stream["schema"]["properties"]["comment"] = {"type": "string"}
    yaml.dump(stream, stream_file)
    loop_file = folder / "loops" / "parcel-delay.yaml"
    loop = yaml.load(loop_file)
    loop["drift"] = {"window": "3h", "text": ["comment"]}
    loop["retrain"] = {"cooldown": "12h", "on": ["drift"]}
    yaml.dump(loop, loop_file)
    return load_project(folder)


async def replayed(folder: Path) -> list[Any]:
    """What a mill with nothing in it says of them, in the order of each topic."""
    project = project_with_comments(folder / "project")
    events = load_recording(project).events
    ticks = Ticks(events, questions={"parcels-sent"}, tick=HOUR, until=UNTIL, apart=apart(project))
    async with running_mill(project, folder / "mill", LATE_GIVEN_UP) as running:
        found = await running.replay(ticks)
    return [one.event for one in found.story.told]


def verdicts(told: list[Any]) -> list[WindowJudged]:
    return [event for event in told if isinstance(event, WindowJudged)]


def decisions(told: list[Any]) -> list[tuple[Any, ...]]:
    decided = [event for event in told if isinstance(event, RetrainDecided)]
    return [(one.request, one.cause, one.decision, one.at, one.run) for one in decided]


async def test_two_replays_have_the_same_verdicts_on_texts_and_the_same_decisions(tmp_path: Path) -> None:
    told = await replayed(tmp_path / "once")
    assert not [event for event in told if isinstance(event, WindowSkipped)]
    judged = verdicts(told)
    content = [event for event in judged if event.kind is WindowKind.CONTENT]
    inputs = [event for event in judged if event.kind is WindowKind.INPUTS]
    assert [event.index for event in content if event.version == "1"] == [
        event.index for event in inputs if event.version == "1"
    ], "each window of the first model, and in order"
    assert {event.finding for event in inputs} == {Finding.HEALTHY}
    before = [event for event in content if from_datetime(event.end) <= TURNED]
    assert len(before) >= 4
    assert {event.finding for event in before} == {Finding.HEALTHY}
    detected = next(event for event in content if event.finding is Finding.DETECTED)
    assert "'drone' in" in detected.reason
    assert from_datetime(detected.at) == TURNED + 6 * HOUR, "two windows of three hours"
    [asked] = [one for one in decisions(told) if one[0] == detected.id]
    assert asked[1:3] == (Cause.DRIFT, Decision.ACCEPTED)

    again = await replayed(tmp_path / "again")
    assert verdicts(again) == judged, "to the last digit, though the view counts the very stream that asks"
    assert decisions(again) == decisions(told)
