"""After a broken week: what is compared on, and what a run says of the rows that it leaves out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from millstream.contracts.times import DAY, from_datetime, to_datetime
from millstream.project import Loop, load_project
from millstream.runtime.packages import PackageStore
from millstream_trainer.domain.candidates import folds
from millstream_trainer.errors import RunFailed

from .test_trainer_choice import said
from .test_trainer_run import SPEC, trained


@pytest.fixture(scope="session")
def tides_loop(harbour: Path) -> Loop:
    return load_project(harbour).loops["tides"]


@pytest.fixture
def packages(tmp_path: Path) -> PackageStore:
    return PackageStore(str(tmp_path / "packages"))


def test_a_slice_is_as_long_in_whole_time_as_the_holdout(ships: Any) -> None:
    """Ten broken days right before the cut, three more days after it that were broken twice."""
    table = ships.dataset().table
    cut = int(table.known_at[0]) + 40 * DAY
    spells = [(cut - 10 * DAY, cut - 1), (cut - 14 * DAY, cut - 12 * DAY - 1), (cut - 13 * DAY, cut - 11 * DAY - 1)]
    before, _ = table.without(spells).split(cut)
    newest, older = folds(before, cut, 3 * DAY, 2, spells)
    assert int(newest.check.known_at.min()) >= cut - 16 * DAY
    assert len(newest.learn) == len(table.split(cut - 16 * DAY)[0]), "a day before them and two behind"
    assert len(older.learn) == len(table.split(cut - 19 * DAY)[0])
    assert min(len(newest.check), len(older.check)) > 0


def test_after_a_broken_slice_candidates_are_compared_on_the_rows_before_it(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    """Else the run after a broken week fails, and its reason asks for another holdout."""
    loop = said(tides_loop, train={"history": ["all", "50d"], "holdout": "14d"})
    at = from_datetime(SPEC.at)
    week = to_datetime(at - 28 * DAY), to_datetime(at - 14 * DAY)
    result = trained(loop, ships.dataset(), packages, msgspec.structs.replace(SPEC, broken=(week,)))
    assert result.passed, result.reason
    assert "validation_loss_50d" in result.metrics
    whole = trained(loop, ships.dataset(), packages, msgspec.structs.replace(SPEC, run="r2"))
    assert result.metrics["validation_rows"] == pytest.approx(whole.metrics["validation_rows"], rel=0.2)


def test_a_run_that_fails_for_want_of_rows_names_those_that_were_left_out(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    week = to_datetime(from_datetime(SPEC.at) - 14 * DAY), SPEC.at
    with pytest.raises(
        RunFailed,
        match=r"0 in the holdout; .* asked while inputs were broken are left out \(2013-02-16 00:00 to 2013-03-02 00:00\)",
    ):
        trained(tides_loop, ships.dataset(), packages, msgspec.structs.replace(SPEC, broken=(week,)))


def test_labels_that_say_something_else_are_in_the_runs_reason(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    data = replace(ships.dataset(), left_out={"label_contradicting": 173})
    result = trained(tides_loop, data, packages)
    assert "; 173 labels say something else than the first of their question, which is learned" in result.reason


def test_spells_are_told_with_their_times_and_of_many_the_last(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    """A spell is what lay between the first broken window and the first whole one, however many there were."""
    days = [(datetime(2013, 1, day, tzinfo=UTC), datetime(2013, 1, day, 12, tzinfo=UTC)) for day in (10, 12, 14, 16)]
    data = replace(ships.dataset(), left_out={"broken_labels": 7})
    few = trained(tides_loop, data, packages, msgspec.structs.replace(SPEC, broken_labels=tuple(days[:1])))
    assert "are left out (2013-01-10 00:00 to 2013-01-10 12:00)" in few.reason
    many = trained(tides_loop, data, packages, msgspec.structs.replace(SPEC, run="r2", broken_labels=tuple(days)))
    assert "are left out (4 times, the last: 2013-01-12 00:00 to 2013-01-12 12:00, 2013-01-14 00:00" in many.reason
