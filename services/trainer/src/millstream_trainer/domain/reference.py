"""What the training rows looked like, column by column: drift compares its windows with this, and never recomputes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from millstream.contracts.events import Scalar
from millstream.contracts.package import ColumnReference, ContentReference, ErrorGroup, Reference, SliceReference
from millstream.contracts.tasks import PROBABILITY, VALUE, Task
from millstream_trainer.domain.answers import Answers, knowing_nothing
from millstream_trainer.domain.slices import Slice
from millstream_trainer.domain.table import CATEGORY, NUMBER, Column, Table

CLASS = "class"
"""Name of a multiclass model's prediction column: the likeliest class."""
BINS = 10
"""Deciles: enough to see a shift, and ten bins of 5,000 rows have a PSI noise of 0.002."""
CATEGORIES = 50
"""Known categories kept; the tail is one share, since a rare category's share is mostly noise."""
SAMPLE = 2_000
"""Rows for Evidently's report: more makes it slower, not clearer."""


def reference_of(
    train: Table,
    *,
    importance: Mapping[str, float],
    labels: NDArray[Any],
    answers: Answers,
    slices: Sequence[Slice],
    content: Sequence[ContentReference],
    error_groups: Sequence[ErrorGroup] = (),
    seed: int,
) -> Reference:
    """Reference of `train`; `labels`, `answers`, `slices` and `error_groups` are the holdout's. `importance` is a share by
    column."""
    losses = answers.losses(labels)
    return Reference(
        columns=[
            replace(
                column_reference(column, importance.get(column.name, 0.0)),
                longest_constant=longest_constant(column, train.known_at),
            )
            for column in train.columns
        ],
        prediction=column_reference(_prediction(answers), 0.0),
        holdout_loss=float(losses.mean()),
        holdout_loss_std=_spread(losses),
        holdout_rows=len(losses),
        sample=_sample(train, seed),
        slices=[
            SliceReference(
                column=one.column,
                value=one.value,
                rows=int(one.rows.sum()),
                loss=float(losses[one.rows].mean()),
                loss_std=_spread(losses[one.rows]),
            )
            for one in slices
        ],
        content=list(content),
        holdout_blind=float(knowing_nothing(answers.task, labels, len(labels)).losses(labels).mean()),
        error_groups=list(error_groups),
    )


def _prediction(answers: Answers) -> Column:
    """What of an answer is looked at as a column: the probability, the number, or the likeliest class."""
    if answers.task is Task.MULTICLASS:
        return Column(name=CLASS, source="output", type=CATEGORY, values=answers.likeliest())
    name = PROBABILITY if answers.task is Task.BINARY else VALUE
    return Column(name=name, source="output", type=NUMBER, values=answers.values.astype(np.float32))


def _spread(losses: NDArray[np.float64]) -> float:
    return float(losses.std(ddof=1)) if len(losses) > 1 else 0.0


def column_reference(column: Column, importance: float) -> ColumnReference:
    """Deciles or categories of the non-null rows, with their shares."""
    missing = column.missing
    present = column.values[~missing]
    share_missing = float(missing.mean()) if len(missing) else 0.0
    if column.type == CATEGORY:
        ranked = sorted(Counter(present).items(), key=lambda pair: (-pair[1], pair[0]))
        kept, others = ranked[:CATEGORIES], sum(count for _, count in ranked[CATEGORIES:])
        total = max(1, len(present))
        return ColumnReference(
            name=column.name,
            type=column.type,
            importance=importance,
            missing=share_missing,
            categories=[name for name, _ in kept],
            shares=[count / total for _, count in kept] + [others / total],
        )
    edges, shares = _bins(present)
    return ColumnReference(
        name=column.name, type=column.type, importance=importance, missing=share_missing, edges=edges, shares=shares
    )


def longest_constant(column: Column, known_at: NDArray[np.int64]) -> int:
    """Longest stretch (microseconds) between two rows with one value and no other between them, nulls aside; rows are in the
    order of `known_at`."""
    there = ~column.missing
    values, times = column.values[there], known_at[there]
    if len(values) < 2:
        return 0
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
    ends = np.append(starts[1:], len(values)) - 1
    return int((times[ends] - times[starts]).max())


def _bins(values: NDArray[Any]) -> tuple[list[float], list[float]]:
    """Inner edges, distinct, and the share of each bin (edges[i-1] < x <= edges[i])."""
    if not len(values):
        return [], [0.0]
    # One of the values themselves, never between two: a column of few values then has clean bins.
    edges = np.unique(np.quantile(values, np.arange(1, BINS) / BINS, method="inverted_cdf").astype(np.float64))
    edges = edges[edges < values.max()]
    counts = np.bincount(np.searchsorted(edges, values.astype(np.float64), side="left"), minlength=len(edges) + 1)
    return [float(edge) for edge in edges], [float(count) / len(values) for count in counts]


def _sample(train: Table, seed: int) -> dict[str, list[Scalar]]:
    rows = np.arange(len(train))
    if len(rows) > SAMPLE:
        rows = np.sort(np.random.default_rng(seed).choice(rows, SAMPLE, replace=False))
    return {column.name: _scalars(column.values[rows], column.is_number) for column in train.columns}


def _scalars(values: NDArray[Any], number: bool) -> list[Scalar]:
    if number:
        return [None if value != value else float(value) for value in values]
    return [value or None for value in values]
