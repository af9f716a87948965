"""What a run learns with: tasks, histories, settings, calibration and search, from rows to a judged package."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from millstream.contracts.package import MODEL_FILE, REFERENCE_FILE, Manifest, Reference
from millstream.contracts.tasks import Task
from millstream.contracts.times import DAY, to_datetime
from millstream.project import Loop, load_project
from millstream.project.gate import Gate
from millstream.project.model import Model
from millstream.project.train import Train
from millstream.runtime.packages import PackageStore
from millstream_trainer.adapters import search
from millstream_trainer.domain.candidates import candidates, folds, has_earned
from millstream_trainer.domain.dataset import Dataset
from millstream_trainer.domain.run import RunResult
from millstream_trainer.domain.table import category_column
from millstream_trainer.errors import RunFailed

from .test_trainer_run import SPEC, trained

QUICK = {"rounds": 20, "min_data_in_leaf": 40}


@pytest.fixture(scope="session")
def tides_loop(harbour: Path) -> Loop:
    return load_project(harbour).loops["tides"]


@pytest.fixture
def packages(tmp_path: Path) -> PackageStore:
    return PackageStore(str(tmp_path / "packages"))


def said(loop: Loop, *, model: dict[str, Any] | None = None, train: dict[str, Any] | None = None, **gate: Any) -> Loop:
    """The loop with other words in its file."""
    return loop.model_copy(
        update={
            "model": Model.model_validate({"params": QUICK, **(model or {})}),
            "train": Train.model_validate({"holdout": "14d", **(train or {})}),
            "gate": Gate.model_validate(gate),
        }
    )


def labelled(data: Dataset, labels: Any) -> Dataset:
    return replace(data, table=replace(data.table, labels=labels))


def manifest_of(result: RunResult, packages: PackageStore) -> Manifest:
    return packages.manifest(result.model)


def reference_in(result: RunResult, packages: PackageStore) -> Reference:
    raw = packages.file(result.model, packages.manifest(result.model), REFERENCE_FILE)
    return msgspec.json.decode(raw, type=Reference)


def test_a_run_learns_numbers(tides_loop: Loop, ships: Any, packages: PackageStore) -> None:
    data = labelled(ships.dataset(), ships.delay.astype(np.float64))
    loop = said(tides_loop, model={"task": "regression"})
    result = trained(loop, data, packages)
    assert result.passed, result.reason
    assert result.gate[-1].name == "better_than_mean"
    assert result.metrics["r2"] > 0.5
    assert result.metrics["rmse"] == pytest.approx(np.sqrt(result.metrics["squared_error"]))
    manifest, reference = manifest_of(result, packages), reference_in(result, packages)
    assert (manifest.task, manifest.output, manifest.classes) == ("regression", "value", [])
    assert (reference.prediction.name, reference.holdout_loss) == ("value", result.metrics["squared_error"])
    again = trained(loop, data, packages, msgspec.structs.replace(SPEC, run="r2", version="2", champion=result.model))
    assert again.metrics["champion_squared_error"] == pytest.approx(result.metrics["squared_error"])
    assert not again.passed, "it is the champion again"


def test_a_run_learns_classes(tides_loop: Loop, ships: Any, packages: PackageStore) -> None:
    names = np.array(["early", "late", "on time"], dtype=object)
    labels = names[np.where(ships.delay >= 10, 1, np.where(ships.delay < -10, 0, 2))]
    loop = said(tides_loop, model={"task": "multiclass"}, slices=["pier"])
    result = trained(loop, labelled(ships.dataset(), labels), packages)
    assert result.passed, result.reason
    assert result.metrics["accuracy"] > 0.6
    manifest, reference = manifest_of(result, packages), reference_in(result, packages)
    assert (manifest.output, manifest.classes) == ("probabilities", ["early", "late", "on time"])
    assert (reference.prediction.name, reference.prediction.type) == ("class", "category")
    assert {one.value for one in reference.slices} == {"north", "east", "west"}
    assert sum(one.rows for one in reference.slices) <= manifest.lineage.holdout_rows


def test_a_class_that_only_the_holdout_has_costs_what_no_chance_costs(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    data = ships.dataset()
    labels = np.array(["calm", "storm"], dtype=object)[(ships.delay >= 10).astype(int)]
    labels[-1] = "tsunami"
    result = trained(said(tides_loop, model={"task": "multiclass"}), labelled(data, labels), packages)
    assert manifest_of(result, packages).classes == ["calm", "storm"]
    assert result.passed, result.reason


def test_a_class_missing_in_the_validation_slice_or_in_a_short_history_is_no_end(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    labels = np.array(["calm", "storm"], dtype=object)[(ships.delay >= 10).astype(int)]
    labels[100:400:3] = "hurricane"
    model = {"task": "multiclass", "params": {**QUICK, "early_stopping": 5}}
    loop = said(tides_loop, model=model, train={"history": ["40d", "all"]})
    result = trained(loop, labelled(ships.dataset(), labels), packages)
    assert "40d did not compete: no row of class hurricane among the" in result.reason
    assert result.rows == 3000 - result.metrics["holdout_rows"]


def test_the_champion_of_another_task_is_no_measure(tides_loop: Loop, ships: Any, packages: PackageStore) -> None:
    data = ships.dataset()
    champion = trained(said(tides_loop), data, packages).model
    spec = msgspec.structs.replace(SPEC, run="r2", version="2", champion=champion)
    numbers = labelled(data, ships.delay.astype(np.float64))
    result = trained(said(tides_loop, model={"task": "regression"}), numbers, packages, spec)
    assert not result.passed
    assert "it answers task binary, the loop is regression now; give the loop another name" in result.reason


def after_a_change(ships: Any, day: float) -> Dataset:
    """From `day` on everything is the other way round."""
    data = ships.dataset()
    turned = ships.expected >= day
    return labelled(data, np.where(turned, 1 - data.table.labels, data.table.labels).astype(np.int8))


def test_the_history_since_a_change_wins_when_the_old_one_misleads(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    data = after_a_change(ships, 25)
    spec = msgspec.structs.replace(SPEC, changed_at=to_datetime(int(data.table.known_at[0]) + 25 * DAY))
    loop = said(tides_loop, train={"history": ["all", "50d", "since-change"], "holdout": "7d", "folds": 2})
    result = trained(loop, data, packages, spec)
    assert result.passed, result.reason
    losses = {name: result.metrics[f"validation_loss_{name}"] for name in ("all", "50d", "since-change")}
    assert min(losses, key=lambda name: losses[name]) == "since-change"
    assert "since-change won" in result.reason
    assert result.rows == int(
        ((ships.expected >= 25) & (data.table.known_at < spec.at.timestamp() * 1e6 - 7 * DAY)).sum()
    )
    (note,) = manifest_of(result, packages).notes
    assert note.startswith("since-change won on")


def test_a_shorter_history_has_to_earn_it_beyond_luck() -> None:
    rng = np.random.default_rng(3)
    others = rng.exponential(0.5, 1_000)
    noise = rng.normal(0, 0.1, 1_000)
    noise -= noise.mean()
    assert not has_earned(others, others)
    assert not has_earned(others + noise - 0.005, others), "a standard error is 0.1 / √1000 = 0.0032"
    assert has_earned(others + noise - 0.008, others)


def test_without_a_change_the_other_histories_compete(tides_loop: Loop, ships: Any, packages: PackageStore) -> None:
    result = trained(said(tides_loop, train={"history": ["since-change", "all", "45d"]}), ships.dataset(), packages)
    assert {m for m in result.metrics if m.startswith("validation_loss")} == {
        "validation_loss_all",
        "validation_loss_45d",
    }
    alone = trained(said(tides_loop, train={"history": "since-change"}), ships.dataset(), packages)
    assert alone.rows == len(ships.delay) - int(alone.metrics["holdout_rows"]), "nobody noticed a change: all of it"


def test_the_better_settings_win_and_nothing_of_the_holdout_is_looked_at(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    loop = said(tides_loop, model={"settings": [{"rounds": 1}, {"rounds": 40}]})
    result = trained(loop, ships.dataset(), packages)
    assert result.metrics["validation_loss_all/2"] < result.metrics["validation_loss_all/1"]
    data = ships.dataset()
    late = data.table.known_at >= (SPEC.at.timestamp() - 14 * 86400) * 1e6
    flipped = labelled(data, np.where(late, 1 - data.table.labels, data.table.labels))
    other = trained(loop, flipped, packages, msgspec.structs.replace(SPEC, run="r2"))
    assert other.metrics["validation_loss_all/2"] == result.metrics["validation_loss_all/2"]


def test_folds_roll_back_in_time_and_never_look_ahead(ships: Any) -> None:
    table = ships.dataset().table
    cut = int(table.known_at[0]) + 40 * DAY
    before, _ = table.split(cut)
    found = folds(before, cut, 5 * DAY, 3)
    assert [len(fold.check) > 0 for fold in found] == [True] * 3
    for newer, older in itertools.pairwise(found):
        assert older.check.known_at.max() < newer.check.known_at.min()
    for fold in found:
        assert fold.learn.known_at.max() < fold.check.known_at.min()


def test_histories_that_hold_the_same_rows_are_one_candidate() -> None:
    found = candidates([("all", None), ("90d", 5), ("30d", 50)], 2, first=10)
    assert [c.name for c in found] == ["all/1", "all/2", "30d/1", "30d/2"]


def test_an_early_stop_is_refitted_with_its_rounds(tides_loop: Loop, ships: Any, packages: PackageStore) -> None:
    params = {"rounds": 400, "early_stopping": 10, "learning_rate": 0.2, "min_data_in_leaf": 40}
    result = trained(said(tides_loop, model={"params": params}), ships.dataset(), packages)
    assert result.passed, result.reason
    assert result.metrics["onnx_bytes"] < 200_000, "400 trees would be a megabyte"


@pytest.mark.parametrize("kind", ["sigmoid", "isotonic"])
def test_calibration_is_in_the_graph_and_in_the_notes(
    tides_loop: Loop, ships: Any, packages: PackageStore, kind: str
) -> None:
    plain = trained(said(tides_loop), ships.dataset(), packages)
    result = trained(said(tides_loop, model={"calibration": kind}), ships.dataset(), packages)
    assert result.metrics["onnx_max_difference"] < 1e-4
    assert result.metrics["log_loss"] != plain.metrics["log_loss"]
    assert any(note.startswith(f"{kind} calibration fitted on") for note in manifest_of(result, packages).notes)


def test_balanced_classes_are_corrected_back_to_their_shares(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    rare = labelled(ships.dataset(), (ships.delay >= 22).astype(np.int8))
    result = trained(said(tides_loop, model={"class_weight": "balanced"}), rare, packages)
    assert result.passed, result.reason
    assert result.metrics["base_rate"] < 0.2
    assert result.metrics["calibration_error"] < 0.08


def test_a_search_finds_the_same_again_and_is_never_worse_than_where_it_began(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    loop = said(tides_loop, model={"search": {"trials": 8}})
    result = trained(loop, ships.dataset(), packages)
    assert result.metrics["search_trials"] == 8
    assert result.metrics["search_ended_by_time"] == 0
    assert result.metrics["validation_loss_search"] <= result.metrics["validation_loss_all"]
    assert "search: 8 of 8 trials" in result.reason
    again = trained(loop, ships.dataset(), packages, msgspec.structs.replace(SPEC, attempt=2), threads=2)
    graphs = [packages.file(r.model, manifest_of(r, packages), MODEL_FILE) for r in (result, again)]
    assert graphs[0] == graphs[1]
    assert manifest_of(again, packages).files == manifest_of(result, packages).files


def test_a_search_that_time_ends_says_so(
    tides_loop: Loop, ships: Any, packages: PackageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 100_000, 400))
    monkeypatch.setattr(search.time, "monotonic", lambda: float(next(clock)))
    result = trained(said(tides_loop, model={"search": {"trials": 50}}), ships.dataset(), packages)
    assert result.metrics["search_ended_by_time"] == 1
    assert "ended by its time limit of 600 s: a repeat may find another model" in result.reason


@pytest.mark.parametrize("estimator", ["xgboost", "linear", "forest"])
def test_other_estimators_are_searched_too(
    tides_loop: Loop, ships: Any, packages: PackageStore, estimator: str
) -> None:
    params = {"forest": {"n_estimators": 10}, "xgboost": {"rounds": 10}}.get(estimator, {})
    model = {"estimator": estimator, "params": params, "search": {"trials": 3}}
    result = trained(said(tides_loop, model=model), ships.dataset(), packages)
    assert result.passed, result.reason
    assert set(search.SPACES) == {"lightgbm", "xgboost", "linear", "forest", "torch"}


def test_a_refit_learns_the_holdout_too_and_says_whose_numbers_these_are(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    twin = trained(said(tides_loop), ships.dataset(), packages)
    spec = msgspec.structs.replace(SPEC, attempt=2)
    result = trained(said(tides_loop, train={"refit": True}), ships.dataset(), packages, spec)
    manifest = manifest_of(result, packages)
    assert (result.rows, manifest.lineage.train_rows) == (3000, 3000)
    assert result.metrics["log_loss"] == twin.metrics["log_loss"]
    assert "its numbers are of a twin without the holdout" in manifest.notes[0]
    assert packages.file(result.model, manifest, MODEL_FILE) != packages.file(
        twin.model, manifest_of(twin, packages), MODEL_FILE
    )
    spec = msgspec.structs.replace(SPEC, run="r2", champion=twin.model)
    rejected = trained(said(tides_loop, train={"refit": True}), ships.dataset(), packages, spec)
    assert not rejected.passed
    assert manifest_of(rejected, packages).notes == [], "a rejected model is not fitted again"


def test_a_challenger_that_gives_one_pier_away_is_rejected(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    """It knows the fog, and no longer knows that ships for the north pier are late."""
    data = ships.dataset()
    no_fog = replace(data.table.columns[0], values=np.full(3000, np.nan, dtype=np.float32))
    champion = trained(
        said(tides_loop), replace(data, table=replace(data.table, columns=(no_fog, *data.table.columns[1:]))), packages
    ).model
    before, _ = data.table.split(int((SPEC.at - timedelta(days=14)).timestamp() * 1e6))
    pier = list(data.table.column("pier").values)
    pier[: len(before)] = ["east" if p == "north" else p for p in pier[: len(before)]]
    hidden = category_column("pier", "input", pier)
    blind = replace(data, table=replace(data.table, columns=(*data.table.columns[:2], hidden)))
    spec = msgspec.structs.replace(SPEC, run="r2", version="2", champion=champion)
    result = trained(said(tides_loop, slices=["pier"], tolerance=1.0, slice_tolerance=0.0), blind, packages, spec)
    by_name = {check.name: check for check in result.gate}
    assert by_name["slices"].champion == 0.0
    assert "pier=north" in by_name["slices"].detail
    tolerant = trained(said(tides_loop, slices=["pier"], tolerance=1.0, slice_tolerance=1.0), blind, packages, spec)
    assert {check.name: check.passed for check in tolerant.gate}["slices"]


def test_a_column_that_lost_all_its_values_and_a_strange_category_are_learned_around(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    data = ships.dataset()
    empty = replace(data.table.columns[1], values=np.full(3000, np.nan, dtype=np.float32))
    nothing = category_column("pier", "input", [None] * 3000)
    void = replace(data, table=replace(data.table, columns=(data.table.columns[0], empty, nothing)))
    for estimator in ("lightgbm", "xgboost", "linear", "forest"):
        model = {"estimator": estimator, "params": {} if estimator in ("linear", "forest") else {"rounds": 10}}
        result = trained(said(tides_loop, model=model), void, packages)
        assert result.passed, f"{estimator}: {result.reason}"


def test_labels_that_contradict_each_other_are_rejected_by_the_gate(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    coin = np.random.default_rng(3).integers(0, 2, 3000).astype(np.int8)
    result = trained(said(tides_loop, model={"params": {"rounds": 100}}), labelled(ships.dataset(), coin), packages)
    assert not result.passed
    assert "better_than_base_rate" in result.reason


def test_one_class_in_the_holdout_is_rejected_with_a_count(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    data = ships.dataset()
    late = data.table.known_at >= (SPEC.at.timestamp() - 14 * 86400) * 1e6
    quiet = labelled(data, np.where(late, 0, data.table.labels).astype(np.int8))
    result = trained(said(tides_loop), quiet, packages)
    assert not result.passed
    assert "both_classes: 0 of" in result.reason
    assert "auc" not in result.metrics


def test_a_constant_number_and_too_many_classes_fail_the_run(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    constant = labelled(ships.dataset(), np.full(3000, 4.5))
    with pytest.raises(RunFailed, match=r"label 4\.5: there is nothing to tell apart"):
        trained(said(tides_loop, model={"task": "regression"}), constant, packages)
    ids = np.array([f"visit-{i}" for i in range(3000)], dtype=object)
    with pytest.raises(RunFailed, match="at most 100 can be classes"):
        trained(said(tides_loop, model={"task": "multiclass"}), labelled(ships.dataset(), ids), packages)


def test_a_validation_slice_too_small_to_compare_on_says_what_to_write(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    loop = said(tides_loop, model={"calibration": "sigmoid"}, train={"holdout": "14d", "folds": 4})
    with pytest.raises(RunFailed, match=r"shorter train\.holdout or fewer train\.folds"):
        trained(loop, ships.dataset(), packages)


def test_an_estimator_of_ones_own_is_learned_with_and_packed(
    tides_loop: Loop, ships: Any, packages: PackageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "harbour_models.py").write_text(
        "from sklearn.impute import SimpleImputer\n"
        "from sklearn.neural_network import MLPClassifier\n"
        "from sklearn.pipeline import make_pipeline\n"
        "from sklearn.preprocessing import StandardScaler\n"
        "def build(task, params, seed):\n"
        "    net = MLPClassifier((8,), random_state=seed, max_iter=params['max_iter'])\n"
        "    return make_pipeline(SimpleImputer(), StandardScaler(), net)\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    loop = said(tides_loop, model={"estimator": "harbour_models:build", "params": {"max_iter": 60}})
    result = trained(loop, ships.dataset(), packages)
    assert result.passed, result.reason
    assert result.metrics["auc"] > 0.8
    assert Task(manifest_of(result, packages).task) is Task.BINARY
