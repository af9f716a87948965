"""Streams whose truth is known: what each question's chance is, when the concept changes, what the producers and labels do.

Five columns: `x0`, `x1`, `x2` and `kind` make the chance of a positive, `noise` makes nothing. About 500 questions a day, and
each label comes 2 to 24 hours after its question.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from models import Floats, sigmoid
from numpy.typing import NDArray

from millstream.contracts.times import DAY, HOUR, from_rfc3339
from millstream_backtest.past import NEVER, Past
from millstream_drift.domain.events import Label
from millstream_trainer.domain.dataset import Dataset
from millstream_trainer.domain.table import Table, category_column, number_column

LOOP = "generated"
QUESTIONS, DAYS, SEED = 60_000, 120, 2024
BEGAN = from_rfc3339("2024-01-01T00:00:00Z")
NUMBERS = ("x0", "x1", "x2", "noise")
KINDS = np.array(["red", "green", "blue", "grey"])
NEWS = 20
"""Days for which a change is news: an alarm after that is a false one."""
Inputs = dict[str, Floats]


@dataclass(frozen=True, kw_only=True, eq=False)
class Generated:
    """One stream. Rows stand in the order of their questions."""

    name: str
    days: Floats
    """When each question is asked, in days since the stream began."""
    inputs: Inputs
    """As the model is given them: a broken producer's values are NaN."""
    kinds: NDArray[np.str_]
    chance: Floats
    """Of a positive: what the oracle answers."""
    positive: NDArray[np.bool_]
    label_days: Floats
    """When each label is known; infinite where it never is."""
    changes: tuple[tuple[float, float], ...] = ()
    """Days from which to which the concept changes: the same day twice where it does so at once."""
    broken: tuple[float, float] | None = None
    """Days in which a producer sends nulls."""

    def in_truth(self, days: float) -> bool:
        """Whether an alarm on that day has something to tell."""
        return any(first <= days <= last + NEWS for first, last in self.changes)

    def past(self) -> Past:
        """As a backtest takes it."""
        times = micros(self.days)
        known = np.where(np.isfinite(self.label_days), micros(np.nan_to_num(self.label_days, posinf=0)), NEVER)
        names = [f"q{n:05}" for n in range(len(times))]
        questions = np.array(names, dtype=object)
        columns = [number_column(name, "input", values) for name, values in self.inputs.items()]
        table = Table(
            questions=questions,
            known_at=times,
            labels=self.positive.astype(np.int8),
            columns=(*columns, category_column("kind", "input", self.kinds.tolist())),
        )
        order = np.argsort(known, kind="stable")
        labels = [
            Label(int(known[n]), f"label-{names[n]}", names[n], bool(self.positive[n]))
            for n in order.tolist()
            if known[n] < NEVER
        ]
        given = {name: [None if np.isnan(v) else v for v in values.tolist()] for name, values in self.inputs.items()}
        return Past(
            loop=LOOP,
            dataset=Dataset(table=table, views={}, left_out={}),
            keys=names,
            entities=[f"customer-{n % 997}" for n in range(len(names))],
            inputs={**given, "kind": self.kinds.tolist()},
            features={},
            label_known_at=known,
            labels=labels,
        )


def micros(days: Floats) -> NDArray[np.int64]:
    """Stream time of days since the stream began."""
    found: NDArray[np.int64] = BEGAN + (days * DAY).astype(np.int64)
    return found


@dataclass(kw_only=True)
class _Draft:
    """What a stream is made of before its truth is drawn."""

    days: Floats
    inputs: Inputs
    other: Floats
    """Share of the other concept, per question."""
    changes: tuple[tuple[float, float], ...] = ()
    silent: tuple[float, float] | None = None
    """Days whose questions never get a label."""
    broken: tuple[float, float] | None = None
    moved: dict[str, Floats] = field(default_factory=dict)
    """What is added to a column."""


def _step(draft: _Draft, day: float, until: float = DAYS) -> None:
    draft.other[(draft.days >= day) & (draft.days < until)] = 1.0
    draft.changes += ((day, day),) if until == DAYS else ((day, day), (until, until))


def _abrupt(draft: _Draft) -> None:
    _step(draft, 60)
    draft.moved = {name: draft.other * by for name, by in (("x0", 0.8), ("x1", -0.8), ("x2", 0.8))}


def _gradual(draft: _Draft) -> None:
    draft.other = np.clip((draft.days - 45) / 30, 0, 1)
    draft.changes = ((45, 75),)
    draft.moved = {"x0": draft.other * 0.8, "x1": draft.other * -0.8}


def _recurring(draft: _Draft) -> None:
    _step(draft, 45, 80)
    draft.moved = {"x0": draft.other * 0.8, "x1": draft.other * -0.8}


def _seasonal(draft: _Draft) -> None:
    week, day = np.sin(2 * np.pi * draft.days / 7), np.sin(2 * np.pi * draft.days)
    draft.moved = {"x0": 0.5 * week + 0.5 * day, "x1": 0.5 * day - 0.5 * week, "x2": 0.5 * week}


def _labels_only(draft: _Draft) -> None:
    _step(draft, 60)


def _harmless(draft: _Draft) -> None:
    draft.moved = {"noise": np.where(draft.days >= 60, 2.0, 0.0)}


def _broken(draft: _Draft) -> None:
    draft.broken = (62, 67)


def _silent(draft: _Draft) -> None:
    draft.silent = (60, 70)


STREAMS: dict[str, Callable[[_Draft], None]] = {
    "abrupt": _abrupt,
    "gradual": _gradual,
    "recurring": _recurring,
    "seasonal": _seasonal,
    "labels_only": _labels_only,
    "harmless_shift": _harmless,
    "broken_producer": _broken,
    "label_outage": _silent,
}


def generated(name: str, questions: int = QUESTIONS, seed: int = SEED) -> Generated:
    """The stream of that name; the same one each time."""
    rng = np.random.default_rng([list(STREAMS).index(name), seed])
    days = np.sort(rng.uniform(0, DAYS, questions))
    draft = _Draft(
        days=days,
        inputs={column: rng.normal(0, 1, questions) for column in NUMBERS},
        other=np.zeros(questions),
    )
    kinds = rng.choice(KINDS, questions)
    STREAMS[name](draft)
    inputs = {column: values + draft.moved.get(column, 0.0) for column, values in draft.inputs.items()}
    # Nobody can tell which of the concepts a question follows: its chance is that of their mixture.
    chance = (1 - draft.other) * concept_a(inputs, kinds) + draft.other * concept_b(inputs, kinds)
    positive = rng.random(questions) < chance
    told = days + rng.uniform(2 * HOUR, 24 * HOUR, questions) / DAY
    if draft.silent is not None:
        told[_within(days, draft.silent)] = np.inf
    if draft.broken is not None:
        inputs["x0"] = np.where(_within(days, draft.broken), np.nan, inputs["x0"])
    return Generated(
        name=name,
        days=days,
        inputs=inputs,
        kinds=kinds,
        chance=chance,
        positive=positive,
        label_days=told,
        changes=draft.changes,
        broken=draft.broken,
    )


def concept_a(inputs: Inputs, kinds: NDArray[np.str_]) -> Floats:
    return sigmoid(-0.5 + 1.2 * inputs["x0"] - 0.8 * inputs["x1"] + 0.4 * inputs["x2"] + _of(kinds, 0.6))


def concept_b(inputs: Inputs, kinds: NDArray[np.str_]) -> Floats:
    return sigmoid(-0.5 - 0.6 * inputs["x0"] - 0.8 * inputs["x1"] + 0.4 * inputs["x2"] + _of(kinds, -0.6))


def _of(kinds: NDArray[np.str_], size: float) -> Floats:
    effects = size * np.array([1.0, 1 / 3, -1 / 3, -1.0])
    found: Floats = (kinds[:, None] == KINDS[None, :]) @ effects
    return found


def _within(days: Floats, span: tuple[float, float]) -> NDArray[np.bool_]:
    return (days >= span[0]) & (days < span[1])
