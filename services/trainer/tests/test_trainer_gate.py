"""The gate fails closed, and says by how much."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from millstream.contracts.tasks import Task
from millstream_trainer.domain.answers import Answers
from millstream_trainer.domain.gate import Evidence, judge, verdict
from millstream_trainer.domain.metrics import auc, calibration_error
from millstream_trainer.domain.slices import Slice

rng = np.random.default_rng(3)
TRUTH = rng.uniform(0.05, 0.95, 1000)
LABELS = (rng.random(1000) < TRUTH).astype(np.int8)


def said(probabilities: NDArray[Any]) -> Answers:
    return Answers(task=Task.BINARY, values=probabilities)


GOOD = Evidence(
    labels=LABELS,
    challenger=said(TRUTH),
    native=said(TRUTH),
    champion=None,
    champion_error=None,
    knowing_nothing=said(np.full(1000, 0.5)),
    package_bytes=1000,
    milliseconds=0.1,
    tolerance=0.0,
)


def failed(evidence: Evidence) -> list[str]:
    return [check.name for check in judge(evidence) if not check.passed]


def test_honest_probabilities_beat_the_base_rate() -> None:
    passed, reason = verdict(judge(GOOD))
    assert passed
    assert reason.startswith("log loss 0.5")


def test_noise_does_not_beat_the_base_rate() -> None:
    noise = rng.uniform(0.05, 0.95, 1000)
    assert failed(replace(GOOD, challenger=said(noise), native=said(noise))) == ["calibration", "better_than_base_rate"]


def test_a_champion_that_is_as_good_stays_unless_the_loop_tolerates_it() -> None:
    assert failed(replace(GOOD, champion=said(TRUTH))) == ["better_than_champion"]
    assert failed(replace(GOOD, champion=said(TRUTH), tolerance=0.01)) == []


def test_a_champion_that_cannot_be_scored_keeps_the_gate_closed() -> None:
    assert failed(replace(GOOD, champion_error="BadPackage: gone")) == ["better_than_champion"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.1, 1.1])
def test_one_answer_that_is_no_probability_closes_the_gate(bad: float) -> None:
    answers = TRUTH.copy()
    answers[17] = bad
    assert "valid_outputs" in failed(replace(GOOD, challenger=said(answers)))


def test_a_graph_that_answers_differently_from_its_model_is_refused() -> None:
    assert failed(replace(GOOD, native=said(TRUTH + 0.001))) == ["export_difference"]


def test_a_few_rows_or_one_class_decide_nothing() -> None:
    few = replace(GOOD, labels=LABELS[:199], challenger=said(TRUTH[:199]), native=said(TRUTH[:199]))
    assert failed(few) == ["holdout_rows"]
    assert failed(replace(GOOD, labels=np.zeros(1000, dtype=np.int8))) == ["both_classes"]


def test_a_package_too_large_to_serve_is_refused() -> None:
    assert failed(replace(GOOD, package_bytes=10**9)) == ["package_size"]


def sliced(column: str, **rows: Any) -> list[Slice]:
    return [Slice(column=column, value=value, rows=mask) for value, mask in rows.items()]


WEST = np.arange(1000) < 400
"""Where the challenger of these tests is wrong."""


def astray(by: float) -> Answers:
    """Honest in the east, off in the west."""
    logit = np.log(TRUTH / (1 - TRUTH)) + np.where(WEST, by, 0.0)
    return said(1 / (1 + np.exp(-logit)))


def test_a_slice_that_got_worse_closes_the_gate_and_is_named() -> None:
    blurred = said(np.full(1000, 0.5))
    worse = astray(2.0)
    evidence = replace(
        GOOD,
        champion=said(np.where(WEST, TRUTH, 0.5)),
        challenger=worse,
        native=worse,
        tolerance=1.0,
        slices=sliced("side", west=WEST, east=~WEST),
        slice_tolerance=0.05,
    )
    (check,) = [check for check in judge(evidence) if not check.passed]
    assert check.name == "slices"
    assert check.detail.startswith("1 of 2 slices are worse by more than 5% beyond chance: side=west +")
    assert failed(replace(evidence, slice_tolerance=1.0)) == []
    assert failed(replace(evidence, champion=blurred, slices=[])) == []


def test_small_slices_and_noise_close_nothing() -> None:
    tiny = np.arange(1000) < 150
    unlucky = said(np.where(tiny, 0.5, TRUTH))
    few = replace(GOOD, champion=said(TRUTH), challenger=unlucky, native=unlucky, tolerance=1.0)
    assert failed(replace(few, slices=sliced("side", west=tiny))) == []
    noise = said(np.clip(TRUTH + np.random.default_rng(1).normal(0, 0.02, 1000), 0.01, 0.99))
    quiet = replace(GOOD, champion=said(TRUTH), challenger=noise, native=noise, tolerance=1.0)
    slices = sliced("place", **{f"p{i}": np.arange(1000) % 4 == i for i in range(4)})
    assert failed(replace(quiet, slices=slices, slice_tolerance=0.0)) == []


def test_better_on_the_whole_and_worse_since_the_change_is_refused() -> None:
    since = np.arange(1000) >= 700
    champion = said(np.where(since, TRUTH, 0.5))
    challenger = said(np.where(since, 0.5, TRUTH))
    evidence = replace(GOOD, champion=champion, challenger=challenger, native=challenger, drifted=since)
    assert failed(evidence) == ["drifted_window"]
    assert failed(replace(evidence, drifted=np.arange(1000) >= 900)) == [], "100 rows are too few to judge by"


def test_a_model_that_is_always_too_sure_is_refused_unless_the_champion_is_surer() -> None:
    base = np.full(1000, 0.999)
    sure = replace(GOOD, challenger=said(base), native=said(base))
    assert "calibration" in failed(sure)
    surer = said(np.full(1000, 1.0))
    assert "calibration" not in failed(replace(sure, champion=surer))


def test_a_stormy_week_surprises_everybody_and_is_no_ones_fault() -> None:
    stormy = (rng.random(1000) < np.clip(TRUTH + 0.3, 0, 1)).astype(np.int8)
    evidence = replace(GOOD, labels=stormy, knowing_nothing=said(np.full(1000, TRUTH.mean())))
    assert "calibration" not in failed(evidence)


def test_a_model_too_slow_to_serve_is_refused() -> None:
    assert failed(replace(GOOD, milliseconds=25.0)) == ["row_latency"]


def test_numbers_are_compared_in_standard_deviations_of_the_labels() -> None:
    labels = rng.normal(1e6, 1e4, 1000)
    near = Answers(task=Task.REGRESSION, values=labels + rng.normal(0, 1e3, 1000))
    graph = Answers(task=Task.REGRESSION, values=near.values + 0.1)
    constant = Answers(task=Task.REGRESSION, values=np.full(1000, labels.mean()))
    evidence = replace(GOOD, labels=labels, challenger=graph, native=near, knowing_nothing=constant)
    assert failed(evidence) == []
    assert judge(evidence)[-1].detail.startswith("squared error ")
    other = Answers(task=Task.REGRESSION, values=near.values + 100)
    assert "export_difference" in failed(replace(evidence, native=other))
    broken = Answers(task=Task.REGRESSION, values=np.where(np.arange(1000) == 5, np.nan, near.values))
    assert {"valid_outputs", "export_difference"} <= set(failed(replace(evidence, challenger=broken)))


def test_log_loss_auc_and_calibration_are_what_the_textbook_says() -> None:
    assert said(np.array([0.8, 0.8])).losses(np.array([1, 0])) == pytest.approx([-np.log(0.8), -np.log(0.2)])
    assert np.isfinite(said(np.array([0.0])).losses(np.array([1]))).all()
    assert auc(np.array([0, 1, 1, 0]), np.array([0.1, 0.9, 0.5, 0.5])) == 0.875
    assert np.isnan(auc(np.array([1, 1]), np.array([0.1, 0.2])))
    assert calibration_error(LABELS, np.ones(1000)) == pytest.approx(1 - LABELS.mean())
