"""What a run leaves behind: the manifest and the reference beside the graph, and its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

import msgspec
import numpy as np

from millstream.contracts.package import REFERENCE_FILE, ErrorGroup, Lineage, Manifest, Recipe, Span
from millstream.contracts.tasks import Task, metric_of
from millstream.contracts.times import to_datetime
from millstream.project import Loop
from millstream_trainer.adapters import onnx_graph
from millstream_trainer.adapters.error_groups import error_groups
from millstream_trainer.adapters.learning import Learned
from millstream_trainer.adapters.project_code import Code
from millstream_trainer.domain.content import content_reference
from millstream_trainer.domain.dataset import Dataset
from millstream_trainer.domain.gate import Evidence, largest_difference
from millstream_trainer.domain.metrics import summary
from millstream_trainer.domain.package import files_of
from millstream_trainer.domain.reference import reference_of
from millstream_trainer.domain.run import RunSpec
from millstream_trainer.domain.table import Table

LIBRARIES = (
    "feast",
    "lightgbm",
    "numpy",
    "onnx",
    "onnxmltools",
    "onnxruntime",
    "onnxscript",
    "polars",
    "safetensors",
    "scikit-learn",
    "skl2onnx",
    "torch",
    "xgboost",
    "xgboost-cpu",
)


def metrics_of(
    evidence: Evidence, train: Table, holdout: Table, left_out: Mapping[str, int], chosen: Mapping[str, float]
) -> dict[str, float]:
    """Numbers of the run, without its seconds; the same spec gives the same."""
    found = {
        **summary(evidence.labels, evidence.challenger),
        "train_rows": float(len(train)),
        "holdout_rows": float(len(holdout)),
        "onnx_bytes": float(evidence.package_bytes),
        "onnx_max_difference": largest_difference(evidence.labels, evidence.challenger, evidence.native),
        **chosen,
        **{f"left_out_{reason}": float(count) for reason, count in left_out.items()},
    }
    task = evidence.challenger.task
    if train.labels.dtype != object:
        found["train_base_rate" if task is Task.BINARY else "train_mean"] = float(train.labels.mean())
    if evidence.champion is not None:
        found[f"champion_{metric_of(task)}"] = float(evidence.champion.losses(evidence.labels).mean())
    # A holdout of one class has no AUC; JSON and MLflow have no NaN.
    return {name: value for name, value in found.items() if np.isfinite(value)}


def package_files(
    spec: RunSpec,
    loop: Loop,
    data: Dataset,
    *,
    train: Table,
    holdout: Table,
    learned: Learned,
    graph: bytes,
    file: str,
    evidence: Evidence,
    metrics: dict[str, float],
    notes: list[str],
    native: Mapping[str, bytes],
    recipe: Recipe | None,
    code: Code,
) -> tuple[Manifest, dict[str, bytes]]:
    """All files of the package. `train` is what `learned` was fitted on; `native`: what a warm start reads."""
    reference = reference_of(
        train,
        importance=learned.fitted.importance(),
        labels=holdout.labels,
        answers=evidence.challenger,
        slices=evidence.slices,
        content=[
            content_reference(name, found, train, embedding=name in loop.drift.embedding)
            for name, found in data.content.items()
        ],
        error_groups=_error_groups(holdout, train, evidence, loop.train.seed),
        seed=loop.train.seed,
    )
    manifest = Manifest(
        format=1,
        loop=spec.loop,
        version=spec.version,
        run=spec.run,
        task=str(loop.model.task),
        inputs=[column.declared() for column in train.columns],
        output=onnx_graph.OUTPUTS[loop.model.task],
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
            libraries=_libraries(),
            recipe=recipe,
            lake=data.lake,
            train=_span(train),
            holdout=_span(holdout),
            project_sha256=code.sha256,
            commit=code.commit,
        ),
        files={},
        classes=list(learned.classes),
        origins={name: data.origins[name] for name in (c.name for c in train.columns) if name in data.origins},
        notes=notes,
    )
    files = files_of(manifest, {file: graph, REFERENCE_FILE: msgspec.json.encode(reference), **native})
    return manifest, files


def _error_groups(holdout: Table, train: Table, evidence: Evidence, seed: int) -> list[ErrorGroup]:
    """Of numbers alone: of classes drift estimates by the answers' own chances."""
    answers = evidence.challenger
    if answers.task is not Task.REGRESSION:
        return []
    names = [column.name for column in train.columns]
    return error_groups(holdout, names, answers.values, answers.losses(evidence.labels), seed)


def _span(table: Table) -> Span:
    return Span(first=to_datetime(int(table.known_at.min())), last=to_datetime(int(table.known_at.max())))


def _libraries() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # XGBoost goes by another name on macOS
    return found
