"""Log loss and AUC against scikit-learn's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss as their_log_loss
from sklearn.metrics import roc_auc_score

from millstream_cli.scores import auc, log_loss

rows = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5, 0.9, 1.0])), min_size=2, max_size=60
)


@given(rows)
def test_scores_are_those_of_scikit_learn(found: list[tuple[bool, float]]) -> None:
    truth = np.array([float(t) for t, _ in found])
    p = np.array([q for _, q in found])
    clipped = np.clip(p, 1e-15, 1 - 1e-15)
    assert log_loss(truth, p) == pytest.approx(their_log_loss(truth, clipped, labels=[0, 1]), rel=1e-9)
    if len(set(truth)) == 2:
        assert auc(truth, p) == pytest.approx(roc_auc_score(truth, p), rel=1e-12)


def test_no_rows_and_one_class_have_no_score() -> None:
    assert math.isnan(log_loss(np.array([]), np.array([])))
    assert math.isnan(auc(np.ones(3), np.array([0.1, 0.2, 0.3])))
