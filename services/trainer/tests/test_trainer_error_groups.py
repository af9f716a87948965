"""Groups of a holdout's rows, told apart by how wrong a model of numbers was: what drift estimates by, before the labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millstream.contracts.package import Condition, ErrorGroup
from millstream.project import Loop, load_project
from millstream.project.drift import Drift
from millstream.runtime.packages import PackageStore
from millstream_trainer.adapters.error_groups import CATEGORIES, ENOUGH, FEWEST, MOST, error_groups
from millstream_trainer.domain.table import Table, category_column, number_column

from .test_trainer_choice import labelled, reference_in, said
from .test_trainer_run import trained

NAMES = ["wind", "quay"]
ROWS = 4_000


@pytest.fixture(scope="session")
def tides_loop(harbour: Path) -> Loop:
    return load_project(harbour).loops["tides"]


@pytest.fixture
def packages(tmp_path: Path) -> PackageStore:
    return PackageStore(str(tmp_path / "packages"))


class Tugs:
    """Tugs whose model errs more in much wind, and at the old quay; a wind in twenty was not measured."""

    def __init__(self, seed: int = 1, rows: int = ROWS) -> None:
        rng = np.random.default_rng(seed)
        wind = rng.uniform(0, 30, rows)
        quays = rng.choice(["old", "new", "far", ""], rows, p=[0.2, 0.4, 0.35, 0.05]).tolist()
        self.answers = rng.normal(60, 10, rows)
        spread = (2 + wind / 5) * np.where([quay == "old" for quay in quays], 2, 1)
        self.losses = (spread * rng.normal(size=rows)) ** 2
        wind[rng.random(rows) < 0.05] = np.nan
        self.holdout = Table(
            questions=np.arange(rows).astype(str).astype(object),
            known_at=np.arange(rows),
            labels=np.zeros(rows),
            columns=(number_column("wind", "input", wind), category_column("quay", "input", quays)),
        )

    def groups(self, names: list[str] = NAMES) -> list[ErrorGroup]:
        return error_groups(self.holdout, names, self.answers, self.losses, 7)


def holds(one: Condition, cell: Any, known: set[str]) -> bool:
    """The contract's words, for one cell."""
    if isinstance(cell, str):
        return cell in one.categories or (one.others and cell not in known)
    if cell != cell:
        return one.others
    return (one.above is None or cell > one.above) and (one.upto is None or cell <= one.upto)


def test_each_row_is_in_one_group_and_the_groups_come_to_the_holdout() -> None:
    tugs = Tugs()
    groups = tugs.groups()
    assert 1 < len(groups) <= MOST
    known = {name for group in groups for one in group.where for name in one.categories}
    assert known == {"old", "new", "far"}
    counts = np.zeros(len(groups))
    cells = {column.name: column.values for column in tugs.holdout.columns} | {"": tugs.answers.astype(np.float32)}
    for row in range(ROWS):
        mine = [
            n for n, group in enumerate(groups) if all(holds(one, cells[one.column][row], known) for one in group.where)
        ]
        assert len(mine) == 1
        counts[mine[0]] += 1
    assert [one.share for one in groups] == pytest.approx((counts / ROWS).tolist())
    assert sum(one.share * one.loss for one in groups) == pytest.approx(float(tugs.losses.mean()))
    assert sum(one.rows for one in groups) == ROWS // 2, "half of the rows says where groups begin, half what they lost"


def test_groups_tell_where_the_model_errs() -> None:
    groups = Tugs().groups()
    worst, best = max(groups, key=lambda one: one.loss), min(groups, key=lambda one: one.loss)
    assert worst.loss > 8 * best.loss
    by = {one.column: one for one in worst.where}
    assert by["quay"].categories == ["old"]
    assert (by["wind"].above or 0) > 10


def test_a_null_and_a_category_that_training_never_saw_have_a_group_too() -> None:
    groups = Tugs().groups()
    for cells in ({"wind": float("nan"), "quay": "old"}, {"wind": 5.0, "quay": "tomorrow's"}):
        found = [
            one
            for one in groups
            if all(holds(each, {**cells, "": 60.0}[each.column], {"old", "new", "far"}) for each in one.where)
        ]
        assert len(found) == 1


def test_the_same_rows_give_the_same_groups_and_few_rows_give_none() -> None:
    assert Tugs().groups() == Tugs().groups()
    assert Tugs(rows=ENOUGH - 1).groups() == []
    assert Tugs(rows=ENOUGH).groups()
    tugs = Tugs()
    tugs.losses[:] = 0.0
    assert tugs.groups() == [], "of a model without an error nothing can be told"


def test_a_model_without_inputs_has_groups_by_its_answer_and_many_categories_are_bounded() -> None:
    assert {one.column for group in Tugs().groups([]) for one in group.where} == {""}
    tugs = Tugs()
    names = [f"q{n % 400}" for n in range(ROWS)]
    crowded = category_column("quay", "input", names)
    tugs.holdout = Table(
        questions=tugs.holdout.questions, known_at=tugs.holdout.known_at, labels=tugs.holdout.labels, columns=(crowded,)
    )
    named = {name for group in tugs.groups(["quay"]) for one in group.where for name in one.categories}
    assert len(named) <= CATEGORIES


def test_where_the_error_is_the_same_everywhere_groups_differ_by_chance_alone() -> None:
    far = 0
    for seed in range(30):
        tugs = Tugs(seed)
        tugs.losses = np.random.default_rng(seed + 100).normal(size=ROWS) ** 2
        mean = float(tugs.losses.mean())
        errors = [(one.loss - mean) / (one.loss_std / np.sqrt(one.rows)) for one in tugs.groups()]
        far += sum(abs(one) > 3 for one in errors)
        assert min(one.rows for one in tugs.groups()) > FEWEST / 3
    assert far < 30 * MOST * 0.02, "squares of so few rows are skewed; honest ones still are about their mean"


def test_a_package_of_a_model_of_numbers_says_where_it_errs(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    data = labelled(ships.dataset(), ships.delay.astype(np.float64))
    asked = Drift(estimate=True)
    loop = said(tides_loop, model={"task": "regression"}, train={"holdout": "30d"}).model_copy(update={"drift": asked})
    result = trained(loop, data, packages)
    assert result.metrics["holdout_rows"] >= ENOUGH
    groups = reference_in(result, packages).error_groups
    assert sum(one.share * one.loss for one in groups) == pytest.approx(result.metrics["squared_error"])
    assert "drift.estimate" not in result.reason
    short = trained(said(loop, model={"task": "regression"}).model_copy(update={"drift": asked}), data, packages)
    assert reference_in(short, packages).error_groups == []
    assert "drift.estimate has nothing to go by: " in short.reason
    assert "write a longer train.holdout" in short.reason
    classes = trained(said(tides_loop, train={"holdout": "30d"}), ships.dataset(), packages)
    assert reference_in(classes, packages).error_groups == [], "answers with chances tell by themselves"
