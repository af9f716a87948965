"""What a real MLflow knows of runs: who is champion and challenger, and whose attempt counts."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from millstream.contracts.events import Cause, ModelRef
from millstream.contracts.package import Lineage, Span
from millstream_trainer.adapters.mlflow_tracker import MlflowTracker
from millstream_trainer.domain.record import Record
from millstream_trainer.domain.run import RunResult, RunSpec


def passes(spec: RunSpec) -> RunResult:
    model = ModelRef(version=spec.version, run=spec.run, uri="file:///m", sha256="0", at=spec.at)
    return RunResult(passed=True, reason="better", model=model, rows=1, metrics={}, gate=[], mlflow_run=None)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_RETRIES", "BACKOFF_FACTOR", "BACKOFF_JITTER", "TIMEOUT"):
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", "1")  # restored afterwards: the tracker sets them


def spec_of(loop: str, version: str, attempt: int = 1) -> RunSpec:
    return RunSpec(
        loop=loop,
        run=f"r{version}",
        attempt=attempt,
        version=version,
        at=datetime(2013, 3, 2, tzinfo=UTC),
        cause=Cause.SCHEDULE,
        request="labels-60",
        positions={},
        champion=None,
    )


def record_of(spec: RunSpec, *, answers_at_once: bool = True) -> Record:
    return Record(
        result=passes(spec), answers_at_once=answers_at_once, files={}, package="file:///m", lineage=lineage_of(spec)
    )


def lineage_of(spec: RunSpec) -> Lineage:
    return Lineage(
        cause=spec.cause,
        request=spec.request,
        at=spec.at,
        positions={"ships-expected": {0: 41}},
        train_rows=900,
        holdout_rows=100,
        content_sha256="abc",
        code_version="",
        libraries={},
        lake="s3://tides/lake",
        train=Span(first=datetime(2013, 1, 1, tzinfo=UTC), last=datetime(2013, 2, 16, tzinfo=UTC)),
        project_sha256="5eed",
        commit="c0ffee",
    )


@pytest.mark.usefixtures("hasty")
def test_the_rows_can_be_found_by_the_record_alone(mlflow_server: Any) -> None:
    from mlflow.tracking import MlflowClient

    spec = spec_of("low-tides", "1")
    tracker = MlflowTracker(mlflow_server.url, patience=10)
    run_id = tracker.begin(spec, {})
    tracker.finish(record_of(spec))
    run = MlflowClient(tracking_uri=mlflow_server.url).get_run(run_id)
    [rows] = [found.dataset for found in run.inputs.dataset_inputs]
    assert (rows.name, rows.digest) == ("training rows", "abc")
    assert json.loads(rows.source) == {
        "lake": "s3://tides/lake",
        "loop": "low-tides",
        "known_by": "2013-03-02T00:00:00Z",
        "positions": {"ships-expected": {"0": 41}},
        "train": {"first": "2013-01-01T00:00:00Z", "last": "2013-02-16T00:00:00Z"},
        "holdout": None,
        "content_sha256": "abc",
    }
    assert json.loads(rows.profile) == {"num_rows": 900, "holdout_rows": 100}
    assert run.data.tags["millstream.project_sha256"] == "5eed"
    assert run.data.tags["mlflow.source.git.commit"] == "c0ffee"


@pytest.mark.usefixtures("hasty")
def test_a_record_written_late_leaves_the_later_champion(mlflow_server: Any) -> None:
    from mlflow.tracking import MlflowClient

    specs = [spec_of("ebbs", version) for version in ("9", "10")]
    early, late = (MlflowTracker(mlflow_server.url, patience=10) for _ in specs)
    for tracker, spec in zip((early, late), specs, strict=True):
        tracker.begin(spec, {})
    late.finish(record_of(specs[1]))
    early.finish(record_of(specs[0]))
    client = MlflowClient(tracking_uri=mlflow_server.url, registry_uri=mlflow_server.url)
    assert client.get_model_version_by_alias("ebbs", "champion").tags["millstream.version"] == "10"


@pytest.mark.usefixtures("hasty")
def test_an_attempt_that_was_given_up_registers_nothing(mlflow_server: Any) -> None:
    from mlflow.tracking import MlflowClient

    dead, alive = spec_of("spring-tides", "3", attempt=1), spec_of("spring-tides", "3", attempt=2)
    trackers = [MlflowTracker(mlflow_server.url, patience=10) for _ in (dead, alive)]
    runs = [tracker.begin(spec, {}) for tracker, spec in zip(trackers, (dead, alive), strict=True)]
    trackers[0].finish(record_of(dead))
    client = MlflowClient(tracking_uri=mlflow_server.url, registry_uri=mlflow_server.url)
    assert client.search_model_versions("name='spring-tides'") == []
    trackers[1].finish(record_of(alive))
    (registered,) = client.search_model_versions("name='spring-tides'")
    assert registered.run_id == runs[1]
    gone = client.get_run(runs[0])
    assert (gone.info.status, gone.data.tags["millstream.outcome"]) == ("KILLED", "given up")


@pytest.mark.usefixtures("hasty")
def test_a_model_on_trial_is_the_challenger_and_no_champion(mlflow_server: Any) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    spec = spec_of("neap-tides", "1")
    tracker = MlflowTracker(mlflow_server.url, patience=10)
    tracker.begin(spec, {})
    tracker.finish(record_of(spec, answers_at_once=False))
    client = MlflowClient(tracking_uri=mlflow_server.url, registry_uri=mlflow_server.url)
    found = client.get_model_version_by_alias("neap-tides", "challenger")
    assert (found.tags["millstream.version"], found.tags["millstream.outcome"]) == ("1", "on_trial")
    with pytest.raises(MlflowException):
        client.get_model_version_by_alias("neap-tides", "champion")


@pytest.mark.usefixtures("hasty")
def test_the_next_run_tells_the_registry_who_answers_by_now(mlflow_server: Any) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=mlflow_server.url, registry_uri=mlflow_server.url)

    def holder(alias: str) -> str:
        return str(client.get_model_version_by_alias("king-tides", alias).tags["millstream.version"])

    def written(version: str, champion: str | None, *, answers_at_once: bool = False) -> None:
        spec = spec_of("king-tides", version)
        if champion is not None:
            spec = msgspec.structs.replace(spec, champion=passes(spec_of("king-tides", champion)).model)
        tracker = MlflowTracker(mlflow_server.url, patience=10)
        tracker.begin(spec, {})
        tracker.finish(record_of(spec, answers_at_once=answers_at_once))

    written("1", None, answers_at_once=True)
    written("2", "1")
    assert (holder("champion"), holder("challenger")) == ("1", "2")
    written("4", "2")  # the trial of 2 ended well
    assert (holder("champion"), holder("challenger")) == ("2", "4")
    written("3", "1")  # a record that comes late
    assert (holder("champion"), holder("challenger")) == ("2", "4")
    written("5", "1")  # somebody took 2 back
    assert holder("champion") == "1"
