"""What one model said to the questions of one run, in its task's words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream.contracts.tasks import PROBABILITY, VALUE, Task, is_answer

Output = dict[str, float]
"""As `contracts.tasks` has it: `probability`, one entry a class, or `value`."""

RAISED, LATE, NOT_FINITE = "raised", "late", "not_finite"
"""Why a model has no answer. `not_finite` is whatever `contracts.tasks.is_answer` refuses, a probability of 1.5 too."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One model's answers, a row a question."""

    outputs: Sequence[Output | None]
    """None where it has no honest answer."""
    failures: Sequence[str]
    """Why not; empty where it has."""
    ms: float = 0.0
    """Its model time a question; 0 where it was not waited for."""
    away: bool = False
    """Whether it runs elsewhere and did not answer: a question that can wait should."""

    @classmethod
    def none(cls, rows: int, failure: str) -> Scores:
        """It answered nothing."""
        return cls(outputs=[None] * rows, failures=[failure] * rows)

    def without(self, rows: Iterable[int], failure: str) -> Scores:
        """The same, but that it has no answer to `rows`."""
        outputs, failures = list(self.outputs), list(self.failures)
        for row in rows:
            outputs[row], failures[row] = None, failures[row] or failure
        return replace(self, outputs=outputs, failures=failures)


def shape_of(task: Task, classes: Sequence[str], rows: int) -> tuple[int, ...]:
    """The shape of a graph's output: (n,), and (n, classes) where the task is multiclass."""
    return (rows, len(classes)) if task is Task.MULTICLASS else (rows,)


def outputs_of(task: Task, classes: Sequence[str], values: NDArray[Any]) -> list[Output | None]:
    """One output a row of `values`, which have `shape_of`; None where a row is no answer."""
    if task is Task.BINARY:  # as `is_answer` has it, without a call a row; NaN fails both comparisons
        return [{PROBABILITY: chance} if 0.0 <= chance <= 1.0 else None for chance in values.tolist()]
    names = classes if task is Task.MULTICLASS else (VALUE,)
    rows = values.astype(np.float64).reshape(len(values), -1).tolist()
    found = [dict(zip(names, row, strict=True)) for row in rows]
    return [output if is_answer(task, output) else None for output in found]
