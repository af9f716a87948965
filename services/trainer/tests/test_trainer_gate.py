"""The gate fails closed, and says by how much."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from millstream_trainer.domain.gate import Evidence, judge, verdict
from millstream_trainer.domain.metrics import auc, calibration_error, losses

rng = np.random.default_rng(3)
TRUTH = rng.uniform(0.05, 0.95, 1000)
LABELS = (rng.random(1000) < TRUTH).astype(np.int8)

GOOD = Evidence(
    labels=LABELS,
    challenger=TRUTH,
    native=TRUTH,
    champion=None,
    champion_error=None,
    base_rate=0.5,
    package_bytes=1000,
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
    assert failed(replace(GOOD, challenger=noise, native=noise)) == ["better_than_base_rate"]


def test_a_champion_that_is_as_good_stays_unless_the_loop_tolerates_it() -> None:
    assert failed(replace(GOOD, champion=TRUTH)) == ["better_than_champion"]
    assert failed(replace(GOOD, champion=TRUTH, tolerance=0.01)) == []


def test_a_champion_that_cannot_be_scored_keeps_the_gate_closed() -> None:
    assert failed(replace(GOOD, champion_error="BadPackage: gone")) == ["better_than_champion"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.1, 1.1])
def test_one_answer_that_is_no_probability_closes_the_gate(bad: float) -> None:
    answers = TRUTH.copy()
    answers[17] = bad
    assert "valid_outputs" in failed(replace(GOOD, challenger=answers))


def test_a_graph_that_answers_differently_from_its_model_is_refused() -> None:
    assert failed(replace(GOOD, native=TRUTH + 0.001)) == ["export_difference"]


def test_a_few_rows_or_one_class_decide_nothing() -> None:
    few = replace(GOOD, labels=LABELS[:199], challenger=TRUTH[:199], native=TRUTH[:199])
    assert failed(few) == ["holdout_rows"]
    assert failed(replace(GOOD, labels=np.zeros(1000, dtype=np.int8))) == ["both_classes"]


def test_a_package_too_large_to_serve_is_refused() -> None:
    assert failed(replace(GOOD, package_bytes=10**9)) == ["package_size"]


def test_log_loss_auc_and_calibration_are_what_the_textbook_says() -> None:
    assert losses(np.array([1, 0]), np.array([0.8, 0.8])) == pytest.approx([-np.log(0.8), -np.log(0.2)])
    assert np.isfinite(losses(np.array([1]), np.array([0.0]))).all()
    assert auc(np.array([0, 1, 1, 0]), np.array([0.1, 0.9, 0.5, 0.5])) == 0.875
    assert np.isnan(auc(np.array([1, 1]), np.array([0.1, 0.2])))
    assert calibration_error(LABELS, np.ones(1000)) == pytest.approx(1 - LABELS.mean())
