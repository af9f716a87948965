"""The question that every retraining must answer: what if the first champion had simply been kept?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from millstream.contracts.events import ModelRef, PredictionServed
from millstream.contracts.package import MODEL_FILE
from millstream.runtime.packages import PackageStore

BATCH = 20_000


def score_static(ref: ModelRef, packages: PackageStore, served: Sequence[PredictionServed]) -> NDArray[np.float64]:
    """Probabilities of the model `ref` for questions answered by any model, from the features and inputs in the log."""
    import onnxruntime

    manifest = packages.manifest(ref)
    session = onnxruntime.InferenceSession(packages.file(ref, manifest, MODEL_FILE), providers=["CPUExecutionProvider"])
    answers = []
    for first in range(0, len(served), BATCH):
        part = served[first : first + BATCH]
        feeds = {}
        for column in manifest.inputs:
            values = [(p.inputs if column.source == "input" else p.features).get(column.name) for p in part]
            if column.type == "category":
                array = np.array(["" if v is None else str(v) for v in values], dtype=object)
            else:
                array = np.array([np.nan if v is None else v for v in values], dtype=np.float32)
            feeds[column.name] = array.reshape(-1, 1)
        answers.append(np.asarray(session.run([manifest.output], feeds)[0], dtype=np.float64).reshape(-1))
    return np.concatenate(answers) if answers else np.array([])
