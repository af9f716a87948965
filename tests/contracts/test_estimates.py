"""What trainer puts into a package, drift estimates by: performance before the labels, judged where the truth is known.

A factory forecasts its power use. `hard` moves its days towards high load and towards plant D; whether the model errs more
there is up to the story.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from millstream.contracts.package import ErrorGroup
from millstream_drift.domain.error_groups import ANSWER, Expected, expected
from millstream_drift.domain.events import Cell
from millstream_trainer.adapters.error_groups import error_groups
from millstream_trainer.domain.table import Table, category_column, number_column

Floats = npt.NDArray[np.float64]
HOLDOUT, WINDOW = 4_000, 2_000
DROP = 0.05
"""`drift.performance.drop`, as it is by default."""


@dataclass(frozen=True, kw_only=True)
class Days:
    """Questions with their answers, and how far off each will turn out."""

    load: Floats
    plant: list[str]
    humidity: Floats
    answers: Floats
    errors: Floats

    @property
    def table(self) -> Table:
        rows = len(self.errors)
        load = np.where(np.arange(rows) % 17 == 0, np.nan, self.load)
        columns = (
            number_column("load", "input", load),
            category_column("plant", "input", self.plant),
            number_column("humidity", "input", self.humidity),
        )
        ids = np.arange(rows).astype(str).astype(object)
        return Table(questions=ids, known_at=np.arange(rows), labels=self.answers + self.errors, columns=columns)

    @property
    def cells(self) -> dict[str, list[Cell]]:
        """As drift reads them out of a prediction."""
        load, plant, humidity = (column.values for column in self.table.columns)
        return {
            "load": [None if one != one else float(one) for one in load],
            "plant": list(plant),
            "humidity": [float(one) for one in humidity],
            ANSWER: [float(one) for one in self.answers],
        }

    @property
    def loss(self) -> float:
        """What the labels will show."""
        return float((self.errors**2).mean())


def days(rng: np.random.Generator, rows: int, hard: float, *, grows: bool, tails: bool = False) -> Days:
    """`grows`: the error grows with the load, and is larger at plant D. `tails`: large errors are frequent, as a t of 5."""
    load = rng.beta(2 + 3 * hard, 5 - 2 * hard, rows)
    plant = rng.choice(list("ABCD"), rows, p=[0.3, 0.3 - 0.1 * hard, 0.3 - 0.1 * hard, 0.1 + 0.2 * hard])
    spread = (1 + 3 * load**2) * np.where(plant == "D", 1.6, 1.0) if grows else np.full(rows, 1.5)
    noise = rng.standard_t(5, rows) / np.sqrt(5 / 3) if tails else rng.normal(size=rows)
    return Days(
        load=load,
        plant=[str(one) for one in plant],
        humidity=rng.normal(size=rows),
        answers=10 * load + np.where(plant == "D", 2, 0),
        errors=spread * noise,
    )


def shipped(holdout: Days) -> list[ErrorGroup]:
    """Trainer's groups as they come out of the package."""
    table = holdout.table
    groups = error_groups(table, [one.name for one in table.columns], holdout.answers, holdout.errors**2, 0)
    return msgspec.json.decode(msgspec.json.encode(groups), type=list[ErrorGroup])


@dataclass(frozen=True, kw_only=True)
class Story:
    """One model and one window of it."""

    holdout: float
    found: Expected
    truth: float

    @property
    def alarms(self) -> bool:
        return self.found.loss >= self.holdout * (1 + DROP) and self.found.loss - self.holdout > 2 * self.found.error

    @property
    def covers(self) -> bool:
        return self.found.low <= self.truth <= self.found.high


def stories(hard: float, *, grows: bool, tails: bool = False, many: int = 30) -> list[Story]:
    found = []
    for seed in range(many):
        rng = np.random.default_rng(seed)
        holdout = days(rng, HOLDOUT, 0.0, grows=grows, tails=tails)
        window = days(rng, WINDOW, hard, grows=grows, tails=tails)
        estimate = expected(shipped(holdout), window.cells, HOLDOUT)
        found.append(Story(holdout=holdout.loss, found=estimate, truth=window.loss))
    return found


@pytest.mark.parametrize("tails", [False, True])
def test_where_the_error_grows_with_an_input_the_estimate_follows_the_truth(tails: bool) -> None:
    told = stories(0.25, grows=True, tails=tails)
    assert np.mean([one.truth / one.holdout - 1 for one in told]) == pytest.approx(0.43, abs=0.05)
    assert np.mean([one.found.loss / one.truth for one in told]) == pytest.approx(1.0, abs=0.08)
    assert np.mean([one.covers for one in told]) >= 0.8
    assert all(one.alarms for one in told)


def test_far_from_the_holdout_it_alarms_and_says_less_than_the_truth() -> None:
    """Twice the error, in a corner where the holdout has few rows: a group knows its mean and not where in it a row lies."""
    told = stories(0.5, grows=True)
    assert all(one.alarms for one in told)
    ratio = np.mean([(one.found.loss - one.holdout) / (one.truth - one.holdout) for one in told])
    assert 0.65 < ratio < 1.0


@pytest.mark.parametrize("tails", [False, True])
@pytest.mark.parametrize(("hard", "grows"), [(0.0, True), (0.5, False), (1.0, False)])
def test_where_questions_move_and_the_error_does_not_nothing_is_alarmed(hard: float, grows: bool, tails: bool) -> None:
    told = stories(hard, grows=grows, tails=tails)
    assert sum(one.alarms for one in told) <= 2, "two standard errors: one window in forty"
    assert np.mean([one.covers for one in told]) >= (0.8 if tails else 0.88), (
        "squares of long tails have no normal mean"
    )


def test_where_the_world_changes_and_its_questions_do_not_the_estimate_sees_nothing() -> None:
    rng = np.random.default_rng(5)
    groups = shipped(days(rng, HOLDOUT, 0.0, grows=True))
    window = days(rng, WINDOW, 0.0, grows=True)
    changed = replace(window, errors=3 * window.errors)
    found = expected(groups, changed.cells, HOLDOUT)
    assert found == expected(groups, window.cells, HOLDOUT)
    assert found.low < window.loss < found.high
    assert changed.loss > 2 * found.high, "that takes labels, as the docs say"
