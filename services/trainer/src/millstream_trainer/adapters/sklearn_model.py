"""Fits what speaks scikit-learn's language: a line, a forest, or an estimator of the user's own."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream.contracts.tasks import Task
from millstream.project.params import ForestParams, LinearParams
from millstream_trainer.adapters.estimators import How, Lesson, Start, Watch
from millstream_trainer.adapters.lightgbm_model import down
from millstream_trainer.adapters.onnx_graph import ML_OPSET, OPSET
from millstream_trainer.domain.encoding import Encoding, by_column
from millstream_trainer.domain.table import Table
from millstream_trainer.errors import RunFailed

Build = Callable[[How], Any]
"""An estimator that is not fitted yet."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedEstimator:
    """A fitted estimator and what it takes to ask it."""

    model: Any
    encoding: Encoding
    task: Task
    rounds: int | None = None

    def ask(self, table: Table) -> NDArray[np.float64]:
        matrix = self.encoding.matrix(table)
        if self.task is Task.REGRESSION:
            return np.asarray(self.model.predict(matrix), dtype=np.float64).reshape(-1)
        return np.asarray(self.model.predict_proba(matrix), dtype=np.float64)

    def importance(self) -> dict[str, float]:
        """From the last step's `feature_importances_` or `coef_` (columns are standardized in `linear`); else all the same."""
        last = self.model.steps[-1][1] if hasattr(self.model, "steps") else self.model
        width = len(self.encoding.owners)
        weights = getattr(last, "feature_importances_", None)
        if weights is None and hasattr(last, "coef_"):
            weights = np.abs(np.asarray(last.coef_, dtype=np.float64).reshape(-1, width)).mean(axis=0)
        if weights is None or len(weights) != width:
            weights = np.ones(width)
        return self.encoding.shares(np.asarray(weights, dtype=np.float64))

    def native(self) -> None:
        """None: scikit-learn has no format but pickle."""

    def core(self) -> Any:
        import skl2onnx
        from skl2onnx.common.data_types import FloatTensorType

        options = {} if self.task is Task.REGRESSION else {id(self.model): {"zipmap": False}}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return skl2onnx.convert_sklearn(
                    self.model,
                    initial_types=[("columns", FloatTensorType([None, len(self.encoding.owners)]))],
                    options=options,
                    target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
                )
            # skl2onnx raises what it likes: its own errors, RuntimeError, KeyError.
            except Exception as error:
                why = f"{type(error).__name__}: {str(error.__cause__ or error)[:200]}"
                raise RunFailed(
                    f"{type(self.model).__name__} cannot be exported to ONNX ({why}); use estimators that skl2onnx converts"
                ) from error


class Sklearn:
    """See `estimators.Estimator`. Numbers are as they are, NaN is missing; each frequent category is a column of 0 and 1."""

    def __init__(self, build: Build) -> None:
        self._build = build

    def fit(
        self, lesson: Lesson, how: How, *, against: Lesson | None = None, watch: Watch | None = None
    ) -> FittedEstimator:
        encoding = by_column(lesson.table)
        model = self._build(how)
        extra = {} if lesson.weights is None else _weighing(model, lesson.weights)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a solver that stops at max_iter is judged by the gate
                model.fit(encoding.matrix(lesson.table), lesson.target, **extra)
        except (ValueError, TypeError) as error:
            raise RunFailed(f"{type(model).__name__} does not fit: {str(error)[:500]}") from error
        return FittedEstimator(model=_as_the_graph_has_it(model), encoding=encoding, task=how.task)

    def refuses(self, start: Start, how: How) -> str | None:
        return "scikit-learn's estimators start anew"


def linear(how: How) -> Any:
    """Missing values take the median; a column without any value is 0."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    assert isinstance(how.params, LinearParams)
    if how.task is Task.REGRESSION:
        line = Ridge(alpha=1 / how.params.C, random_state=how.seed)
    else:
        line = LogisticRegression(C=how.params.C, max_iter=how.params.max_iter, random_state=how.seed)
    return make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler(), line)


def forest(how: How) -> Any:
    """Missing values take the median; a column without any value is 0."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline

    assert isinstance(how.params, ForestParams)
    kind = RandomForestRegressor if how.task is Task.REGRESSION else RandomForestClassifier
    trees = kind(**how.params.model_dump(), random_state=how.seed, n_jobs=how.threads)
    return make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), trees)


def _weighing(model: Any, weights: NDArray[np.float64]) -> dict[str, Any]:
    """How rows are weighed: in a pipeline by its last step."""
    return {f"{model.steps[-1][0]}__sample_weight": weights} if hasattr(model, "steps") else {"sample_weight": weights}


def _as_the_graph_has_it(model: Any) -> Any:
    """Thresholds of a forest rounded down to float32 (see `lightgbm_model`), and asked by one thread: sums keep their order."""
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    if hasattr(last, "n_jobs"):
        last.n_jobs = 1
    trees = getattr(last, "estimators_", None)
    for tree in np.ravel(np.asarray(trees, dtype=object)) if trees is not None else ():
        if hasattr(tree, "tree_"):
            tree.tree_.threshold[:] = down(tree.tree_.threshold)
    return model
