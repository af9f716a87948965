"""Losses as the contract has them, and scores against scikit-learn's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss as their_log_loss
from sklearn.metrics import roc_auc_score

from millstream.contracts.tasks import Task, row_loss
from millstream_cli.scores import SCORES, auc, mean_loss, score

chances = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5, 0.9, 1.0])
rows = st.lists(st.tuples(st.booleans(), chances), min_size=2, max_size=60)
STATES = ("ok", "worn", "failing")


@settings(deadline=None)
@given(rows)
def test_scores_are_those_of_scikit_learn(found: list[tuple[bool, float]]) -> None:
    truth = np.array([float(t) for t, _ in found])
    p = np.array([q for _, q in found])
    clipped = np.clip(p, 1e-7, 1 - 1e-7)
    theirs = their_log_loss(truth, clipped, labels=[0, 1])
    assert mean_loss(Task.BINARY, {"probability": p}, truth) == pytest.approx(theirs, rel=1e-9)
    if len(set(truth)) == 2:
        assert auc(truth, p) == pytest.approx(roc_auc_score(truth, p), rel=1e-12)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([*STATES, "on fire"]), chances, chances, chances), min_size=1, max_size=40))
def test_the_loss_of_classes_is_the_contracts(found: list[tuple[str, float, float, float]]) -> None:
    truth = np.array([state for state, *_ in found], dtype=object)
    outputs = dict(zip(STATES, np.array([said for _, *said in found]).T, strict=True))
    theirs = [row_loss(Task.MULTICLASS, dict(zip(STATES, said, strict=True)), state) for state, *said in found]
    assert mean_loss(Task.MULTICLASS, outputs, truth) == pytest.approx(np.mean(theirs), rel=1e-12)


def test_a_class_that_one_of_the_models_did_not_know_had_no_chance_there() -> None:
    outputs = {"ok": np.array([0.5, 0.9]), "failing": np.array([0.5, np.nan])}
    truth = np.array(["failing", "failing"], dtype=object)
    expected = (math.log(2) - math.log(1e-7)) / 2
    assert mean_loss(Task.MULTICLASS, outputs, truth) == pytest.approx(expected)
    assert score(Task.MULTICLASS, outputs, np.array(["ok", "ok"], dtype=object)) == 1.0
    assert score(Task.MULTICLASS, outputs, truth) == 0.0


def test_numbers_are_scored_by_how_far_they_are_off() -> None:
    truth, outputs = np.array([3.0, 0.0]), {"value": np.array([1.0, 1.0])}
    assert mean_loss(Task.REGRESSION, outputs, truth) == 2.5
    assert score(Task.REGRESSION, outputs, truth) == 1.5


@pytest.mark.parametrize("task", Task)
def test_without_rows_there_is_no_score(task: Task) -> None:
    assert task in SCORES
    assert math.isnan(mean_loss(task, {}, np.array([])))
    assert math.isnan(score(task, {}, np.array([])))


def test_one_outcome_alone_has_no_auc() -> None:
    assert math.isnan(auc(np.ones(3), np.array([0.1, 0.2, 0.3])))
