"""Manifests and references of models that nobody trained, for tests and benches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from millstream.contracts.events import Cause
from millstream.contracts.package import ColumnReference, InputColumn, Lineage, Manifest, Reference
from millstream.contracts.times import to_datetime


def manifest(loop: str, inputs: Sequence[InputColumn], *, version: str = "1", at: int = 0, **said: Any) -> Manifest:
    """Of a binary model that learned up to `at` (stream time, microseconds); `said` is any other field."""
    lineage = Lineage(
        cause=Cause.FIRST_MODEL,
        request="",
        at=to_datetime(at),
        positions={},
        train_rows=20_000,
        holdout_rows=5_000,
        content_sha256="",
        code_version="",
        libraries={},
    )
    fields: dict[str, Any] = {
        "format": 1,
        "run": f"run-{version}",
        "task": "binary",
        "output": "probability",
        "feature_service": f"{loop}_v1",
        "views": {},
        "label": "positive",
        "metrics": {},
        "lineage": lineage,
        "files": {},
    }
    return Manifest(loop=loop, version=version, inputs=list(inputs), **fields | said)


def number(name: str, edges: Sequence[float], *, importance: float, missing: float = 0.0) -> ColumnReference:
    """A column of numbers whose bins between `edges` were alike."""
    bins = len(edges) + 1
    return ColumnReference(
        name=name, type="number", importance=importance, missing=missing, edges=list(edges), shares=[1 / bins] * bins
    )


def category(name: str, categories: Sequence[str], *, importance: float, missing: float = 0.0) -> ColumnReference:
    """A column whose categories were alike, and no others."""
    shares = [*([1 / len(categories)] * len(categories)), 0.0]
    return ColumnReference(
        name=name, type="category", importance=importance, missing=missing, categories=list(categories), shares=shares
    )


def reference(columns: Sequence[ColumnReference], prediction: ColumnReference, **said: Any) -> Reference:
    """Of these columns; `said` is any other field."""
    fields: dict[str, Any] = {"holdout_loss": 1.0, "holdout_loss_std": 1.0, "holdout_rows": 5_000, "sample": {}}
    return Reference(columns=list(columns), prediction=prediction, **fields | said)
