"""What each column contributed to an answer: Shapley values by sampled permutations, of any model and without looking into it.

Strumbelj and Kononenko, "An efficient explanation of individual classifications using game theory" (JMLR 11, 2010), with each
permutation walked forth and back (antithetic; Mitchell et al., "Sampling permutations for Shapley value estimation", JMLR 23,
2022). A column that is not known yet has the value of a training row: the interventional reading, as TreeSHAP's with a
background.

One walk goes from a training row to the question, a column at a time; what the answer changes by is that column's. So the
contributions sum to the question's score less the training rows' mean, whatever was sampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream.contracts.events import Scalar
from millstream.contracts.package import InputColumn
from millstream.contracts.tasks import SMALLEST, Task
from millstream_serving.domain.columns import Columns

LOG_ODDS, VALUE = "log_odds", "value"


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Of one answer."""

    of: str
    """`log_odds` of the probability, or `value`: the scale of all numbers here."""
    label: str
    """Task multiclass: the class that is explained, the likeliest. Else empty."""
    base: float
    """Mean score of the training rows that the question is compared with."""
    score: float
    """The answer's own: `base` and all contributions."""
    contributions: Mapping[str, float]
    """By column, the largest first."""
    errors: Mapping[str, float]
    """Standard error of each, as an estimate over all training rows and orders."""
    missing: Sequence[str]
    """Columns that the question had no value for."""
    samples: int
    """Training rows that it was compared with."""


def background(inputs: Sequence[InputColumn], sample: Mapping[str, Sequence[Scalar]], rows: int) -> Columns:
    """At most `rows` of a reference's sample, evenly spaced, as columns. Raises KeyError where a column is not in it."""
    length = min((len(sample[column.name]) for column in inputs), default=0)
    some = np.unique(np.linspace(0, length - 1, min(rows, length)).astype(int)).tolist() if length else []
    found: Columns = {}
    for column in inputs:
        values = [sample[column.name][row] for row in some]
        if column.type == "number":
            plain = [np.nan if value is None else float(value) for value in values]
            found[column.name] = np.array(plain, dtype=np.float32).reshape(-1, 1)
        else:
            texts = np.array(["" if value is None else str(value) for value in values], dtype=object)
            found[column.name] = texts.reshape(-1, 1)
    return found


def ranks(chance: np.random.Generator, walks: int, columns: int) -> NDArray[np.int64]:
    """For each walk the place of each column in its order, shape (walks, columns)."""
    return chance.permuted(np.tile(np.arange(columns), (walks, 1)), axis=1)


def walked(question: Columns, others: Columns, places: NDArray[np.int64]) -> Columns:
    """The rows of all walks, 2 x columns each: forth with both ends, then back without.

    `question` has one row, `others` one a walk.
    """
    columns = places.shape[1]
    forth, back = np.arange(columns + 1), np.arange(1, columns)
    found: Columns = {}
    for number, (name, values) in enumerate(others.items()):
        place = places[:, number, None]
        known = np.concatenate([place < forth, columns - 1 - place < back], axis=1)
        found[name] = np.where(known, question[name][0, 0], values).astype(values.dtype).reshape(-1, 1)
    return found


def shares(scores: NDArray[np.float64], places: NDArray[np.int64]) -> NDArray[np.float64]:
    """Contributions by walk and column; `scores`, of the rows of `walked`, have shape (walks, 2 x columns)."""
    columns = places.shape[1]
    forth = np.diff(scores[:, : columns + 1], axis=1)
    back = np.diff(np.column_stack([scores[:, :1], scores[:, columns + 1 :], scores[:, columns]]), axis=1)
    found: NDArray[np.float64] = (
        np.take_along_axis(forth, places, axis=1) + np.take_along_axis(back, columns - 1 - places, axis=1)
    ) / 2
    return found


def likeliest(task: Task, output: Mapping[str, float]) -> str:
    """The class to explain; empty where there is but one number."""
    return max(output, key=output.__getitem__) if task is Task.MULTICLASS else ""


def score_of(task: Task, classes: Sequence[str], label: str, answers: NDArray[Any]) -> NDArray[np.float64]:
    """Scores of a model's answers: what adds up, which probabilities do not."""
    values = answers.astype(np.float64)
    if task is Task.REGRESSION:
        return values
    if task is Task.MULTICLASS:
        values = values[:, list(classes).index(label)]
    chances = np.clip(values, SMALLEST, 1 - SMALLEST)
    found: NDArray[np.float64] = np.log(chances) - np.log1p(-chances)
    return found


def explained(
    task: Task, label: str, question: Columns, scores: NDArray[np.float64], parts: NDArray[np.float64]
) -> Explanation:
    """From the scores of all walks, shape (walks, 2 x columns), and their `shares`."""
    walks, columns = parts.shape
    means = parts.mean(axis=0)
    spread = parts.std(axis=0, ddof=1) / np.sqrt(walks) if walks > 1 else np.full(columns, np.inf)
    names = list(question)
    order = np.argsort(-np.abs(means), kind="stable").tolist()
    return Explanation(
        of=VALUE if task is Task.REGRESSION else LOG_ODDS,
        label=label,
        base=float(scores[:, 0].mean()),
        score=float(scores[:, columns].mean()),
        contributions={names[one]: float(means[one]) for one in order},
        errors={names[one]: float(spread[one]) for one in order},
        missing=[name for name, values in question.items() if _is_null(values[0, 0])],
        samples=walks,
    )


def _is_null(value: Any) -> bool:
    return bool(value == "" or value != value)
