"""The question that every retraining must answer: what if the first champion had simply been kept?"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from millstream.contracts.events import ModelRef
from millstream.contracts.package import MODEL_FILE, InputColumn
from millstream.runtime.packages import PackageStore

BATCH = 20_000


def score_static(ref: ModelRef, packages: PackageStore, answers: pl.DataFrame) -> dict[str, NDArray[np.float64]]:
    """What the model `ref` says (`contracts.tasks`) to questions answered by any model, from what the log says each was given.

    `answers` is from `PredictionLog.frame`; one value a row.
    """
    import onnxruntime

    manifest = packages.manifest(ref)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; warnings about graphs are the trainer's business
    file = packages.file(ref, manifest, MODEL_FILE)
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = manifest.classes or [manifest.output]
    found = [np.empty((0, len(names)))]
    for part in answers.iter_slices(BATCH):
        feeds = {column.name: _given(column, part).reshape(-1, 1) for column in manifest.inputs}
        said = np.asarray(session.run([manifest.output], feeds)[0], dtype=np.float64)
        found.append(said.reshape(len(part), len(names)))
    return dict(zip(names, np.concatenate(found).T, strict=True))


def _given(column: InputColumn, answers: pl.DataFrame) -> NDArray[np.object_] | NDArray[np.float32]:
    name = f"{'inputs' if column.source == 'input' else 'features'}.{column.name}"
    values = answers[name] if name in answers.columns else pl.Series([None] * len(answers), dtype=pl.Float64)
    if column.type == "category":
        return values.cast(pl.String).fill_null("").to_numpy().astype(object)
    return values.cast(pl.Float64).fill_null(float("nan")).to_numpy().astype(np.float32)
