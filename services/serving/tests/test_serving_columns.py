"""Asking events and features as the columns of a graph."""

from __future__ import annotations

import numpy as np
import pytest

from millstream.contracts.package import InputColumn
from millstream_serving.domain.columns import category_text, columns_of, empty_columns, entities_of, nullable

DISTANCE = InputColumn(name="distance", source="input", type="number")
CARRIER = InputColumn(name="carrier", source="input", type="category")
DELAY = InputColumn(name="origin_departures__mean_delay_3h", source="feature", type="number")


def test_columns_come_in_the_manifests_order_one_row_an_event() -> None:
    features = {"origin_departures__mean_delay_3h": np.array([12.1, np.nan])}
    events = [{"distance": 2475, "carrier": "B6"}, {"distance": 187.5, "carrier": "UA"}]
    columns, misfits = columns_of([CARRIER, DELAY, DISTANCE], events, features)
    assert list(columns) == ["carrier", "origin_departures__mean_delay_3h", "distance"]
    assert columns["carrier"].tolist() == [["B6"], ["UA"]]
    assert columns["distance"].tolist() == [[2475.0], [187.5]]
    assert {c.dtype for c in columns.values()} == {np.dtype(object), np.dtype(np.float32)}
    assert {c.shape for c in columns.values()} == {(2, 1)}
    assert misfits == []


def test_a_null_is_nan_among_numbers_and_empty_among_categories() -> None:
    columns, _ = columns_of([DISTANCE, CARRIER], [{"distance": None}, {"distance": 1, "carrier": None}], {})
    assert np.isnan(columns["distance"][0, 0])
    assert columns["carrier"].tolist() == [[""], [""]]


def test_a_text_where_a_number_belongs_is_a_misfit_of_its_row_alone() -> None:
    columns, misfits = columns_of([DISTANCE], [{"distance": "far"}, {"distance": 187}, {"distance": 10**400}], {})
    assert [(m.row, m.field) for m in misfits] == [(0, "distance"), (2, "distance")]
    assert columns["distance"][1, 0] == 187.0


@pytest.mark.parametrize(
    ("value", "text"),
    [("B6", "B6"), (None, ""), (5, "5"), (5.0, "5"), (5.5, "5.5"), (True, "true"), (["B6"], None), ({}, None)],
)
def test_categories_are_texts_as_entity_keys_are(value: object, text: str | None) -> None:
    assert category_text(value) == text


def test_a_list_names_no_entity() -> None:
    assert entities_of(["origin"], [{"origin": "JFK"}, {"origin": ["JFK"]}, {}]) == {"origin": ["JFK", None, None]}


def test_logged_features_are_exact_and_nan_is_null() -> None:
    read = {"mean": np.array([0.1 + 0.2, np.nan]), "count": np.array([3, 2**60 + 1]), "max": np.array([1.0, 2.0])}
    found = nullable(read)
    assert list(found.items()) == [
        ("mean", [0.30000000000000004, None]),
        ("count", [3, 2**60 + 1]),
        ("max", [1.0, 2.0]),
    ]
    assert all(type(count) is int for count in found["count"])


def test_the_warm_up_rows_are_nulls_and_zeros() -> None:
    columns = empty_columns([DISTANCE, CARRIER])
    assert np.isnan(columns["distance"][0, 0])
    assert columns["distance"][1, 0] == 0.0
    assert columns["carrier"][0, 0] == ""
