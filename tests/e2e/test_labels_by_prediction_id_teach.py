"""A loop whose label stream is silent: all that is ever said names a prediction, and the model learns from it all the same."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from ruamel.yaml import YAML

from millstream.contracts.envelope import derived_id
from millstream.contracts.events import TrainingFinished
from millstream.contracts.times import DAY, HOUR, from_datetime, from_rfc3339, to_rfc3339
from millstream.contracts.topics import LABELS
from millstream.project import Project, load_project
from millstream_cli.recording import load_recording
from millstream_cli.ticks import Tick, Ticks
from millstream_tiles.lake import Lake
from millstream_tiles.lake_reader import count

from .small_mill import LATE_GIVEN_UP, running_mill, small_project

LOOP = "flight-delay"
UNTIL = "2013-01-09T00:00:00Z"
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def silent_project(folder: Path) -> Project:
    """The small flights, with labels from a stream that nobody writes."""
    small_project(folder, partitions=1)
    yaml, landed = YAML(), folder / "streams" / "flights-landed.yaml"
    landed.with_name("flights-audited.yaml").write_text(
        landed.read_text().replace("stream: flights-landed", "stream: flights-audited")
    )
    file = folder / "loops" / f"{LOOP}.yaml"
    loop = yaml.load(file)
    loop["label"]["from"] = "flights-audited"
    loop["rollout"] |= {"shadow": 0, "canary": [], "watch": "0s"}
    yaml.dump(loop, file)
    return load_project(folder)


async def test_a_model_learns_from_labels_by_prediction_id(tmp_path: Path) -> None:
    project = silent_project(tmp_path / "project")
    ticks = Ticks(load_recording(project).events, questions={"flights-scheduled"}, tick=HOUR, until=from_rfc3339(UNTIL))
    asked: dict[str, int] = {}
    told: dict[str, int] = {}
    async with running_mill(project, tmp_path / "mill", LATE_GIVEN_UP) as running:
        with httpx.Client(base_url=running.state.services["ingest"], timeout=30) as ingest:

            def tell(tick: Tick) -> None:
                """Whoever watched the flights land kept the ids of the answers alone. Everything is said twice."""
                for line in tick.questions.get("flights-scheduled", ()):
                    asked.setdefault(json.loads(line)["flight_id"], tick.start)
                said = []
                for line in tick.events.get("flights-landed", ()):
                    flight = json.loads(line)
                    told.setdefault(flight["flight_id"], tick.end)
                    id = derived_id(LOOP, flight["flight_id"])
                    said.append({"prediction_id": id, "value": flight["arr_delay"] >= 15})
                if said:
                    headers = {"ce-knownat": to_rfc3339(tick.end)}
                    answer = ingest.post(f"/v1/loops/{LOOP}/labels", json=[*said, *said], headers=headers)
                    assert answer.status_code == 202, answer.text

            replayed = await running.replay(ticks, tell)
        lake = Lake(running.state.lake)
        # Nobody waited for what was told behind the last tick.
        await asyncio.to_thread(lake.wait_for, LABELS.name, "features-lake", {0: len(told) - 1}, timeout=60)

    runs = [one.event for one in replayed.story.told if isinstance(one.event, TrainingFinished)]
    assert len(runs) >= 2, running.output
    for run in runs:
        at = from_datetime(run.at)
        known = [
            flight
            for flight, landed in told.items()
            if landed <= at and asked.get(flight, at + 1) <= landed <= asked.get(flight, 0) + DAY
        ]
        assert run.metrics["train_rows"] + run.metrics["holdout_rows"] == len(known) > 1500, run.reason
        assert run.metrics["left_out_label_contradicting"] == 0
        assert run.metrics["left_out_label_null"] == 0
        assert run.metrics["auc"] > 0.6, "what was told is what happened"
    assert runs[1].version == "2", "a retraining, not the first model alone"
    assert count(lake, "flights-audited") == 0, "the label stream said nothing"
    positions = lake.positions(LABELS.name, "features-lake", [0])
    assert count(lake, LABELS.name) == positions[0] + 1 >= len(told), "each record of the topic once"
