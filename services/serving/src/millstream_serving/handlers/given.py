"""What is asked with its features: requests of one moment that are alike become one table."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from millstream_serving.domain.columns import FeatureValues, Table
from millstream_serving.domain.inference import TableRequest
from millstream_serving.domain.question import Question, Transport
from millstream_serving.domain.roster import Standing
from millstream_serving.domain.tensor_rows import TablePlan, rows_of_table
from millstream_serving.domain.tensors import numbers_of
from millstream_serving.handlers.loaded import Loaded

ID_BYTES = 16
"""Of a question that says no id of its own: none ever comes twice."""


class Given(NamedTuple):
    """One request with its features: some rows for the models of one standing."""

    standing: Standing[Loaded]
    questions: Sequence[Question]
    features: FeatureValues | Table
    pinned: bool

    @property
    def loop(self) -> str:
        return self.questions[0].loop

    @property
    def rows(self) -> int:
        return len(self.questions)

    def kind(self) -> Hashable:
        """Equal for requests that can be joined."""
        if isinstance(self.features, Table):
            found: Hashable = self.features.names, self.features.values.dtype
        else:
            # 2^53 + 1 is itself in company too.
            found = tuple((name, values.dtype) for name, values in self.features.items())
        return (id(self.standing), self.pinned, found, *self.questions[0].event)


class GivenTable(NamedTuple):
    """One request as it came: its rows name nobody, so they become questions in one go with all that come at its time."""

    standing: Standing[Loaded]
    plan: TablePlan
    asked: TableRequest
    loop: str
    at: int
    transport: Transport
    trace: str | None
    pinned: bool = False

    @property
    def rows(self) -> int:
        return self.asked.rows

    def kind(self) -> Hashable:
        """Equal for requests that can be joined."""
        return id(self.standing), self.asked.datatype


def joined(some: Sequence[Given | GivenTable]) -> tuple[Sequence[Question], FeatureValues | Table]:
    """The questions and features of requests that are of one kind."""
    first = some[0]
    if isinstance(first, GivenTable):
        return _of_tables(first, [one for one in some if isinstance(one, GivenTable)])
    given = [one for one in some if isinstance(one, Given)]
    questions = [question for one in given for question in one.questions]
    if isinstance(first.features, Table):
        values: Any = np.concatenate([one.features.values for one in given if isinstance(one.features, Table)])
        return questions, Table(first.features.names, values)
    if len(given) == 1:
        return questions, first.features
    return questions, {name: np.concatenate([one.features[name] for one in given]) for name in first.features}  # type: ignore[call-overload]  # no table is among them


def _of_tables(first: GivenTable, some: Sequence[GivenTable]) -> tuple[Sequence[Question], FeatureValues | Table]:
    data = first.asked.data if len(some) == 1 else list(chain.from_iterable([one.asked.data for one in some]))
    rows = rows_of_table(numbers_of(first.asked.datatype, data), first.plan)
    ids = os.urandom(ID_BYTES * len(rows.events)).hex()  # asking the system for each costs as much as the rest
    questions: list[Question] = []
    for one in some:
        for _ in range(one.rows):
            row = len(questions)
            id = ids[2 * ID_BYTES * row : 2 * ID_BYTES * (row + 1)]
            questions.append(
                Question(
                    loop=one.loop,
                    id=id,
                    key=id,
                    asked_at=one.at,
                    transport=one.transport,
                    event=rows.events[row],
                    cause=one.asked.id or id,
                    trace=one.trace,
                )
            )
    return questions, rows.features
