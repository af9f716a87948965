"""What can be fitted: a small port, and the one table from a name in `model.estimator` to who does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from millstream.contracts.tasks import Task
from millstream.project.params import Params
from millstream_trainer.domain.encoding import Encoding
from millstream_trainer.domain.table import Table

Watch = Callable[[int, float], None]
"""Hears the validation loss after each round; raises to end the fit."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesson:
    """Rows to learn from, or to check against."""

    table: Table
    target: NDArray[Any]
    """Classes as codes from 0 (binary: 1 is true), int64; regression: float64."""
    weights: NDArray[np.float64] | None = None
    """Of the rows; None: all the same."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """The champion as its library keeps it: what a warm start goes on from."""

    version: str
    model: bytes
    """As `Fitted.native` gave it; its hash is checked."""
    encoding: Encoding
    """Its own. A category that came up since is none to it."""
    rounds: int
    until: int
    """When the newest row that it has learned was asked, microseconds."""


@dataclass(frozen=True, kw_only=True)
class How:
    """All that decides a fit, beside its rows."""

    task: Task
    classes: int
    """2 where the task is binary, 0 in a regression."""
    params: Params
    seed: int
    threads: int
    """The result does not depend on it."""
    start: Start | None = None
    """Go on from there; None: from scratch."""


class Fitted(Protocol):
    """A fitted estimator."""

    @property
    def encoding(self) -> Encoding: ...

    @property
    def rounds(self) -> int | None:
        """Trees that are asked, or epochs, those of its start included; None where there are no rounds."""
        ...

    def ask(self, table: Table) -> NDArray[np.float64]:
        """Probabilities (n, classes), or the mean (n,)."""
        ...

    def importance(self) -> dict[str, float]:
        """Share of each column of the table, summing to 1."""
        ...

    def core(self) -> Any:
        """An ONNX model: input `columns` (n, width of the encoding) float32; its last output is what `ask` gives.

        Raises RunFailed when it cannot be said in ONNX.
        """
        ...

    def native(self) -> tuple[str, bytes] | None:
        """A file's ending and the model in the library's own format, one that runs nothing; None: nobody can go on from it."""
        ...


class Estimator(Protocol):
    """Blocks for the length of a fit."""

    def fit(self, lesson: Lesson, how: How, *, against: Lesson | None = None, watch: Watch | None = None) -> Fitted:
        """The same lesson and `how` give the same model, and so do the same `against` and an early stop by it.

        `watch` is called where the estimator learns in rounds and there is an `against`. Raises RunFailed.
        """
        ...

    def refuses(self, start: Start, how: How) -> str | None:
        """Why a fit that `how` describes cannot go on from `start`, for a person; None: it can."""
        ...


def estimator(name: str, project: Path | None) -> Estimator:
    """Who does `name`. `project`: folder in which an estimator of the user's own is looked up. Raises RunFailed."""
    # Imported here: a run needs one of them.
    if name == "lightgbm":
        from millstream_trainer.adapters.lightgbm_model import Lightgbm

        return Lightgbm()
    if name == "xgboost":
        from millstream_trainer.adapters.xgboost_model import Xgboost

        return Xgboost()
    if name == "torch":
        from millstream_trainer.adapters.torch_needs import needed

        needed("model.estimator: torch")
        from millstream_trainer.adapters.torch_model import Torch, perceptron

        return Torch(perceptron)
    from millstream_trainer.adapters import sklearn_model, user_code

    if name == "linear":
        return sklearn_model.Sklearn(sklearn_model.linear)
    if name == "forest":
        return sklearn_model.Sklearn(sklearn_model.forest)
    return user_code.own(name, project)
