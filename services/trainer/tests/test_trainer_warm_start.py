"""A model that goes on from the champion: when it may, what it becomes, and what is said when it may not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from millstream.contracts.package import MODEL_FILE, NATIVE_FILE, Native
from millstream.contracts.times import DAY, from_datetime, to_datetime
from millstream.project import Loop, load_project
from millstream.runtime.packages import PackageStore
from millstream_trainer.adapters.onnx_graph import Asked
from millstream_trainer.domain.dataset import Dataset
from millstream_trainer.domain.run import RunResult, RunSpec
from millstream_trainer.domain.table import category_column

from .test_trainer_choice import labelled, said
from .test_trainer_run import SPEC, trained

WARM = {
    "lightgbm": {"rounds": 30, "min_data_in_leaf": 40, "warm_start": True, "warm_rounds": 10},
    "xgboost": {"rounds": 30, "warm_start": True, "warm_rounds": 10},
}


@pytest.fixture(scope="session")
def tides_loop(harbour: Path) -> Loop:
    return load_project(harbour).loops["tides"]


@pytest.fixture
def packages(tmp_path: Path) -> PackageStore:
    return PackageStore(str(tmp_path / "packages"))


def until(data: Dataset, day: float) -> Dataset:
    """What was known on that day."""
    first, _ = data.table.split(START + int(day * DAY))
    return replace(data, table=first)


START = from_datetime(SPEC.at) - 60 * DAY
"""Of the ships' time, nearly: their first comes then."""


def on(day: float, champion: RunResult | None = None, run: str = "r1", version: str = "1") -> RunSpec:
    return msgspec.structs.replace(
        SPEC, at=to_datetime(START + int(day * DAY)), champion=champion and champion.model, run=run, version=version
    )


def first_and_second(
    loop: Loop,
    data: Dataset,
    packages: PackageStore,
    *,
    second: Loop | None = None,
    days: tuple[float, float] = (40, 60),
) -> tuple[RunResult, RunResult]:
    """A champion of one day, and who is trained against it on another."""
    first = trained(loop, until(data, days[0]), packages, on(days[0]))
    return first, trained(second or loop, until(data, days[1]), packages, on(days[1], first, "r2", "2"))


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("name", WARM)
def test_a_warm_start_adds_trees_to_the_champions(
    tides_loop: Loop, ships: Any, packages: PackageStore, name: str, task: str
) -> None:
    data = ships.dataset()
    if task == "multiclass":
        data = labelled(data, np.array(["calm", "late", "lost"], dtype=object)[np.digitize(ships.delay, [0, 15])])
    elif task == "regression":
        data = labelled(data, ships.delay.astype(np.float64))
    loop = said(tides_loop, model={"estimator": name, "task": task, "params": WARM[name]})
    first, second = first_and_second(loop, data, packages)
    assert "from scratch, not a warm start: there is no champion yet" in first.reason
    assert "warm start: 10 rounds on top of the 30 of version 1" in second.reason
    manifest = packages.manifest(second.model)
    assert manifest.notes == ["warm start: 10 rounds on top of the 30 of version 1"]
    native = msgspec.json.decode(packages.file(second.model, manifest, NATIVE_FILE), type=Native)
    assert native.rounds == 40
    holdout = from_datetime(on(60).at) - 14 * DAY
    assert holdout - DAY < from_datetime(native.until) < holdout, "the newest row before the holdout"
    assert second.metrics["onnx_max_difference"] < 1e-5
    asked = until(data, 60).table
    answers = []
    for result in (first, second):
        one = packages.manifest(result.model)
        answers.append(Asked(packages.file(result.model, one, MODEL_FILE), one.inputs, one.output).score(asked))
    moved = np.abs(answers[1] - answers[0]).mean() / answers[0].std()
    assert 0.001 < moved < 0.5, "it is the champion, and it has learned"
    alone = said(tides_loop, model={"estimator": name, "task": task, "params": {**WARM[name], "rounds": 10}})
    scratch = trained(alone, until(data, 60), packages, on(60, run="r3", version="3"))
    worse = "squared_error" if task == "regression" else "log_loss"
    assert second.metrics[worse] < scratch.metrics[worse], "ten trees alone know less than ten on top"


@pytest.mark.parametrize("name", WARM)
def test_the_same_warm_start_gives_the_same_package(
    tides_loop: Loop, ships: Any, packages: PackageStore, name: str
) -> None:
    loop = said(tides_loop, model={"estimator": name, "params": WARM[name]})
    first, second = first_and_second(loop, ships.dataset(), packages)
    again = trained(loop, until(ships.dataset(), 60), packages, on(60, first, "r2", "2"), threads=2)
    assert again.model.sha256 == second.model.sha256


def test_a_loop_that_asks_for_none_keeps_no_native_model(tides_loop: Loop, ships: Any, packages: PackageStore) -> None:
    cold = said(tides_loop, model={"params": {"rounds": 30, "min_data_in_leaf": 40}})
    loop = said(tides_loop, model={"params": WARM["lightgbm"]})
    first, second = first_and_second(cold, ships.dataset(), packages, second=loop)
    assert set(packages.manifest(first.model).files) == {"model.onnx", "reference.json"}
    assert "version 1 was made without warm_start, and its package holds nothing to go on from" in second.reason
    assert set(packages.manifest(second.model).files) == {"model.onnx", "reference.json", "native.json", "native.txt"}


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (
            {"estimator": "xgboost", "params": WARM["xgboost"]},
            "estimator of version 1 is 'lightgbm', and 'xgboost' now",
        ),
        ({"class_weight": "balanced"}, "class_weight of version 1 is 'none', and 'balanced' now"),
        (
            {"params": {**WARM["lightgbm"], "max_rounds": 40, "warm_rounds": 10, "rounds": 25}},
            None,
        ),
        (
            {"params": {**WARM["lightgbm"], "max_rounds": 39, "warm_rounds": 10, "rounds": 25}},
            "version 1 has 30 rounds, 10 more would pass max_rounds: 39",
        ),
    ],
)
def test_a_champion_that_does_not_fit_is_left_alone_and_said_so(
    tides_loop: Loop, ships: Any, packages: PackageStore, model: dict[str, Any], says: str | None
) -> None:
    loop = said(tides_loop, model={"params": WARM["lightgbm"]})
    other = said(tides_loop, model={"params": WARM["lightgbm"], **model})
    _, second = first_and_second(loop, ships.dataset(), packages, second=other)
    if says is None:
        assert "warm start: 10 rounds on top of the 30 of version 1" in second.reason
    else:
        assert f"from scratch, not a warm start: {says}" in second.reason


def test_views_inputs_and_classes_have_to_be_the_same(tides_loop: Loop, ships: Any, packages: PackageStore) -> None:
    loop = said(tides_loop, model={"params": WARM["lightgbm"]})
    data = ships.dataset()
    first = trained(loop, until(data, 40), packages, on(40))
    second = on(60, first, "r2", "2")
    moved = trained(loop, replace(until(data, 60), views={"pier_arrivals": "abd"}), packages, second)
    assert "the views that version 1 learned from have changed: pier_arrivals" in moved.reason
    fewer = replace(data, table=replace(data.table, columns=data.table.columns[:2]))
    assert "version 1 has other inputs" in trained(loop, until(fewer, 60), packages, second).reason
    many = said(tides_loop, model={"task": "multiclass", "params": WARM["lightgbm"]})
    labels = np.array(["calm", "late"], dtype=object)[(ships.delay >= 10).astype(int)]
    first = trained(many, until(labelled(data, labels), 40), packages, on(40))
    labels[2900::3] = labels[100:1500:3] = "lost"
    more = trained(many, until(labelled(data, labels), 60), packages, on(60, first, "r2", "2"))
    assert "classes of version 1 is 'calm, late', and 'calm, late, lost' now" in more.reason


def test_what_the_champion_was_told_does_not_judge_its_successor(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    """Ten days later the holdout begins with four days that a champion has learned who was fitted again on everything."""
    loop = said(tides_loop, model={"params": WARM["lightgbm"]}, train={"refit": True}, tolerance=0.5)
    first, second = first_and_second(loop, ships.dataset(), packages, days=(40, 50))
    assert "refit on all" in first.reason
    assert "version 1 has learned rows up to" in second.reason
    assert "it would be asked what it was told" in second.reason
    _, third = first_and_second(loop, ships.dataset(), packages, days=(40, 55))
    assert "warm start: 10 rounds on top of the 30" in third.reason


def test_where_candidates_are_compared_the_slice_must_be_news_to_the_champion_too(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    settings = [{"warm_start": False}, {}]
    loop = said(tides_loop, model={"params": WARM["lightgbm"], "settings": settings}, train={"holdout": "10d"})
    first, second = first_and_second(loop, ships.dataset(), packages, days=(40, 55))
    assert set(k for k in first.metrics if k.startswith("validation_loss")) == {"validation_loss_all/1"}
    assert {k for k in second.metrics if k.startswith("validation_loss")} == {
        "validation_loss_all/1",
        "validation_loss_all/2",
    }
    assert "won on" in second.reason
    _, third = first_and_second(loop, ships.dataset(), packages, days=(40, 49))
    assert "from scratch, not a warm start: version 1 has learned rows up to" in third.reason
    assert "validation_loss_all/2" not in third.metrics, "it would be its twin"


@pytest.mark.parametrize("name", WARM)
def test_an_early_stop_counts_the_trees_that_are_added(
    tides_loop: Loop, ships: Any, packages: PackageStore, name: str
) -> None:
    params = {**WARM[name], "warm_rounds": 300, "early_stopping": 5, "learning_rate": 0.3}
    loop = said(tides_loop, model={"estimator": name, "params": params}, train={"holdout": "10d"})
    first, second = first_and_second(loop, ships.dataset(), packages)
    before, after = (
        msgspec.json.decode(packages.file(r.model, packages.manifest(r.model), NATIVE_FILE), type=Native).rounds
        for r in (first, second)
    )
    assert before <= 30
    assert before < after < before + 300
    assert f"warm start: {after - before} rounds on top of the {before} of version 1" in second.reason


def test_a_category_that_came_up_since_is_none_to_a_warm_start(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    data = ships.dataset()
    piers = list(data.table.column("pier").values)
    later = [pier if i < 2100 else {"east": "south"}.get(pier, pier) for i, pier in enumerate(piers)]
    columns = (*data.table.columns[:2], category_column("pier", "input", [pier or None for pier in later]))
    data = replace(data, table=replace(data.table, columns=columns))
    loop = said(tides_loop, model={"params": WARM["lightgbm"]})
    _, second = first_and_second(loop, data, packages)
    assert second.metrics["onnx_max_difference"] < 1e-6
    native = msgspec.json.decode(packages.file(second.model, packages.manifest(second.model), NATIVE_FILE), type=Native)
    assert native.categories == {"pier": ["east", "north", "west"]}


def test_a_champion_whose_native_model_was_changed_is_no_start(
    tides_loop: Loop, ships: Any, packages: PackageStore, tmp_path: Path
) -> None:
    loop = said(tides_loop, model={"params": WARM["lightgbm"]})
    first = trained(loop, until(ships.dataset(), 40), packages, on(40))
    (changed,) = tmp_path.rglob("native.txt")
    changed.write_text(changed.read_text() + " ")
    second = trained(loop, until(ships.dataset(), 60), packages, on(60, first, "r2", "2"))
    assert "from scratch, not a warm start: BadPackage: native.txt has sha256" in second.reason
