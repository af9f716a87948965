"""What one model version says to the questions of the past: asked in stretches, from when somebody wants to know."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from millstream.contracts.events import ModelRef
from millstream.contracts.package import MODEL_FILE, REFERENCE_FILE, Reference
from millstream.contracts.tasks import Task
from millstream.runtime.packages import PackageStore
from millstream_backtest.past import Past
from millstream_drift.domain.baseline import baseline_of
from millstream_drift.domain.events import Cell
from millstream_serving.adapters.onnx_model import OnnxRuntime
from millstream_serving.domain.scores import NOT_FINITE, Output, Scores, outputs_of
from millstream_trainer.domain.table import NUMBER

STRETCH = 2_000
"""Questions asked at once. A version that is rejected was asked no more than so many for nothing."""


class Voice:
    """One version: its answers, and the cells that drift compares with its reference."""

    def __init__(self, past: Past, ref: ModelRef, packages: PackageStore) -> None:
        """Raises BadPackage, RetryLater, UnfitReference, ModelRefused."""
        self.ref = ref
        self.manifest = packages.manifest(ref)
        graph = packages.file(ref, self.manifest, MODEL_FILE)
        reference = msgspec.json.decode(packages.file(ref, self.manifest, REFERENCE_FILE), type=Reference)
        self.baseline = baseline_of(self.manifest, reference)
        # One thread: policies share the cores, and sums keep their order.
        self._model = OnnxRuntime(threads=1).load(graph, self.manifest.inputs, self.manifest.output)
        self._past = past
        self._outputs: dict[int, list[Output | None]] = {}
        self._cells: dict[int, list[tuple[Cell, ...]]] = {}

    def scores(self, start: int, stop: int) -> Scores:
        """Answers to questions `start` to `stop`. Times are no part of a backtest: they are 0."""
        found: list[Output | None] = []
        for stretch in range(start // STRETCH, (stop - 1) // STRETCH + 1):
            if stretch not in self._outputs:
                _forget(self._outputs)
                first = stretch * STRETCH
                self._outputs[stretch] = self.outputs(np.arange(first, min(first + STRETCH, len(self._past))))
            first = stretch * STRETCH
            found += self._outputs[stretch][max(0, start - first) : stop - first]
        return Scores(outputs=found, failures=["" if one is not None else NOT_FINITE for one in found])

    def outputs(self, rows: NDArray[np.int64]) -> list[Output | None]:
        """Answers to any questions; to none where nobody asked between a promotion and the end."""
        if len(rows) == 0:
            return []
        feeds: dict[str, NDArray[Any]] = {}
        for declared in self.manifest.inputs:
            values = self._past.dataset.table.column(declared.name).values[rows]
            feeds[declared.name] = values.astype(np.float32 if declared.type == NUMBER else object).reshape(-1, 1)
        task = Task(self.manifest.task)
        return outputs_of(task, self.manifest.classes, self._model.run(feeds))

    def cells(self, start: int, stop: int) -> list[tuple[Cell, ...]]:
        """What drift keeps of each question's inputs and features."""
        found: list[tuple[Cell, ...]] = []
        for stretch in range(start // STRETCH, (stop - 1) // STRETCH + 1):
            first = stretch * STRETCH
            if stretch not in self._cells:
                _forget(self._cells)
                self._cells[stretch] = self._rows(first, first + STRETCH)
            found += self._cells[stretch][max(0, start - first) : stop - first]
        return found

    def _rows(self, start: int, stop: int) -> list[tuple[Cell, ...]]:
        inputs = {name: values[start:stop] for name, values in self._past.inputs.items()}
        features = {name: values[start:stop].tolist() for name, values in self._past.features.items()}
        rows = range(min(stop, len(self._past)) - start)
        return [
            self.baseline.row(
                {name: values[row] for name, values in inputs.items()},
                {name: values[row] for name, values in features.items()},
            )
            for row in rows
        ]


def _forget(stretches: dict[int, Any]) -> None:
    """Time only goes on: the stretch in hand and the one before it are enough."""
    while len(stretches) > 1:
        del stretches[min(stretches)]
