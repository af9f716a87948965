"""What a loop's file says of its model: task and label, parameters of the estimator, histories that compete."""

from __future__ import annotations

import pytest

from millstream.contracts.times import DAY
from millstream.project import load_project

from .test_project_load import FILES, Write, complaints, write

__all__ = ["write"]


@pytest.mark.parametrize(
    ("task", "value", "says"),
    [
        ("regression", "arr_delay", None),
        ("regression", "arr_delay - 15", None),
        ("multiclass", "origin", None),
        ("binary", "on_time", None),
        (
            "regression",
            "arr_delay >= 15",
            "9: label.value: 'arr_delay >= 15' is true or false, and task regression learns a number;",
        ),
        (
            "regression",
            "origin",
            "9: label.value: 'origin' is not a number, which task regression learns; name a number,",
        ),
        (
            "multiclass",
            "arr_delay",
            "9: label.value: 'arr_delay' is not a text, which task multiclass learns; name a field",
        ),
        (
            "multiclass",
            "arr_delay - 15",
            "9: label.value: 'arr_delay - 15' is a number, and task multiclass learns a text;",
        ),
    ],
)
def test_a_label_is_what_its_task_learns(write: Write, task: str, value: str, says: str | None) -> None:
    metric = "squared_error" if task == "regression" else "log_loss"
    text = FILES["loops/flight-delay.yaml"]
    for right, wrong in (
        ("task: binary", f"task: {task}"),
        ("value: arr_delay >= 15", f"value: {value}"),
        ("metric: log_loss", f"metric: {metric}"),
    ):
        assert right in text
        text = text.replace(right, wrong, 1)
    project = write({"loops/flight-delay.yaml": text})
    if says is None:
        assert load_project(project).loops["flight-delay"].model.task == task
    else:
        (said,) = complaints(project)
        assert says in said


def test_parameters_are_those_of_the_estimator(write: Write) -> None:
    text = FILES["loops/flight-delay.yaml"].replace(
        "model: {estimator: lightgbm, task: binary, params: {num_leaves: 31}}",
        "model: {estimator: xgboost, params: {max_depth: 3}, settings: [{rounds: 50}, {max_depth: 4}]}",
    )
    model = load_project(write({"loops/flight-delay.yaml": text})).loops["flight-delay"].model
    assert [(p.rounds, p.max_depth) for p in model.tried()] == [(50, 3), (200, 4)]


def test_histories_that_compete_are_read_in_their_order(write: Write) -> None:
    text = FILES["loops/flight-delay.yaml"].replace("history: all", "history: [all, 60d, since-change]")
    train = load_project(write({"loops/flight-delay.yaml": text})).loops["flight-delay"].train
    assert (train.history, train.longest) == (("all", 60 * DAY, "since-change"), None)
    text = FILES["loops/flight-delay.yaml"].replace("history: all", "history: [30d, 60d]")
    assert load_project(write({"loops/flight-delay.yaml": text})).loops["flight-delay"].train.longest == 60 * DAY
