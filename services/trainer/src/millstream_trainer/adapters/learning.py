"""From rows to a model that answers: classes, weights, a fit, what is corrected afterwards, and its graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream.contracts.package import InputColumn
from millstream.contracts.tasks import Task
from millstream.project import Loop
from millstream.project.params import Params, growing
from millstream_trainer.adapters import calibration, onnx_graph
from millstream_trainer.adapters.estimators import Estimator, Fitted, How, Lesson, Start, Watch
from millstream_trainer.domain.answers import Answers, codes_of
from millstream_trainer.domain.correction import Correction, Unweighted
from millstream_trainer.domain.table import Table
from millstream_trainer.errors import RunFailed

MOST_CLASSES = 100
"""Each is a column of the answer and a tree a round: a label of more values is a name, not a class."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Learned:
    """A fitted model with its corrections."""

    task: Task
    classes: tuple[str, ...]
    fitted: Fitted
    corrections: tuple[Correction, ...]

    def answers(self, table: Table) -> Answers:
        """By the fitted model itself, not by the graph."""
        found = self.fitted.ask(table)
        if self.task is Task.REGRESSION:
            return Answers(task=self.task, values=found)
        for correction in self.corrections:
            found = correction.apply(found)
        return Answers(task=self.task, values=found[:, 1] if self.task is Task.BINARY else found, classes=self.classes)

    def graph(self, inputs: list[InputColumn]) -> bytes:
        """As ONNX. Raises RunFailed."""
        return onnx_graph.assemble(self.fitted.core(), self.fitted.encoding, inputs, self.task, self.corrections)


class Learner:
    """Learns as one loop says, with whatever parameters. The classes are those of `table`: all rows before the holdout."""

    def __init__(self, estimator: Estimator, loop: Loop, table: Table, *, threads: int) -> None:
        """Raises RunFailed for labels that nothing can be learned from."""
        self.task = loop.model.task
        self.classes = classes_in(self.task, table.labels)
        self._estimator = estimator
        self._balanced = loop.model.class_weight == "balanced"
        self._seed, self._threads = loop.train.seed, threads

    def learn(
        self,
        table: Table,
        params: Params,
        *,
        against: Table | None = None,
        watch: Watch | None = None,
        start: Start | None = None,
    ) -> Learned:
        """Fit on all rows of `table`; `against` is what an early stop and `watch` look at. Raises RunFailed.

        `start` is where the fit goes on from, if `params` ask for that.
        """
        how = self._how(params, start if wants_start(params) else None)
        lesson = self._lesson(table)
        self._check(lesson)
        checked = None if against is None else self._lesson(against)
        fitted = self._estimator.fit(lesson, how, against=checked, watch=watch)
        corrections = (Unweighted(weights=self._class_weights(lesson.target)),) if self._balanced else ()
        return Learned(task=self.task, classes=self.classes, fitted=fitted, corrections=corrections)

    def refuses(self, start: Start, params: Params) -> str | None:
        """Why no fit with `params` can go on from `start`; None: it can. Raises RunFailed."""
        return self._estimator.refuses(start, self._how(params, start))

    def calibration(self, kind: str, learned: Learned, on: Table) -> Correction:
        """What `learned` has to be corrected by, from rows that it did not learn from."""
        chances = learned.answers(on).values
        if self.task is Task.BINARY:
            chances = np.column_stack([1 - chances, chances])
        return calibration.calibrated(kind, chances, self._target(on))

    def _how(self, params: Params, start: Start | None) -> How:
        return How(
            task=self.task,
            classes=self._columns,
            params=params,
            seed=self._seed,
            threads=self._threads,
            start=start,
        )

    @property
    def _columns(self) -> int:
        return {Task.BINARY: 2, Task.REGRESSION: 0}.get(self.task, len(self.classes))

    def _target(self, table: Table) -> NDArray[Any]:
        if self.task is Task.MULTICLASS:
            return codes_of(table.labels, self.classes)
        return table.labels.astype(np.float64 if self.task is Task.REGRESSION else np.int64)

    def _lesson(self, table: Table) -> Lesson:
        target = self._target(table)
        weights = self._class_weights(target)[target] if self._balanced else None
        return Lesson(table=table, target=target, weights=weights)

    def _check(self, lesson: Lesson) -> None:
        """A fit needs a row of each class that it is to answer with. Raises RunFailed."""
        if self.task is Task.REGRESSION:
            return
        seen = np.bincount(lesson.target, minlength=self._columns)
        if np.count_nonzero(seen) < 2:
            raise RunFailed(_one_label(lesson.table))
        if not seen.all():
            missing = ", ".join(self.classes[i] for i in np.flatnonzero(seen == 0)[:5])
            rows = len(lesson.table)
            raise RunFailed(f"no row of class {missing} among the {rows} rows of one fit; write a longer history")

    def _class_weights(self, target: NDArray[np.int64]) -> NDArray[np.float64]:
        """Rows by classes and by rows of the class, as scikit-learn's `balanced`."""
        counts = np.bincount(target, minlength=self._columns)
        found: NDArray[np.float64] = len(target) / (self._columns * np.maximum(counts, 1.0))
        return found


def wants_start(params: Params) -> bool:
    growth = growing(params)
    return growth is not None and growth.warm_start


def classes_in(task: Task, labels: NDArray[Any]) -> tuple[str, ...]:
    """Names of the classes, sorted; empty for other tasks. Raises RunFailed."""
    if task is not Task.MULTICLASS:
        return ()
    found = sorted(set(labels))
    if len(found) > MOST_CLASSES:
        shown = ", ".join(found[:5])
        raise RunFailed(f"the label has {len(found)} values ({shown}, …), at most {MOST_CLASSES} can be classes")
    return tuple(found)


def _one_label(table: Table) -> str:
    return f"all {len(table)} training rows have the label {table.labels[0]}: there is nothing to tell apart"
