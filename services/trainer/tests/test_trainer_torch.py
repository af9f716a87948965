"""PyTorch's modules as estimators: ours and the user's own, from rows to a judged package. `make torch` installs it."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed; make torch installs it")

import torch

from millstream.contracts.package import NATIVE_FILE, Native
from millstream.contracts.tasks import Task
from millstream.project import Loop, load_project
from millstream.project.params import OwnParams, TorchParams
from millstream.runtime.packages import PackageStore
from millstream_trainer.adapters.estimators import How, Lesson, estimator
from millstream_trainer.adapters.onnx_graph import OUTPUTS, Asked, assemble
from millstream_trainer.adapters.process_executor import ProcessExecutor
from millstream_trainer.adapters.workplace import Workplace
from millstream_trainer.domain.table import category_column, number_column
from millstream_trainer.errors import RunFailed

from .test_trainer_choice import said
from .test_trainer_estimators import CLASSES, ROWS, Weather, how
from .test_trainer_run import SPEC, trained
from .test_trainer_warm_start import first_and_second

QUICK = {"epochs": 8, "learning_rate": 0.01, "hidden": [16], "batch_size": 128}


@pytest.fixture(scope="module")
def weather() -> Weather:
    return Weather()


@pytest.fixture(scope="session")
def tides_loop(harbour: Path) -> Loop:
    return load_project(harbour).loops["tides"]


@pytest.fixture
def packages(tmp_path: Path) -> PackageStore:
    return PackageStore(str(tmp_path / "packages"))


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    path, threads = list(sys.path), torch.get_num_threads()
    yield
    sys.path[:] = path
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


OWN = """
import torch
from torch import nn

class Wide(nn.Module):
    def __init__(self, inputs, outputs, units):
        super().__init__()
        self.line = nn.Linear(inputs, outputs)
        self.deep = nn.Sequential(nn.Linear(inputs, units), nn.BatchNorm1d(units), nn.SiLU(), nn.Linear(units, outputs))

    def forward(self, columns):
        return self.line(columns) + self.deep(columns)

def build(task, params, seed, inputs, outputs):
    return Wide(inputs, outputs, **params)

def narrow(task, params, seed, inputs, outputs):
    return nn.Linear(inputs - 1, outputs)

def many(task, params, seed, inputs, outputs):
    return nn.Linear(inputs, 7)

def without_sizes(task, params, seed):
    return nn.Linear(4, 1)

class Steep(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.line = nn.Linear(inputs, 1)

    def forward(self, columns):
        return torch.exp(100 * self.line(columns))

def steep(task, params, seed, inputs, outputs):
    return Steep(inputs)

def no_module(task, params, seed, inputs, outputs):
    return "perceptron"

class Stubborn(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.line = nn.Linear(inputs, 1)

    def forward(self, columns):
        if columns.sum() > 0:
            return self.line(columns)
        return -self.line(columns)

def stubborn(task, params, seed, inputs, outputs):
    return Stubborn(inputs)
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("project")
    (project / "tide_modules.py").write_text(OWN)
    return project


PARAMS: dict[str, dict[str, Any]] = {
    "torch": QUICK,
    "tide_modules:build": {"units": 16, "fit": {"epochs": 8, "learning_rate": 0.01, "batch_size": 128}},
}


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("name", PARAMS)
def test_a_module_learns_and_its_graph_says_the_same(weather: Weather, own: Path, name: str, task: Task) -> None:
    target = weather.targets[task]
    fitted = estimator(name, own).fit(Lesson(table=weather.table, target=target), how(name, task, **PARAMS[name]))
    native = fitted.ask(weather.table)
    graph = assemble(fitted.core(), fitted.encoding, weather.inputs, task, ())
    asked = Asked(graph, weather.inputs, OUTPUTS[task])
    said = asked.score(weather.table)
    one = asked.score(weather.table.take(np.array([5])))
    assert one == pytest.approx(said[5:6], rel=1e-5)
    assert b"site-packages" not in graph, "no path of this machine"
    if task is Task.REGRESSION:
        assert np.abs(said - native).max() < 1e-5 * target.std()
        assert np.mean((said - target) ** 2) < 0.5 * np.var(target)
    else:
        assert np.abs(said - (native[:, 1] if task is Task.BINARY else native)).max() < 2e-6
        assert native.sum(axis=1) == pytest.approx(1, abs=1e-6)
        assert np.mean(native.argmax(axis=1) == target) > 0.2 + np.bincount(target).max() / ROWS
    shares = fitted.importance()
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["broken_gauge"] == 0
    assert shares["wind"] > 0.2


@pytest.mark.parametrize("name", PARAMS)
def test_the_same_rows_give_the_same_graph_with_any_number_of_threads(weather: Weather, own: Path, name: str) -> None:
    made = []
    for threads in (1, 2):
        one = replace(how(name, Task.BINARY, **PARAMS[name]), threads=threads)
        torch.rand(threads)  # whatever was drawn before
        fitted = estimator(name, own).fit(Lesson(table=weather.table, target=weather.targets[Task.BINARY]), one)
        made.append((assemble(fitted.core(), fitted.encoding, weather.inputs, Task.BINARY, ()), fitted.native()))
    assert made[0] == made[1]


def test_an_early_stop_keeps_the_epochs_that_helped(weather: Weather) -> None:
    lesson = Lesson(table=weather.table.take(np.arange(600)), target=weather.targets[Task.BINARY][:600])
    check = Lesson(table=weather.table.take(np.arange(1500, 3000)), target=weather.targets[Task.BINARY][1500:])
    heard: list[float] = []
    params = {**QUICK, "epochs": 200, "hidden": [64], "learning_rate": 0.03}
    fitted = estimator("torch", None).fit(
        lesson,
        how("torch", Task.BINARY, **params, early_stopping=4),
        against=check,
        watch=lambda epoch, loss: heard.append(loss),
    )
    assert fitted.rounds is not None
    assert fitted.rounds == int(np.argmin(heard)) + 1
    assert len(heard) == fitted.rounds + 4 < 200
    again = estimator("torch", None).fit(lesson, how("torch", Task.BINARY, **{**params, "epochs": fitted.rounds}))
    assert np.array_equal(again.ask(weather.table), fitted.ask(weather.table))


def test_values_nobody_saw_do_not_run_away(weather: Weather) -> None:
    """A reading a million deviations away is answered as one of ten, and nulls where there were none as the mean."""
    table = weather.table.take(np.arange(2000))
    target = weather.targets[Task.REGRESSION][:2000]
    fitted = estimator("torch", None).fit(Lesson(table=table, target=target), how("torch", Task.REGRESSION, **QUICK))
    graph = assemble(fitted.core(), fitted.encoding, weather.inputs, Task.REGRESSION, ())
    strange = replace(
        table.take(np.arange(3)),
        columns=(
            number_column("wind", "input", np.array([1e9, np.nan, 0])),
            category_column("sky", "input", ["hail", None, "fog"]),
            number_column("pressure", "input", np.array([1013, np.nan, 1013])),
            number_column("broken_gauge", "feature", np.array([np.nan, 1e9, np.nan])),
        ),
    )
    said = Asked(graph, weather.inputs, "value").score(strange)
    assert np.isfinite(said).all()
    assert np.abs(said - target.mean()).max() < 20 * target.std()
    assert said == pytest.approx(fitted.ask(strange), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "params", "says"),
    [
        ("tide_modules:build", {"unit": 3}, r"build\('binary', {'unit': 3}, 7, inputs=7, outputs=1\) raised TypeError"),
        (
            "tide_modules:narrow",
            {},
            "Linear cannot be asked .*it takes float32 of shape .rows, inputs., and there are 7",
        ),
        ("tide_modules:many", {}, r"Linear gives \(2, 7\) for 2 rows; it must give scores of shape \(2, 1\)"),
        (
            "tide_modules:without_sizes",
            {},
            "returned a Linear without fit .*take .task, params, seed, inputs, outputs.",
        ),
        ("tide_modules:no_module", {}, "takes inputs and outputs and returned a str; return a torch.nn.Module"),
        (
            "tide_modules:stubborn",
            {"fit": {"epochs": 1}},
            "Stubborn cannot be exported to ONNX .*tensor operations alone",
        ),
        ("torch", {"learning_rate": 1.0, "hidden": [], "epochs": 3}, None),
    ],
)
def test_a_module_that_does_not_do_says_what_is_wrong(
    weather: Weather, own: Path, name: str, params: dict[str, Any], says: str | None
) -> None:
    lesson = Lesson(table=weather.table, target=weather.targets[Task.BINARY])
    if says is None:  # a line is a network of no layers
        estimator(name, own).fit(lesson, how(name, Task.BINARY, **params)).core()
        return
    with pytest.raises(RunFailed, match=says):
        estimator(name, own).fit(lesson, how(name, Task.BINARY, **params)).core()


def test_a_loss_that_ran_away_fails_the_run_with_what_to_write(weather: Weather, own: Path) -> None:
    lesson = Lesson(table=weather.table, target=weather.targets[Task.REGRESSION])
    asked = how("tide_modules:steep", Task.REGRESSION, fit={"learning_rate": 1.0})
    with pytest.raises(
        RunFailed, match=r"the loss is nan after 1 epochs; write a smaller model.params.fit.learning_rate"
    ):
        estimator("tide_modules:steep", own).fit(lesson, asked)


def test_fit_is_of_modules_alone(weather: Weather, tmp_path: Path) -> None:
    (tmp_path / "tide_trees.py").write_text(
        "from sklearn.ensemble import RandomForestClassifier\n"
        "def build(task, params, seed):\n    return RandomForestClassifier(**params)\n"
    )
    asked = how("tide_trees:build", Task.BINARY, fit={"epochs": 3})
    with pytest.raises(RunFailed, match=r"model.params.fit: .* returned a RandomForestClassifier, which fits itself"):
        estimator("tide_trees:build", tmp_path).fit(
            Lesson(table=weather.table, target=weather.targets[Task.BINARY]), asked
        )


def test_a_run_with_weights_early_stop_calibration_and_search(
    tides_loop: Loop, ships: Any, packages: PackageStore
) -> None:
    model = {
        "estimator": "torch",
        "params": {**QUICK, "early_stopping": 3},
        "class_weight": "balanced",
        "calibration": "sigmoid",
        "search": {"trials": 3},
    }
    result = trained(said(tides_loop, model=model), ships.dataset(), packages)
    assert result.passed, result.reason
    assert result.metrics["onnx_max_difference"] < 1e-5
    assert result.metrics["search_trials"] == 3
    again = trained(said(tides_loop, model=model), ships.dataset(), packages, threads=2)
    assert again.model.sha256 == result.model.sha256
    assert packages.manifest(result.model).lineage.libraries["torch"] == torch.__version__.split("+")[0]


def test_a_warm_start_moves_the_champions_weights(tides_loop: Loop, ships: Any, packages: PackageStore) -> None:
    params = {**QUICK, "warm_start": True, "warm_epochs": 2}
    loop = said(tides_loop, model={"estimator": "torch", "params": params})
    _first, second = first_and_second(loop, ships.dataset(), packages)
    manifest = packages.manifest(second.model)
    assert manifest.notes == ["warm start: 2 epochs on top of the 8 of version 1"]
    assert set(manifest.files) == {"model.onnx", "reference.json", "native.json", "native.safetensors"}
    native = msgspec.json.decode(packages.file(second.model, manifest, NATIVE_FILE), type=Native)
    assert native.rounds == 10
    assert second.metrics["onnx_max_difference"] < 1e-5
    short = said(tides_loop, model={"estimator": "torch", "params": {**QUICK, "epochs": 2}})
    _, scratch = first_and_second(short, ships.dataset(), packages)
    assert second.metrics["log_loss"] < scratch.metrics["log_loss"], "two epochs alone know less than two on top"
    wider = said(tides_loop, model={"estimator": "torch", "params": {**params, "hidden": [24]}})
    _, other = first_and_second(loop, ships.dataset(), packages, second=wider)
    assert (
        "from scratch, not a warm start: the module is another one: module.0.bias of version 1 is (16,), and (24,) now"
        in (other.reason)
    )


def test_a_warm_start_of_a_module_of_ones_own(
    tides_loop: Loop, ships: Any, packages: PackageStore, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(own))
    fit = {"epochs": 6, "learning_rate": 0.01, "warm_start": True, "warm_epochs": 20, "early_stopping": 2}
    model = {"estimator": "tide_modules:build", "params": {"units": 8, "fit": fit}}
    loop = said(tides_loop, model=model, train={"holdout": "10d"})
    first, second = first_and_second(loop, ships.dataset(), packages)
    assert "there is no champion yet" in first.reason
    assert "epochs on top of the" in second.reason
    before, after = (
        msgspec.json.decode(packages.file(r.model, packages.manifest(r.model), NATIVE_FILE), type=Native).rounds
        for r in (first, second)
    )
    assert before < after <= before + 20
    assert second.metrics["onnx_max_difference"] < 1e-5


@pytest.mark.timeout(300)
async def test_it_is_fitted_in_a_training_process_and_ended_by_its_deadline(
    harbour: Path, ships: Any, tmp_path: Path, fill_lake: Any
) -> None:
    project = shutil.copytree(harbour, tmp_path / "harbour")
    tides = project / "loops" / "tides.yaml"
    text = tides.read_text()
    model = "model: {params: {rounds: 40, min_data_in_leaf: 40}}"
    assert model in text
    tides.write_text(text.replace(model, "model: {estimator: torch, params: {epochs: 8, learning_rate: 0.01}}"))
    lake = str(tmp_path / "lake")
    positions = fill_lake(lake, harbour, ships)
    place = Workplace(
        project=str(project),
        lake=lake,
        packages=str(tmp_path / "packages"),
        mlflow=None,
        data=str(tmp_path / "data"),
        threads=2,
        lake_patience=10.0,
        mlflow_patience=5.0,
    )
    heard: list[str | None] = []
    executor = ProcessExecutor(
        place=place, timeout=200, untracked=lambda loop: None, phase=lambda loop, phase: heard.append(phase)
    )
    spec = msgspec.structs.replace(SPEC, positions=positions)
    result = await executor.run(spec)
    assert result.passed, result.reason
    assert result.metrics["onnx_max_difference"] < 1e-5
    assert {"dataset", "fit", "export", "score", "package"} <= set(heard)
    await executor.close()
    tides.write_text(text.replace(model, "model: {estimator: torch, params: {epochs: 10000, max_epochs: 10000}}"))
    slow = ProcessExecutor(place=place, timeout=25, untracked=lambda loop: None)
    run = asyncio.create_task(slow.run(msgspec.structs.replace(spec, run="r2")))
    with pytest.raises(RunFailed, match="took longer than 25 s and was ended"):
        await run
    assert slow.pids == []
    await slow.close()


def test_parameters_are_read_as_the_file_says_them() -> None:
    assert how("torch", Task.BINARY, hidden=[]).params == TorchParams(hidden=())
    asked = how("tide_modules:build", Task.BINARY, **PARAMS["tide_modules:build"])
    assert isinstance(asked, How)
    assert isinstance(asked.params, OwnParams)
    assert asked.params.given() == {"units": 16}
    assert asked.params.fit is not None
    assert asked.params.fit.epochs == 8
    assert CLASSES[Task.BINARY] == 2
