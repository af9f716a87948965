"""An alert about drift asks for a retrain: real services, Prometheus and Alertmanager, from a metric of drift to a new model.

Prometheus and Alertmanager are Debian's; Alertmanager is configured as compose has it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from tests.e2e.small_mill import Outcome, run_small, small_project

from millstream.project import load_project
from millstream.testing.ports import HOST, free_port
from millstream.testing.process import ManagedProcess
from millstream.testing.waiting import wait_until
from millstream_cli.mill import Mill
from millstream_cli.ticks import Tick

from .charts import ROOT
from .must import lacks

pytestmark = pytest.mark.timeout(900)

UNTIL = "2013-01-08T12:00:00Z"
LOOP = "flight-delay"
COOLED = 24 * 6
"""Ticks: by then the first model is older than the cooldown."""

RULES = """
groups:
  - name: ours
    rules:
      - alert: InputsMoved
        expr: max by (loop) (millstream_drift_effect) > 0
        labels: { severity: warning, asks: retrain }
        annotations: { summary: "what {{ $labels.loop }} is asked with has moved" }
"""


@pytest.fixture
def prometheus() -> str:
    return debian("prometheus")


@pytest.fixture
def alertmanager() -> str:
    return debian("prometheus-alertmanager")


def debian(name: str) -> str:
    """The program of Debian's package, which is called as it is."""
    if not os.environ.get("MILLSTREAM_DEPLOY"):
        pytest.skip("runs the whole loop for minutes, in `make test-deploy`")
    found = shutil.which(name)
    if found is None:
        lacks(f"no {name} here: apt-get install {name}")
    return found


def answer(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as said:
        return str(said.read().decode())


def answers(url: str) -> bool:
    try:
        answer(url)
    except OSError:
        return False
    return True


def values(metrics: str, name: str) -> list[float]:
    """Of every series of a metric, as /metrics shows them."""
    return [float(line.rpartition(" ")[2]) for line in metrics.splitlines() if line.startswith(f"{name}{{")]


@contextmanager
def watching(folder: Path, mill: Mill, prometheus: str, alertmanager: str) -> Iterator[str]:
    """Both, on the mill's drift and trainer; the address of Alertmanager."""
    folder.mkdir()
    services = mill.state().services
    one, other = f"{HOST}:{free_port()}", f"{HOST}:{free_port()}"
    config = (ROOT / "deploy" / "observability" / "alertmanager.yml").read_text()
    assert "http://trainer:8080" in config
    (folder / "alertmanager.yml").write_text(config.replace("http://trainer:8080", services["trainer"]))
    (folder / "rules.yml").write_text(RULES)
    scrape = {"job_name": "drift", "static_configs": [{"targets": [services["drift"].removeprefix("http://")]}]}
    manager = {"alertmanagers": [{"static_configs": [{"targets": [other]}]}]}
    every = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    with (folder / "prometheus.yml").open("w") as file:
        YAML().dump(
            {"global": every, "rule_files": ["rules.yml"], "alerting": manager, "scrape_configs": [scrape]}, file
        )
    started: list[ManagedProcess] = []
    try:
        for name, program, address, options in (
            ("alertmanager", alertmanager, other, ("--cluster.listen-address=", "--storage.path=alerts")),
            ("prometheus", prometheus, one, ("--storage.tsdb.path=series",)),
        ):
            process = ManagedProcess(
                name,
                [program, f"--config.file={name}.yml", f"--web.listen-address={address}", *options],
                log=folder / f"{name}.log",
                cwd=folder,
                ready=lambda url=f"http://{address}/-/ready": answers(url),
                ready_within=60,
            )
            started.append(process)
            process.start()
        yield f"http://{other}"
    finally:
        for process in reversed(started):
            process.terminate(grace=10)


@dataclass
class Watcher:
    """Between two ticks, as soon as drift has judged a window: has it watched until Alertmanager has told the trainer."""

    folder: Path
    programs: tuple[str, str]
    effect: list[float] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)

    def ticked(self, mill: Mill, count: int, tick: Tick) -> None:
        if self.told or count < COOLED:
            return
        self.effect = values(answer(f"{mill.state().services['drift']}/metrics"), "millstream_drift_effect")
        if not self.effect:
            return
        with watching(self.folder, mill, *self.programs) as manager:

            def notified() -> bool:
                metrics = answer(f"{manager}/metrics")
                assert 'alertmanager_notifications_failed_total{integration="webhook"} 0' in metrics, (
                    "the trainer refused"
                )
                return 'alertmanager_notifications_total{integration="webhook"} 0' not in metrics

            wait_until(notified, within=90, what="Alertmanager to tell the trainer", every=1)
            self.told = json.loads(answer(f"{manager}/api/v2/alerts"))


def test_an_alert_on_drift_becomes_a_decision_a_run_and_a_model(
    prometheus: str, alertmanager: str, tmp_path: Path
) -> None:
    project = small_project(tmp_path / "project", partitions=1)
    file = project.path / "loops" / f"{LOOP}.yaml"
    yaml = YAML()
    said = yaml.load(file)
    said["retrain"]["on"] = ["alert"]  # so that nothing else can be why
    del said["train"]["schedule"]
    yaml.dump(said, file)
    watcher = Watcher(tmp_path / "watch", (prometheus, alertmanager))

    outcome: Outcome = asyncio.run(
        run_small(load_project(project.path), tmp_path / "mill", until=UNTIL, on_tick=watcher.ticked)
    )

    (alert,) = watcher.told
    assert max(watcher.effect) > 0
    assert (alert["labels"]["alertname"], alert["labels"]["loop"]) == ("InputsMoved", LOOP)
    rows = outcome.replayed.story.timeline()

    def after(row: dict[str, Any], kind: str) -> dict[str, Any]:
        """The one event of a kind that a row caused."""
        (found,) = (one for one in rows if one["type"] == f"millstream.{kind}.v1" and one["caused_by"] == row["id"])
        return found

    (asked,) = (row for row in rows if row["type"] == "millstream.retrain.requested.v1")
    assert (asked["cause"], asked["by"]) == ("alert", "Alertmanager")
    assert asked["reason"] == f"InputsMoved: what {LOOP} is asked with has moved"
    decided = after(asked, "retrain.decided")
    assert (decided["decision"], decided["cause"]) == ("accepted", "alert")
    started = after(decided, "training.started")
    finished = after(started, "training.finished")
    assert {decided["run"], started["run"]} == {finished["run"]}
    moved = after(started, "rollout.moved")
    model = after(moved, "model.state")
    assert (moved["run"], moved["version"], moved["step"]) == (finished["run"], "2", "shadow")
    assert model["at"] == moved["at"]
    first = next(row for row in rows if row["type"] == "millstream.training.started.v1")
    runs = {row["run"] for row in rows if row["type"] == "millstream.training.started.v1"}
    assert runs == {first["run"], started["run"]}, "somebody else asked as well"
