"""A model of numbers errs more, and no label says so for two days: drift estimates it, and it is trained for that alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from millstream.contracts.events import (
    Cause,
    Decision,
    Finding,
    RetrainDecided,
    TrainingFinished,
    WindowJudged,
    WindowKind,
)
from millstream.contracts.times import HOUR, from_datetime, from_rfc3339
from millstream.project import load_project
from millstream_cli.predictions import read_predictions
from millstream_cli.recording import load_recording
from millstream_cli.recounted import measure_recount
from millstream_cli.ticks import Ticks
from millstream_cli.turns import apart
from millstream_tiles.registry import describe

from .small_mill import LATE_GIVEN_UP, running_mill

PROJECT = Path(__file__).parent / "parcels"
MOVED = from_rfc3339("2024-05-07T00:00:00Z")
FIRST_WORD = MOVED + 48 * HOUR
"""When the first label of what has moved is there."""

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


async def test_an_estimate_is_why_a_model_is_trained_before_any_label_says_so(tmp_path: Path) -> None:
    project = load_project(Path(shutil.copytree(PROJECT, tmp_path / "project")))
    ticks = Ticks(
        load_recording(project).events,
        questions={"parcels-sent"},
        tick=HOUR,
        until=from_rfc3339("2024-05-08T18:00:00Z"),
        apart=apart(project),
    )
    async with running_mill(project, tmp_path / "mill", LATE_GIVEN_UP) as running:
        replayed = await running.replay(ticks)
        log = await read_predictions(running.state.kafka)
    recounted = measure_recount(log.frame("parcel-delay"), ticks, describe(project.features_path).views.values())
    assert recounted.checked > 1000
    assert recounted.largest == 0.0, f"each question counts itself, and none that was asked after it: {recounted.worst}"

    told = [one.event for one in replayed.story.told]
    judged = [event for event in told if isinstance(event, WindowJudged)]
    estimated = [event for event in judged if event.kind is WindowKind.ESTIMATED]
    before = [event for event in estimated if from_datetime(event.end) <= MOVED]
    assert before, running.output
    assert {event.finding for event in before} == {Finding.HEALTHY}
    dropped = next(event for event in estimated if event.finding is Finding.PERFORMANCE_DROP)
    assert from_datetime(dropped.at) <= MOVED + 25 * HOUR, "two windows, and the tick that closes the second"
    assert dropped.effect > 0.5, "far parcels' squared errors are sixteen times those of near ones"
    decided = {event.request: event for event in told if isinstance(event, RetrainDecided)}
    accepted = decided[dropped.id]
    assert (accepted.cause, accepted.decision) == (Cause.ESTIMATE, Decision.ACCEPTED), accepted.reason
    started = {event.cause for event in decided.values() if event.decision is Decision.ACCEPTED}
    assert started == {Cause.FIRST_MODEL, Cause.ESTIMATE}
    [run] = [event for event in told if isinstance(event, TrainingFinished) and event.run == accepted.run]
    assert MOVED < from_datetime(run.at) < FIRST_WORD
    assert run.metrics["train_rows"] > 4000
    measured = [event for event in judged if event.kind is WindowKind.PERFORMANCE]
    assert all(event.finding is Finding.HEALTHY for event in measured), "no label of a moved parcel is there yet"
