"""Writes runs down in MLflow: parameters, metrics, the gate, the package, and who is champion.

A call costs 20 to 50 ms, so there are few: everything of a kind goes in one batch.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from millstream_trainer.domain.record import Record
from millstream_trainer.domain.run import RunResult, RunSpec
from millstream_trainer.errors import TrackingFailed

T = TypeVar("T")

log = logging.getLogger(__name__)

CHAMPION, CHALLENGER = "champion", "challenger"
MOST_VERSIONS = 200
"""Newest versions among which the champion is looked for; with four runs a month that is four years."""
PACKAGE, CHARTS = "package", "charts"
"""Folders of a run's artifacts."""


class NoTracker:
    """See `ports.Tracker`: MILLSTREAM_MLFLOW is empty, nothing is tracked."""

    def begin(self, spec: RunSpec, params: Mapping[str, str]) -> str | None:
        return None

    def finish(self, record: Record) -> None:
        """Nothing to write down."""

    def fail(self, reason: str) -> None:
        """Nothing to write down."""


def _tags(record: Record) -> dict[str, str]:
    made = record.lineage
    found = {"millstream.content_sha256": made.content_sha256, "millstream.package": record.package}
    found["millstream.project_sha256"] = made.project_sha256
    if made.commit:
        found["mlflow.source.git.commit"] = made.commit  # MLflow's own name: its page shows it
    return found


class MlflowTracker:
    """See `ports.Tracker`. One experiment and one registered model per loop."""

    def __init__(self, uri: str, patience: float) -> None:
        # urllib3 waits 2, 4, 8… seconds between retries, the first one at once: n retries are 2**n - 2 seconds.
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = str(int(math.log2(patience + 2)))
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # it would stand between lines of JSON
        os.environ["MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"] = "1"
        os.environ["MLFLOW_HTTP_REQUEST_BACKOFF_JITTER"] = "0"
        # Its server answers within half a second; one that hangs is asked again while there is patience left.
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "10"
        self._uri = uri
        self._client: Any = None
        self._run: Any = None
        self._spec: RunSpec | None = None

    def begin(self, spec: RunSpec, params: Mapping[str, str]) -> str | None:
        return self._asked(lambda: self._begin(spec, params))

    def _begin(self, spec: RunSpec, params: Mapping[str, str]) -> str:
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        self._client = self._client or MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
        experiment = self._client.get_experiment_by_name(spec.loop)
        found = experiment.experiment_id if experiment is not None else self._client.create_experiment(spec.loop)
        tags = {
            "millstream.loop": spec.loop,
            "millstream.run": spec.run,
            "millstream.attempt": str(spec.attempt),
            "millstream.version": spec.version,
            "millstream.cause": spec.cause.value,
            "millstream.request": spec.request,
            "millstream.at": spec.at.isoformat(),
        }
        if self._run is None:
            self._run, self._spec = self._client.create_run(found, run_name=spec.run, tags=tags), spec
        run_id = str(self._run.info.run_id)
        self._client.log_batch(run_id, params=[Param(k, v[:500]) for k, v in params.items()])
        return run_id

    def finish(self, record: Record) -> None:
        self._asked(lambda: self._finish(record))

    def _finish(self, record: Record) -> None:
        from mlflow.entities import Metric, RunTag

        assert self._spec is not None, "begin comes first"
        client, run, spec, result = self._client, self._run.info, self._spec, record.result
        now = int(time.time() * 1000)
        outcome = "rejected" if not result.passed else "promoted" if record.answers_at_once else "on_trial"
        if self._given_up(spec, run):
            outcome = "given up"
        every = {**_tags(record), "millstream.outcome": outcome, "millstream.reason": result.reason}
        client.log_batch(
            run.run_id,
            metrics=[Metric(name, value, now, 0) for name, value in result.metrics.items()],
            tags=[RunTag(name, value[:5000]) for name, value in every.items()],
        )
        self._log_dataset(run, spec, record)
        with tempfile.TemporaryDirectory() as folder:
            for name, raw in record.files.items():
                (Path(folder) / name).write_bytes(raw)
            (Path(folder) / "gate.json").write_bytes(msgspec.json.format(msgspec.json.encode(result.gate)))
            client.log_artifacts(run.run_id, folder, PACKAGE)
        if outcome == "given up":
            client.set_terminated(run.run_id, "KILLED")
            return
        self._follow(spec)
        version = self._register(spec, run, outcome, result)
        alias = CHAMPION if record.answers_at_once else CHALLENGER
        if result.passed and not self._overtaken(spec, alias):
            client.set_registered_model_alias(spec.loop, alias, version)
        self._log_charts(run, record)
        client.set_terminated(run.run_id, "FINISHED")

    def _follow(self, spec: RunSpec) -> None:
        """Set `champion` on who answered when the run began: trials end, and people take back, while no run is there to tell.

        Left alone where a later run was written down already: it knew better.
        """
        if spec.champion is None:
            return
        found = self._client.search_model_versions(f"name='{spec.loop}'", max_results=MOST_VERSIONS)
        by_version = {str(one.tags.get("millstream.version")): one.version for one in found}
        known = [int(version) for version in by_version if version.isdecimal()]
        if spec.champion.version in by_version and int(spec.version) > max(known):
            self._client.set_registered_model_alias(spec.loop, CHAMPION, by_version[spec.champion.version])

    def _given_up(self, spec: RunSpec, run: Any) -> bool:
        """Whether a later attempt at the same run was begun: this one's trainer was taken for dead."""
        same = f"tags.`millstream.run` = '{spec.run}'"
        found = self._client.search_runs([run.experiment_id], filter_string=same, max_results=20)
        return any(int(other.data.tags.get("millstream.attempt", 0)) > spec.attempt for other in found)

    def _log_dataset(self, run: Any, spec: RunSpec, record: Record) -> None:
        from mlflow.entities import Dataset, DatasetInput

        made = record.lineage
        source = {
            "lake": made.lake,
            "loop": spec.loop,
            "known_by": made.at,
            "positions": made.positions,
            "train": made.train,
            "holdout": made.holdout,
            "content_sha256": made.content_sha256,
        }
        rows = Dataset(
            name="training rows",
            digest=made.content_sha256[:36],
            source_type="millstream",
            source=msgspec.json.encode(source).decode(),
            profile=msgspec.json.encode({"num_rows": made.train_rows, "holdout_rows": made.holdout_rows}).decode(),
        )
        self._client.log_inputs(run.run_id, datasets=[DatasetInput(rows)])

    def _log_charts(self, run: Any, record: Record) -> None:
        try:
            charts = record.draw()
        except Exception as error:  # a chart that cannot be drawn costs nobody the record
            log.error("the run's charts cannot be drawn", exc_info=error)
            return
        with tempfile.TemporaryDirectory() as folder:
            for name, raw in charts.items():
                (Path(folder) / name).write_bytes(raw)
            self._client.log_artifacts(run.run_id, folder, CHARTS)

    def _overtaken(self, spec: RunSpec, alias: str) -> bool:
        """Whether the model there is of a later run, which was written down first."""
        from mlflow.exceptions import MlflowException

        try:
            holder = self._client.get_model_version_by_alias(spec.loop, alias)
        except MlflowException as error:
            if error.error_code not in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"):
                raise
            return False  # nobody has it yet
        # A person may have set the alias on a version of her own.
        return int(holder.tags.get("millstream.version", 0)) > int(spec.version)

    def _register(self, spec: RunSpec, run: Any, outcome: str, result: RunResult) -> str:
        from mlflow.exceptions import MlflowException

        source = f"{run.artifact_uri}/{PACKAGE}"
        tags = {
            "millstream.run": spec.run,
            "millstream.version": spec.version,
            "millstream.outcome": outcome,
            "millstream.sha256": result.model.sha256,
        }
        try:
            found = self._client.create_model_version(spec.loop, source, run_id=run.run_id, tags=tags)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self._client.create_registered_model(spec.loop)
            found = self._client.create_model_version(spec.loop, source, run_id=run.run_id, tags=tags)
        return str(found.version)

    def fail(self, reason: str) -> None:
        self._asked(lambda: self._failed(reason))

    def _failed(self, reason: str) -> None:
        self._client.set_tag(self._run.info.run_id, "millstream.reason", reason[:5000])
        self._client.set_terminated(self._run.info.run_id, "FAILED")

    def _asked(self, work: Callable[[], T]) -> T:
        from mlflow.exceptions import MlflowException

        try:
            return work()
        except (MlflowException, OSError) as error:
            raise TrackingFailed(f"MLflow at {self._uri} does not take the run: {str(error)[:500]}") from error
