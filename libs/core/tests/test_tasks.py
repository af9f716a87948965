"""Losses of the three tasks."""

from __future__ import annotations

import math

import pytest

from millstream.contracts.tasks import Task, is_answer, row_loss


def test_binary_is_log_loss_of_what_came_true() -> None:
    assert row_loss(Task.BINARY, {"probability": 0.8}, True) == pytest.approx(-math.log(0.8))
    assert row_loss(Task.BINARY, {"probability": 0.8}, False) == pytest.approx(-math.log(0.2))


def test_multiclass_is_log_loss_of_the_class_that_came_true() -> None:
    output = {"rain": 0.5, "sun": 0.3, "snow": 0.2}
    assert row_loss(Task.MULTICLASS, output, "sun") == pytest.approx(-math.log(0.3))


def test_regression_is_squared_error() -> None:
    assert row_loss(Task.REGRESSION, {"value": 3.0}, 5) == 4.0


def test_one_sure_mistake_and_a_class_nobody_knew_cost_sixteen_and_not_infinity() -> None:
    assert row_loss(Task.BINARY, {"probability": 1.0}, False) == pytest.approx(16.118, abs=1e-3)
    assert row_loss(Task.MULTICLASS, {"rain": 1.0}, "hail") == pytest.approx(16.118, abs=1e-3)


def test_an_answer_of_another_task_has_no_loss() -> None:
    with pytest.raises(KeyError):
        row_loss(Task.REGRESSION, {"probability": 0.5}, 1.0)


@pytest.mark.parametrize(
    ("task", "output", "honest"),
    [
        (Task.BINARY, {"probability": 0.0}, True),
        (Task.BINARY, {"probability": math.nan}, False),
        (Task.BINARY, {"probability": 1.01}, False),
        (Task.BINARY, {}, False),
        (Task.MULTICLASS, {"rain": 0.5, "sun": 0.5}, True),
        (Task.MULTICLASS, {"rain": 0.5, "sun": math.nan}, False),
        (Task.MULTICLASS, {}, False),
        (Task.REGRESSION, {"value": -7.5}, True),
        (Task.REGRESSION, {"value": math.inf}, False),
    ],
)
def test_an_answer_is_finite_and_a_probability_within_its_bounds(
    task: Task, output: dict[str, float], honest: bool
) -> None:
    assert is_answer(task, output) is honest
