"""One training run, from history to a judged package. Runs in a process of its own.

It is written down for people beside and after that (`tracking`), and waits for none of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from millstream.contracts.events import ModelRef
from millstream.contracts.package import MODEL_FILE, REFERENCE_FILE, BadPackage, Lineage, Manifest
from millstream.contracts.times import from_datetime
from millstream.errors import RetryLater
from millstream.project import Loop, load_project
from millstream.runtime.packages import PackageStore
from millstream_trainer.adapters import lightgbm_model, onnx_graph
from millstream_trainer.adapters.tracking import Tracking
from millstream_trainer.adapters.workplace import Workplace
from millstream_trainer.domain.dataset import Dataset
from millstream_trainer.domain.gate import FEWEST_ROWS, Evidence, judge, verdict
from millstream_trainer.domain.metrics import losses, summary
from millstream_trainer.domain.package import files_of
from millstream_trainer.domain.reference import reference_of
from millstream_trainer.domain.run import RunResult, RunSpec
from millstream_trainer.domain.table import Table
from millstream_trainer.errors import RunFailed
from millstream_trainer.ports import History, Tracker

LIBRARIES = ("lightgbm", "numpy", "onnx", "onnxmltools", "onnxruntime", "feast", "polars")


class Phases:
    """How long each part took, as metrics `seconds_<part>`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - began
            self.seconds[f"seconds_{name}"] = round(self.seconds.get(f"seconds_{name}", 0.0) + spent, 4)


def run(spec: RunSpec, place: Workplace, tracking: Tracking) -> RunResult:
    """The whole run, with the real adapters. Raises RunFailed and other errors, each with a reason."""
    phases = Phases()
    with phases.phase("start"):
        from millstream_trainer.adapters.feast_history import FeastHistory
        from millstream_trainer.adapters.mlflow_tracker import MlflowTracker, NoTracker

        project = load_project(place.project)
        if spec.loop not in project.loops:
            raise RunFailed(f"no loop {spec.loop!r} in {place.project}")
        tracker: Tracker = MlflowTracker(place.mlflow, place.mlflow_patience) if place.mlflow else NoTracker()
        loop = project.loops[spec.loop]
        tracking.begin(tracker, spec, _params(loop))
        history = FeastHistory(project=project, place=place)
    return train(
        spec,
        loop,
        history=history,
        tracking=tracking,
        packages=PackageStore(place.packages),
        threads=place.threads,
        phases=phases,
    )


def train(
    spec: RunSpec,
    loop: Loop,
    *,
    history: History,
    tracking: Tracking,
    packages: PackageStore,
    threads: int,
    phases: Phases,
) -> RunResult:
    """History → fit → graph → gate → package. The same spec and history give the same model."""
    with phases.phase("dataset"):
        data = history.read(spec)
        train, holdout = data.table.split(from_datetime(spec.at) - loop.train.holdout)
        _check(train, holdout)
    params, seed = loop.model.params, loop.train.seed
    with phases.phase("fit"):
        fitted = lightgbm_model.fit(train, params=params.booster(), rounds=params.rounds, seed=seed, threads=threads)
    with phases.phase("export"):
        graph = onnx_graph.export(fitted, train)
    with phases.phase("score"):
        inputs = [column.declared() for column in train.columns]
        answers = onnx_graph.score(graph, inputs, holdout)
        champion, champion_error = _champion(spec, packages, holdout)
        evidence = Evidence(
            labels=holdout.labels,
            challenger=answers,
            native=fitted.probabilities(holdout),
            champion=champion,
            champion_error=champion_error,
            base_rate=float(train.labels.mean()),
            package_bytes=len(graph),
            tolerance=loop.gate.tolerance,
        )
        checks = judge(evidence)
        passed, reason = verdict(checks)
    metrics = _metrics(evidence, train, holdout, data.left_out)
    with phases.phase("package"):
        reference = reference_of(
            train, importance=fitted.importance(), labels=holdout.labels, probabilities=answers, seed=seed
        )
        manifest = _manifest(spec, loop, data, train, holdout, metrics)
        files = files_of(manifest, {MODEL_FILE: graph, REFERENCE_FILE: msgspec.json.encode(reference)})
        uri, sha256 = packages.save(f"{spec.loop}/{spec.version}-{spec.run}-{spec.attempt}", files)
    model = ModelRef(version=spec.version, run=spec.run, uri=uri, sha256=sha256, at=spec.at)
    with phases.phase("mlflow"):
        tracked = tracking.id()
    result = RunResult(
        passed=passed,
        reason=reason,
        model=model,
        rows=len(train),
        metrics={**metrics, **phases.seconds},
        gate=checks,
        mlflow_run=tracked,
    )
    tags = {"millstream.content_sha256": manifest.lineage.content_sha256, "millstream.package": uri}
    tracking.finished(result, files, tags)
    return result


def _check(train: Table, holdout: Table) -> None:
    """Refuse at once what no fit can help."""
    if len(holdout) < FEWEST_ROWS or len(train) < FEWEST_ROWS:
        raise RunFailed(f"{len(train)} training rows and {len(holdout)} in the holdout; each needs {FEWEST_ROWS}")
    if len(np.unique(train.labels)) < 2:
        raise RunFailed(
            f"all {len(train)} training rows have the label {int(train.labels[0])}: there is nothing to tell apart"
        )


def _champion(spec: RunSpec, packages: PackageStore, holdout: Table) -> tuple[NDArray[Any] | None, str | None]:
    """The champion's answers on the holdout, or why there are none (the gate then stays closed)."""
    if spec.champion is None:
        return None, None
    try:
        manifest = packages.manifest(spec.champion)
        graph = packages.file(spec.champion, manifest, MODEL_FILE)
        return onnx_graph.score(graph, manifest.inputs, holdout), None
    except (BadPackage, RetryLater, KeyError) as error:
        return None, f"{type(error).__name__}: {error}"


def _metrics(evidence: Evidence, train: Table, holdout: Table, left_out: Mapping[str, int]) -> dict[str, float]:
    found = {
        **summary(evidence.labels, evidence.challenger),
        "train_rows": float(len(train)),
        "holdout_rows": float(len(holdout)),
        "train_base_rate": evidence.base_rate,
        "onnx_bytes": float(evidence.package_bytes),
        "onnx_max_difference": float(np.max(np.abs(evidence.challenger - evidence.native))),
        **{f"left_out_{reason}": float(count) for reason, count in left_out.items()},
    }
    if evidence.champion is not None:
        found["champion_log_loss"] = float(losses(evidence.labels, evidence.champion).mean())
    # A holdout of one class has no AUC; JSON and MLflow have no NaN.
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _manifest(
    spec: RunSpec, loop: Loop, data: Dataset, train: Table, holdout: Table, metrics: dict[str, float]
) -> Manifest:
    return Manifest(
        format=1,
        loop=spec.loop,
        version=spec.version,
        run=spec.run,
        task=loop.model.task,
        inputs=[column.declared() for column in train.columns],
        output=onnx_graph.OUTPUT,
        feature_service=loop.predict.features,
        views=dict(data.views),
        label=loop.label.value.text,
        metrics=metrics,
        lineage=Lineage(
            cause=spec.cause,
            request=spec.request,
            at=spec.at,
            positions=spec.positions,
            train_rows=len(train),
            holdout_rows=len(holdout),
            content_sha256=train.sha256(),
            code_version=version("millstream-trainer"),
            libraries={name: version(name) for name in LIBRARIES},
        ),
        files={},
    )


def _params(loop: Loop) -> dict[str, str]:
    """What was asked for, as MLflow parameters."""
    return {
        **{name: str(value) for name, value in loop.model.params.model_dump().items()},
        "estimator": loop.model.estimator,
        "features": loop.predict.features,
        "label": loop.label.value.text,
        "seed": str(loop.train.seed),
    }
