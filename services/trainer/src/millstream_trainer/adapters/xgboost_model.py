"""Fits XGBoost so that the same table gives the same model, and asks it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray

from millstream.contracts.tasks import Task
from millstream.project.params import XgboostParams
from millstream_trainer.adapters.estimators import How, Lesson, Start, Watch
from millstream_trainer.adapters.onnx_graph import OPSET
from millstream_trainer.domain.encoding import Encoding, by_column
from millstream_trainer.domain.table import Table

_OBJECTIVES = {
    Task.BINARY: {"objective": "binary:logistic", "eval_metric": "logloss"},
    Task.MULTICLASS: {"objective": "multi:softprob", "eval_metric": "mlogloss"},
    Task.REGRESSION: {"objective": "reg:squarederror", "eval_metric": "rmse"},
}


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedTrees:
    """A booster and what it takes to ask it."""

    booster: Any
    encoding: Encoding
    rounds: int
    task: Task

    def ask(self, table: Table) -> NDArray[np.float64]:
        found = np.asarray(self.booster.predict(_matrix(self.encoding, table)), dtype=np.float64)
        return np.column_stack([1 - found, found]) if self.task is Task.BINARY else found

    def importance(self) -> dict[str, float]:
        """Share of the total gain by column."""
        gain = self.booster.get_score(importance_type="total_gain")
        width = len(self.encoding.owners)
        return self.encoding.shares(np.array([float(gain.get(f"f{i}", 0.0)) for i in range(width)]))

    def core(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from onnxmltools import convert_xgboost
            from onnxmltools.convert.common.data_types import FloatTensorType

            return convert_xgboost(
                self.booster,
                initial_types=[("columns", FloatTensorType([None, len(self.encoding.owners)]))],
                target_opset=OPSET,
            )

    def native(self) -> tuple[str, bytes]:
        return "ubj", bytes(self.booster.save_raw("ubj"))


class Xgboost:
    """See `estimators.Estimator`. Each frequent category is a column."""

    def fit(
        self, lesson: Lesson, how: How, *, against: Lesson | None = None, watch: Watch | None = None
    ) -> FittedTrees:
        assert isinstance(how.params, XgboostParams)
        encoding = by_column(lesson.table) if how.start is None else how.start.encoding
        settings = {
            **how.params.booster(),
            **_OBJECTIVES[how.task],
            "tree_method": "hist",
            "seed": how.seed,
            "nthread": how.threads,
            "verbosity": 0,
        }
        if how.task is Task.MULTICLASS:
            settings["num_class"] = how.classes
        data = _matrix(encoding, lesson.table, lesson.target, lesson.weights)
        checks: list[tuple[Any, str]] = []
        callbacks: list[Any] = []
        if against is not None and (how.params.early_stopping or watch is not None):
            checks = [(_matrix(encoding, against.table, against.target, against.weights), "validation")]
            if how.params.early_stopping:
                callbacks.append(xgboost.callback.EarlyStopping(rounds=how.params.early_stopping, save_best=True))
            if watch is not None:
                callbacks.append(_Told(watch))
        booster = xgboost.train(
            settings,
            data,
            how.params.rounds if how.start is None else how.params.warm_rounds,
            evals=checks,
            callbacks=callbacks,
            verbose_eval=False,
            xgb_model=None if how.start is None else bytearray(how.start.model),
        )
        return FittedTrees(booster=booster, encoding=encoding, rounds=booster.num_boosted_rounds(), task=how.task)

    def refuses(self, start: Start, how: How) -> None:
        """None: trees are added to trees of any parameters."""


class _Told(xgboost.callback.TrainingCallback):
    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        (history,) = next(iter(evals_log.values())).values()
        self._watch(epoch, float(history[-1]))
        return False


def _matrix(
    encoding: Encoding, table: Table, target: NDArray[Any] | None = None, weights: NDArray[Any] | None = None
) -> Any:
    return xgboost.DMatrix(encoding.matrix(table), label=target, weight=weights)
