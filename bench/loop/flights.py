"""What the flights' loop comes to: a year of questions, in ticks of 15 minutes, scored from March to December.

A backtest: the decisions are those of a replay through the services, in a fraction of its time. The loop is the example's,
with the settings of the model that backtests chose (`flights.yaml`).
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ruamel.yaml import YAML

from millstream.contracts.times import MINUTE, from_rfc3339
from millstream.project import Project, load_project
from millstream_backtest.backtest import Recorded, Wanted, backtest
from millstream_backtest.policies import Policy, read_policies
from millstream_cli.recording import load_recording

ROOT = Path(__file__).parents[2]
LOOP = "flight-delay"
UNTIL = "2014-01-01T05:00:00Z"
"""Midnight in New York. Labels that come later are left out too: the last flights of December have none."""


def tuned(project: Project) -> Policy:
    """The loop of `project` with what `flights.yaml` says otherwise. Raises BadProject for what it cannot say."""
    yaml = YAML(typ="safe")
    loop = yaml.load(project.path / "loops" / f"{LOOP}.yaml")
    for part, values in yaml.load(Path(__file__).with_suffix(".yaml")).items():
        loop[part] |= values
    with TemporaryDirectory() as folder:
        file = Path(folder) / "tuned.yaml"
        yaml.dump(loop, file)
        [_, policy] = read_policies(project, LOOP, [file])
    return policy


def run(tick: int = 15 * MINUTE, until: str = UNTIL) -> dict[str, Any]:
    """`tick` in microseconds. Of the tuned loop."""
    project = load_project(ROOT / "examples" / "flights")
    recording = load_recording(project)
    wanted = Wanted(tick=tick, until=from_rfc3339(until), scored_from=recording.scored_from, zone=recording.time_zone)
    [found] = backtest(
        project,
        [tuned(project)],
        Recorded(events=recording.events),
        wanted,
        folder=ROOT / ".millstream" / "backtest",
    )
    return {
        "log_loss": found.loss,
        "auc": found.auc,
        "scored": found.scored,
        "retrains": found.retrains,
        "promotions": found.promotions,
        "rejections": found.rejections_by_gate + found.rejections_on_trial,
        "rejections_on_trial": found.rejections_on_trial,
        "rollbacks": found.rollbacks,
        "harmful_promotions": found.harmful_promotions,
        "seconds": found.seconds,
        "cpu_seconds": found.cpu_seconds,
    }


if __name__ == "__main__":
    print(run())
