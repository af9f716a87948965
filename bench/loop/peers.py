"""Three simple ways to keep a model, without gate, trial or triage: what the loop is held against."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from generated import DAYS, Generated, micros
from models import Floats
from numpy.typing import NDArray

from millstream.project import Loop
from millstream_backtest.past import Past
from millstream_trainer.adapters.estimators import estimator
from millstream_trainer.adapters.learning import Learner
from millstream_trainer.domain.table import Table

WEEK = 7


@dataclass(kw_only=True, eq=False)
class Kept:
    """What came of a policy."""

    answers: Floats
    """NaN before the first model."""
    detected: list[float] = field(default_factory=list)
    """Days of its alarms."""
    retrains: list[float] = field(default_factory=list)
    """Days of its runs, without the first."""


class Peer:
    """A model that is fitted on all rows whose label is known, and answers from then on."""

    def __init__(self, stream: Generated, past: Past, loop: Loop) -> None:
        self._stream, self._past, self._loop = stream, past, loop
        self._estimator = estimator(loop.model.estimator, None)
        self.kept = Kept(answers=np.full(len(past), np.nan))
        known = np.sort(stream.label_days)
        self.first = float(np.ceil(known[loop.train.first_after.rows - 1]))
        """Midnight at which there is enough for the first model, as drift counts labels at midnight."""

    def fit(self, day: float) -> Table:
        """A new model at that day, with the rows that it learned from."""
        table = self._past.dataset.table
        rows = self._past.label_known_at <= micros(np.array([day]))[0]
        learned_from = table.take(rows)
        learner = Learner(self._estimator, self._loop, learned_from, threads=1)
        learned = learner.learn(learned_from, self._loop.model.params)
        later = self._stream.days >= day
        self.kept.answers[later] = learned.answers(table.take(later)).values
        if day > self.first:
            self.kept.retrains.append(day)
        return learned_from


def never(stream: Generated, past: Past, loop: Loop) -> Kept:
    peer = Peer(stream, past, loop)
    peer.fit(peer.first)
    return peer.kept


def weekly(stream: Generated, past: Past, loop: Loop) -> Kept:
    peer = Peer(stream, past, loop)
    for day in np.arange(peer.first, DAYS, WEEK):
        peer.fit(float(day))
    return peer.kept


def every_alarm(stream: Generated, past: Past, loop: Loop) -> Kept:
    """Evidently's preset with its own defaults: windows as long as the loop's against the rows that the model learned from."""
    peer = Peer(stream, past, loop)
    reference = peer.fit(peer.first)
    table = past.dataset.table
    for rows in _windows(stream, peer.first, loop):
        if drifted(table.take(rows), reference):
            day = float(stream.days[rows[-1]])
            peer.kept.detected.append(day)
            reference = peer.fit(day)
    return peer.kept


def _windows(stream: Generated, first: float, loop: Loop) -> Iterator[NDArray[np.int64]]:
    assert isinstance(loop.drift.window, int)
    start, size = int(np.searchsorted(stream.days, first)), loop.drift.window
    for begin in range(start, len(stream.days) - size + 1, size):
        yield np.arange(begin, begin + size)


def drifted(current: Table, reference: Table) -> bool:
    """What `DataDriftPreset` says of the whole: by default, that half of the columns drifted."""
    warnings.simplefilter("ignore")
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    numbers = [column.name for column in current.columns if column.is_number]
    categories = [column.name for column in current.columns if not column.is_number]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=categories)
    # A column that has no value in a window is a drift to a person and an error to Evidently.
    names = [column.name for column in current.columns if not column.missing.all()]
    preset = DataDriftPreset(columns=names)
    sides = [
        Dataset.from_pandas(
            pd.DataFrame({name: side.column(name).values for name in numbers + categories}), data_definition=definition
        )
        for side in (current, reference)
    ]
    metrics = Report([preset]).run(*sides).dict()["metrics"]
    [counted] = [one for one in metrics if one["metric_name"].startswith("DriftedColumnsCount")]
    return bool(counted["value"]["share"] >= counted["config"]["drift_share"])
