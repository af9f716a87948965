"""Fits LightGBM so that the same table gives the same model, and asks it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from millstream.contracts.tasks import Task
from millstream.project.params import LightgbmParams
from millstream_trainer.adapters.estimators import How, Lesson, Start, Watch
from millstream_trainer.adapters.onnx_graph import OPSET
from millstream_trainer.domain.encoding import Encoding, by_code
from millstream_trainer.domain.table import Table

_OBJECTIVES = {
    Task.BINARY: {"objective": "binary"},
    Task.MULTICLASS: {"objective": "multiclass"},
    # The mean of the labels at the start, by LightGBM's own arithmetic.
    Task.REGRESSION: {"objective": "regression"},
}


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedTrees:
    """A booster and what it takes to ask it."""

    booster: lightgbm.Booster
    encoding: Encoding
    rounds: int
    task: Task

    def ask(self, table: Table) -> NDArray[np.float64]:
        found = np.asarray(self.booster.predict(self.encoding.matrix(table)), dtype=np.float64)
        return np.column_stack([1 - found, found]) if self.task is Task.BINARY else found

    def importance(self) -> dict[str, float]:
        """Share of the total gain by column."""
        return self.encoding.shares(self.booster.feature_importance(importance_type="gain").astype(np.float64))

    def core(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # upstream: it warns about the label's shape, and the label is dropped here
            from onnxmltools import convert_lightgbm
            from onnxmltools.convert.common.data_types import FloatTensorType

            return convert_lightgbm(
                self.booster,
                initial_types=[("columns", FloatTensorType([None, len(self.encoding.columns)]))],
                zipmap=False,
                target_opset=OPSET,
            )

    def native(self) -> tuple[str, bytes]:
        lines = self.booster.model_to_string().splitlines(keepends=True)
        # How many threads fitted it is no part of the model.
        return "txt", "".join(line for line in lines if not line.startswith("[num_threads:")).encode()


class Lightgbm:
    """See `estimators.Estimator`. Categories are split as such."""

    def fit(
        self, lesson: Lesson, how: How, *, against: Lesson | None = None, watch: Watch | None = None
    ) -> FittedTrees:
        assert isinstance(how.params, LightgbmParams)
        encoding = by_code(lesson.table) if how.start is None else how.start.encoding
        settings = {
            **how.params.booster(),
            **_OBJECTIVES[how.task],
            "verbosity": -1,
            "seed": how.seed,
            "deterministic": True,
            "force_col_wise": True,  # else LightGBM times both ways and takes the faster: another sum order, another model
            "num_threads": how.threads,
        }
        if how.task is Task.MULTICLASS:
            settings["num_class"] = how.classes
        data = lightgbm.Dataset(
            encoding.matrix(lesson.table),
            lesson.target,
            weight=lesson.weights,
            categorical_feature=encoding.codes,
            params=settings,
            free_raw_data=True,
        )
        checks: list[lightgbm.Dataset] = []
        callbacks: list[Any] = []
        if against is not None and (how.params.early_stopping or watch is not None):
            checks = [data.create_valid(encoding.matrix(against.table), against.target, weight=against.weights)]
            if how.params.early_stopping:
                callbacks.append(lightgbm.early_stopping(how.params.early_stopping, verbose=False))
            if watch is not None:
                callbacks.append(_told(watch))
        booster = lightgbm.train(
            settings,
            data,
            num_boost_round=how.params.rounds if how.start is None else how.params.warm_rounds,
            valid_sets=checks or None,
            callbacks=callbacks or None,
            init_model=None if how.start is None else lightgbm.Booster(model_str=how.start.model.decode()),
        )
        kept = booster.best_iteration if booster.best_iteration > 0 else booster.current_iteration()
        return FittedTrees(
            booster=_with_float32_thresholds(booster, kept), encoding=encoding, rounds=kept, task=how.task
        )

    def refuses(self, start: Start, how: How) -> None:
        """None: trees are added to trees of any parameters."""


def _told(watch: Watch) -> Any:
    def after(env: Any) -> None:
        watch(env.iteration - env.begin_iteration, float(env.evaluation_result_list[0][2]))

    return after


def _with_float32_thresholds(booster: lightgbm.Booster, rounds: int) -> lightgbm.Booster:
    """The first `rounds` of the same model with every threshold rounded down to a float32.

    LightGBM splits at doubles between two values; ONNX holds float32. Rounding to nearest may cross the upper value and
    send its rows to the other side; rounding down changes no decision on float32 inputs. (A categorical split's threshold
    is a small index and stays as it is.)
    """
    lines = []
    for line in booster.model_to_string(num_iteration=rounds).splitlines():
        if line.startswith("threshold="):
            doubles = np.array(line.removeprefix("threshold=").split(), dtype=np.float64)
            line = "threshold=" + " ".join(repr(float(value)) for value in down(doubles))
        if not line.startswith("tree_sizes="):  # byte positions that no longer hold; LightGBM reads on without them
            lines.append(line)
    return lightgbm.Booster(model_str="\n".join(lines) + "\n")


def down(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """The nearest float32 that is not larger."""
    near = values.astype(np.float32)
    lower: NDArray[np.float32] = np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near)
    return lower
