"""Every estimator learns every task, and its graph says what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millstream.contracts.tasks import SMALLEST, Task, row_loss
from millstream.project.model import Model
from millstream_trainer.adapters.calibration import calibrated
from millstream_trainer.adapters.estimators import How, Lesson, estimator
from millstream_trainer.adapters.onnx_graph import OUTPUTS, Asked, assemble
from millstream_trainer.domain.answers import Answers, knowing_nothing
from millstream_trainer.domain.correction import Correction, Unweighted
from millstream_trainer.domain.table import Table, category_column, number_column
from millstream_trainer.errors import RunFailed

ROWS = 3000
CLASSES = {Task.BINARY: 2, Task.MULTICLASS: 3, Task.REGRESSION: 0}


class Weather:
    """Days with a pressure, a wind that is sometimes not measured, a sky, and a gauge that never worked."""

    def __init__(self) -> None:
        rng = np.random.default_rng(11)
        wind = rng.normal(size=ROWS)
        pressure = rng.normal(1013, 12, ROWS)
        sky: list[str | None] = ["clear", "cloud", "fog", None]
        skies = [sky[i] for i in rng.integers(0, 4, ROWS)]
        signal = wind + (1013 - pressure) / 12 + np.array([s == "fog" for s in skies]) * 1.5 + rng.normal(0, 0.7, ROWS)
        wind[rng.random(ROWS) < 0.1] = np.nan
        self.targets: dict[Task, Any] = {
            Task.BINARY: (signal > 0).astype(np.int64),
            Task.MULTICLASS: np.digitize(signal, [-1, 1]),
            Task.REGRESSION: 3 + 10 * signal,
        }
        ids = np.empty(ROWS, dtype=object)
        ids[:] = [str(i) for i in range(ROWS)]
        self.table = Table(
            questions=ids,
            known_at=np.arange(ROWS),
            labels=np.zeros(ROWS),
            columns=(
                number_column("wind", "input", wind),
                category_column("sky", "input", skies),
                number_column("pressure", "input", pressure),
                number_column("broken_gauge", "feature", np.full(ROWS, np.nan)),
            ),
        )
        self.inputs = [column.declared() for column in self.table.columns]


@pytest.fixture(scope="module")
def weather() -> Weather:
    return Weather()


def how(name: str, task: Task, **params: Any) -> How:
    model = Model.model_validate({"estimator": name, "task": task.value, "params": params})
    return How(task=task, classes=CLASSES[task], params=model.params, seed=7, threads=1)


PARAMS: dict[str, dict[str, Any]] = {
    "lightgbm": {"rounds": 30},
    "xgboost": {"rounds": 30},
    "linear": {},
    "forest": {"n_estimators": 20, "max_depth": 8},
}


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("name", PARAMS)
def test_an_estimator_learns_and_its_graph_says_the_same(weather: Weather, name: str, task: Task) -> None:
    target = weather.targets[task]
    fitted = estimator(name, None).fit(Lesson(table=weather.table, target=target), how(name, task, **PARAMS[name]))
    native = fitted.ask(weather.table)
    graph = assemble(fitted.core(), fitted.encoding, weather.inputs, task, ())
    said = Asked(graph, weather.inputs, OUTPUTS[task]).score(weather.table)
    assert said.dtype == np.float32
    if task is Task.REGRESSION:
        assert said.shape == (ROWS,)
        assert np.abs(said - native).max() < 1e-4 * target.std()
        assert np.mean((said - target) ** 2) < 0.5 * np.var(target)
        return
    assert np.abs(said - (native[:, 1] if task is Task.BINARY else native)).max() < 2e-6
    assert native.sum(axis=1) == pytest.approx(1)
    hits = np.mean(native.argmax(axis=1) == target)
    assert hits > 0.2 + np.bincount(target).max() / ROWS
    shares = fitted.importance()
    assert sum(shares.values()) == pytest.approx(1)
    assert set(shares) == {"wind", "sky", "pressure", "broken_gauge"}
    assert shares["broken_gauge"] == 0
    assert shares["wind"] > 0.2


@pytest.mark.parametrize("name", PARAMS)
def test_the_same_rows_give_the_same_graph_with_any_number_of_threads(weather: Weather, name: str) -> None:
    task = Task.BINARY
    graphs = []
    for threads in (1, 2):
        one = how(name, task, **PARAMS[name])
        one = How(task=one.task, classes=2, params=one.params, seed=one.seed, threads=threads)
        fitted = estimator(name, None).fit(Lesson(table=weather.table, target=weather.targets[task]), one)
        graphs.append(assemble(fitted.core(), fitted.encoding, weather.inputs, task, ()))
    assert graphs[0] == graphs[1]


@pytest.mark.parametrize("task", [Task.BINARY, Task.MULTICLASS])
@pytest.mark.parametrize("kind", ["unweighted", "sigmoid", "isotonic"])
def test_a_graph_corrects_probabilities_as_the_arithmetic_says(weather: Weather, kind: str, task: Task) -> None:
    target, classes = weather.targets[task], CLASSES[task]
    fitted = estimator("lightgbm", None).fit(
        Lesson(table=weather.table, target=target), how("lightgbm", task, rounds=30)
    )
    raw = fitted.ask(weather.table)
    correction: Correction
    if kind == "unweighted":
        correction = Unweighted(weights=np.arange(1.0, classes + 1))
    else:
        correction = calibrated(kind, raw**2 / (raw**2).sum(axis=1, keepdims=True), target)
    wanted = correction.apply(raw)
    assert wanted.sum(axis=1) == pytest.approx(1)
    assert np.abs(wanted - raw).max() > 0.01, "it does something"
    graph = assemble(fitted.core(), fitted.encoding, weather.inputs, task, (correction,))
    said = Asked(graph, weather.inputs, OUTPUTS[task]).score(weather.table)
    assert np.abs(said - (wanted[:, 1] if task is Task.BINARY else wanted)).max() < 2e-5


@pytest.mark.parametrize("kind", ["sigmoid", "isotonic"])
def test_calibration_mends_answers_that_are_too_sure(kind: str) -> None:
    rng = np.random.default_rng(1)
    truth = rng.uniform(0.05, 0.95, 20_000)
    came = (rng.random(20_000) < truth).astype(np.int64)
    sure = truth**3 / (truth**3 + (1 - truth) ** 3)
    both = np.column_stack([1 - sure, sure])
    mended = calibrated(kind, both[:10_000], came[:10_000]).apply(both[10_000:])[:, 1]
    assert np.abs(sure[10_000:] - truth[10_000:]).mean() > 0.1
    assert np.abs(mended - truth[10_000:]).mean() < 0.02


@pytest.mark.parametrize("name", ["lightgbm", "xgboost"])
def test_an_early_stop_keeps_the_rounds_that_helped(weather: Weather, name: str) -> None:
    lesson = Lesson(table=weather.table.take(np.arange(1500)), target=weather.targets[Task.BINARY][:1500])
    check = Lesson(table=weather.table.take(np.arange(1500, 3000)), target=weather.targets[Task.BINARY][1500:])
    stopping = how(name, Task.BINARY, rounds=500, early_stopping=10, learning_rate=0.3)
    fitted = estimator(name, None).fit(lesson, stopping, against=check)
    assert fitted.rounds is not None
    assert 5 < fitted.rounds < 200
    exactly = how(name, Task.BINARY, rounds=fitted.rounds, learning_rate=0.3)
    again = estimator(name, None).fit(lesson, exactly)
    assert np.array_equal(again.ask(weather.table), fitted.ask(weather.table))


OWN = """
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.linear_model import LogisticRegression
from sklearn.base import BaseEstimator, ClassifierMixin

def build(task, params, seed):
    trees = GradientBoostingClassifier(random_state=seed, **params)
    return make_pipeline(SimpleImputer(keep_empty_features=True), trees)

def no_estimator(task, params, seed):
    return "forest"

class Strange(ClassifierMixin, BaseEstimator):
    def fit(self, X, y): return self
    def predict_proba(self, X): raise NotImplementedError

def strange(task, params, seed):
    return Strange()

def picky(task, params, seed):
    return LogisticRegression()
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("project")
    (project / "weather_models.py").write_text(OWN)
    (project / "weather_broken.py").write_text("raise RuntimeError('no licence')")
    return project


@pytest.fixture(autouse=True)
def _sys_path() -> Any:
    import sys

    before = list(sys.path)
    yield
    sys.path[:] = before


def test_an_estimator_of_ones_own_comes_from_the_projects_folder(weather: Weather, own: Path) -> None:
    name = "weather_models:build"
    asked = how(name, Task.BINARY, n_estimators=20)
    fitted = estimator(name, own).fit(Lesson(table=weather.table, target=weather.targets[Task.BINARY]), asked)
    graph = assemble(fitted.core(), fitted.encoding, weather.inputs, Task.BINARY, ())
    said = Asked(graph, weather.inputs, "probability").score(weather.table)
    assert np.abs(said - fitted.ask(weather.table)[:, 1]).max() < 1e-5
    assert fitted.importance()["wind"] > 0.2


@pytest.mark.parametrize(
    ("name", "params", "says"),
    [
        ("weather_model:build", {}, "weather_model:build cannot be imported.*looked in"),
        ("weather_broken:build", {}, "RuntimeError: no licence"),
        ("weather_models:biuld", {}, "has no function 'biuld'; it has build, .*picky"),
        ("weather_models:build", {"max_itr": 3}, "build.'binary', {'max_itr': 3}, 7. raised TypeError"),
        ("weather_models:no_estimator", {}, "returned a str without fit and predict_proba"),
        ("weather_models:picky", {}, "LogisticRegression does not fit: Input X contains NaN"),
        ("weather_models:strange", {}, "Strange cannot be exported to ONNX"),
    ],
)
def test_an_estimator_that_does_not_do_says_what_is_wrong(
    weather: Weather, own: Path, name: str, params: dict[str, Any], says: str
) -> None:
    lesson = Lesson(table=weather.table, target=weather.targets[Task.BINARY])
    with pytest.raises(RunFailed, match=says):
        estimator(name, own).fit(lesson, how(name, Task.BINARY, **params)).core()


def test_losses_of_many_rows_are_those_of_the_contract() -> None:
    rng = np.random.default_rng(2)
    chances = rng.dirichlet([1, 1, 1], 50)
    chances[0], classes = [1, 0, 0], ("fog", "rain", "sun")
    labels = np.array([*rng.choice(["fog", "rain", "sun"], 48), "hail", "sun"], dtype=object)
    many = Answers(task=Task.MULTICLASS, values=chances, classes=classes).losses(labels)
    one = [
        row_loss(Task.MULTICLASS, dict(zip(classes, p, strict=True)), y) for p, y in zip(chances, labels, strict=True)
    ]
    assert many == pytest.approx(one)
    assert many[48] == pytest.approx(-np.log(SMALLEST))
    p, y = rng.random(50), rng.integers(0, 2, 50)
    p[:2] = 0, 1
    many = Answers(task=Task.BINARY, values=p).losses(y)
    assert many == pytest.approx(
        [row_loss(Task.BINARY, {"probability": a}, bool(b)) for a, b in zip(p, y, strict=True)]
    )
    many = Answers(task=Task.REGRESSION, values=p).losses(y)
    assert many == pytest.approx([row_loss(Task.REGRESSION, {"value": a}, int(b)) for a, b in zip(p, y, strict=True)])


def test_who_knows_nothing_says_the_shares_of_the_classes() -> None:
    learned = np.array(["sun", "sun", "rain", "sun"], dtype=object)
    said = knowing_nothing(Task.MULTICLASS, learned, 2)
    assert (said.classes, said.values.tolist()) == (("rain", "sun"), [[0.25, 0.75], [0.25, 0.75]])
    assert knowing_nothing(Task.REGRESSION, np.array([1.0, 5.0]), 3).values.tolist() == [3, 3, 3]
