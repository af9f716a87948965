"""The measures against numbers worked out by hand, and against each other's libraries."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.contracts.package import ColumnReference
from millstream.contracts.tasks import Task, row_loss
from millstream_drift.domain.baseline import UnfitReference, baseline_of
from millstream_drift.domain.psi import jensen_shannon, psi, shift
from millstream_drift.domain.score import auc, losses, metrics, one_class

from .drift_kit import manifest, reference


def test_psi_of_two_coins_by_hand() -> None:
    fair, bent = np.array([0.5, 0.5]), np.array([0.8, 0.2])
    assert psi(fair, bent) == pytest.approx(0.3 * math.log(1.6) + -0.3 * math.log(0.4))
    assert psi(fair, fair) == 0


def test_an_empty_bin_costs_much_but_not_infinity() -> None:
    assert 4 < psi(np.array([0.5, 0.5]), np.array([1.0, 0.0])) < 10


def test_jensen_shannon_goes_from_nothing_to_one() -> None:
    left, right = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert jensen_shannon(left, left) == 0
    assert jensen_shannon(left, right) == 1
    assert jensen_shannon(left, np.array([0.5, 0.5])) == pytest.approx(0.5579, abs=1e-4)


@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=3), st.lists(st.floats(0.01, 1), min_size=3, max_size=3))
def test_both_measures_are_symmetric_and_never_negative(a: list[float], b: list[float]) -> None:
    p, q = np.array(a) / sum(a), np.array(b) / sum(b)
    assert psi(p, q) == pytest.approx(psi(q, p))
    assert jensen_shannon(p, q) == pytest.approx(jensen_shannon(q, p), abs=1e-7)
    assert psi(p, q) >= 0
    assert 0 <= jensen_shannon(p, q) <= 1


def test_a_value_on_an_edge_is_in_the_bin_below() -> None:
    column = ColumnReference(name="x", type="number", importance=1, missing=0, edges=[1.0, 2.0], shares=[0.5, 0.5, 0.0])
    assert shift(column, [1.0, 2.0]).psi == pytest.approx(0, abs=1e-9)
    assert shift(column, [float("inf"), float("-inf")]).psi > 1


def test_nulls_are_a_bin_of_their_own() -> None:
    column = ColumnReference(name="x", type="number", importance=1, missing=0.5, edges=[1.0], shares=[0.5, 0.5])
    same = shift(column, [0.0, 2.0, None, None])
    assert same.psi == pytest.approx(0)
    assert same.missing == 0.5
    assert shift(column, [None, None]).missing == 1.0
    assert shift(column, [0.0, 2.0]).psi > 1


def test_categories_count_known_others_and_nulls() -> None:
    column = ColumnReference(
        name="x", type="category", importance=1, missing=0.0, categories=["a", "b"], shares=[0.5, 0.25, 0.25]
    )
    found = shift(column, ["a", "a", "b", "z"])
    assert found.psi == pytest.approx(0)
    assert (found.unknown, found.reference_unknown) == (0.25, 0.25)


def test_a_column_that_hardly_varied_may_be_constant() -> None:
    shares = [0.999, 0.001, 0.0]
    column = ColumnReference(name="x", type="category", importance=1, missing=0, categories=["a", "b"], shares=shares)
    assert not shift(column, ["a"] * 5_000).constant
    assert shift(column, ["a"] * 50_000).constant


def said(*probabilities: float) -> list[dict[str, float]]:
    return [{"probability": one} for one in probabilities]


def test_scores_by_hand() -> None:
    outputs, labels = said(0.8, 0.4), [True, False]
    row_losses = losses(Task.BINARY, outputs, labels)
    found = metrics(Task.BINARY, outputs, labels, row_losses)
    assert found["log_loss"] == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2)
    assert found["brier"] == pytest.approx((0.04 + 0.16) / 2)
    assert (found["auc"], found["base_rate"]) == (1.0, 0.5)
    assert found["mean_prediction"] == pytest.approx(0.6)
    assert found["calibration_error"] == pytest.approx((0.2 + 0.4) / 2)


def test_classes_and_numbers_by_hand() -> None:
    outputs = [{"early": 0.5, "late": 0.5}, {"early": 0.1, "late": 0.9}, {"early": 1.0}]
    row_losses = losses(Task.MULTICLASS, outputs, ["early", "early", "diverted"])
    found = metrics(Task.MULTICLASS, outputs, ["early", "early", "diverted"], row_losses)
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert row_losses[:2] == pytest.approx([math.log(2), math.log(10)])
    outputs = [{"value": 2.0}, {"value": 5.0}]
    found = metrics(Task.REGRESSION, outputs, [1.0, 7.0], losses(Task.REGRESSION, outputs, [1.0, 7.0]))
    assert found == pytest.approx({"squared_error": 2.5, "rmse": math.sqrt(2.5), "mae": 1.5, "bias": -0.5})


CHANCE = st.floats(0, 1)


@given(
    st.one_of(
        st.tuples(st.just(Task.BINARY), st.fixed_dictionaries({"probability": CHANCE}), st.booleans()),
        st.tuples(
            st.just(Task.MULTICLASS),
            st.fixed_dictionaries({"a": CHANCE, "b": CHANCE}),
            st.sampled_from(["a", "b", "c"]),
        ),
        st.tuples(
            st.just(Task.REGRESSION), st.fixed_dictionaries({"value": st.floats(-1e6, 1e6)}), st.floats(-1e6, 1e6)
        ),
    )
)
def test_losses_of_many_rows_are_those_of_each(drawn: tuple[Task, dict[str, float], bool | str | float]) -> None:
    task, output, label = drawn
    assert losses(task, [output, output], [label, label]).tolist() == pytest.approx([row_loss(task, output, label)] * 2)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=60))
def test_auc_is_the_share_of_pairs_in_the_right_order(rows: list[tuple[int, bool]]) -> None:
    up, down = [s for s, late in rows if late], [s for s, late in rows if not late]
    if not up or not down:
        return
    pairs = [(a > b) + (a == b) / 2 for a in up for b in down]
    scores, labels = zip(*rows, strict=True)
    assert auc(np.array(scores, float), np.array(labels, float)) == pytest.approx(sum(pairs) / len(pairs))


def test_one_class_has_no_auc_and_is_impossible_only_when_the_model_expected_both() -> None:
    outputs, labels = said(*[0.001] * 1_000), [False] * 1_000
    assert "auc" not in metrics(Task.BINARY, outputs, labels, losses(Task.BINARY, outputs, labels))
    assert one_class(Task.BINARY, outputs, labels) == ""
    words = one_class(Task.BINARY, said(*[0.3] * 1_000), labels)
    assert words == "every label is False, the model expected 70% of them to be"
    both = [{"early": 0.5, "late": 0.5}] * 100
    assert one_class(Task.MULTICLASS, both, ["late"] * 100)
    assert not one_class(Task.MULTICLASS, both, ["late"] * 99 + ["early"])
    assert not one_class(Task.REGRESSION, [{"value": 1.0}] * 100, [2.0] * 100)


def test_important_columns_hold_nine_tenths_and_are_at_least_three() -> None:
    good = reference()
    assert baseline_of(manifest("1"), good).important == {"distance", "carrier", "origin__mean_1h"}
    shares = [0.6, 0.2, 0.05, 0.1, 0.05]
    columns = [msgspec.structs.replace(good.columns[0], name=f"c{n}", importance=one) for n, one in enumerate(shares)]
    assert baseline_of(manifest("1"), msgspec.structs.replace(good, columns=columns)).important == {"c0", "c1", "c3"}
    columns = [msgspec.structs.replace(one, importance=0.0) for one in columns]
    assert len(baseline_of(manifest("1"), msgspec.structs.replace(good, columns=columns)).important) == 5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"shares": [0.5, 0.5]}, "2 shares for 10 bins"),
        ({"missing": 1.5}, "outside 0 to 1"),
    ],
)
def test_a_reference_that_does_not_hold_together_is_refused(change: dict[str, object], says: str) -> None:
    good = reference()
    bad = msgspec.structs.replace(good, columns=[msgspec.structs.replace(good.columns[0], **change), *good.columns[1:]])
    with pytest.raises(UnfitReference, match=says):
        baseline_of(manifest("1"), bad)


def test_cells_are_numbers_texts_or_null() -> None:
    row = baseline_of(manifest("1"), reference()).row({"distance": 5, "carrier": ""}, {"origin__mean_1h": float("nan")})
    assert row == (5.0, None, None)
    row = baseline_of(manifest("1"), reference()).row({"distance": "far", "carrier": 7.0}, {})
    assert row == (None, "7", None)
