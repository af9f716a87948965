"""Sketches keep what they promise: how wrong an estimate may be, and that merging loses nothing."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream_tiles.sketches import (
    ACCURACY,
    BOUNDS,
    combined,
    distinct_counts,
    distinct_entries,
    percentiles,
    spread_slots,
)

HERE = np.zeros(1, dtype=np.int64)


def distinct(values: list[object]) -> int:
    slots, ranks = distinct_entries(values)
    owners, _, ranks = combined(
        np.zeros(len(slots[slots >= 0]), dtype=np.int64), slots[slots >= 0], ranks[slots >= 0], np.maximum
    )
    return int(distinct_counts(owners, ranks, 1)[0])


def percentile(values: list[float], quantile: float) -> float:
    slots = spread_slots(np.array(values))
    ones = np.ones(len(slots))
    owners, slots, counts = combined(np.zeros(len(slots), dtype=np.int64), slots, ones, np.add)
    return float(percentiles(owners, slots, counts, 1, quantile)[0])


def test_nothing_is_no_value_and_one_is_one() -> None:
    assert distinct([]) == distinct([None, math.nan, [1], {"a": 1}]) == 0
    assert distinct(["JFK", "JFK", None]) == 1
    assert distinct([1, 1.0, "1", True]) == 1, "keys that are one as text are one value"
    assert distinct(["", "a", "ab", 7, 0.5]) == 5
    assert math.isnan(percentile([], 0.5))


@pytest.mark.parametrize("n", [10, 100, 1_000, 5_000, 20_000, 60_000])
def test_distinct_values_are_counted_within_their_standard_error(n: int) -> None:
    """Over 24 sets of tail numbers: the mean error near none, the spread at most a little above 1.6 %."""
    errors = np.array([distinct([f"N{trial}-{i}" for i in range(n)]) / n - 1 for trial in range(24)])
    assert abs(errors.mean()) < 0.016
    assert math.sqrt(np.mean(errors**2)) < 1.3 * 0.01625


@given(
    values=st.lists(st.floats(-(2.0**53), 2.0**53), min_size=1, max_size=200),
    quantile=st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]),
)
@settings(max_examples=300, deadline=None)
def test_a_percentile_is_within_one_percent_of_the_value_at_its_rank(values: list[float], quantile: float) -> None:
    truth = sorted(values)[math.floor(quantile * (len(values) - 1))]
    assert abs(percentile(values, quantile) - truth) <= abs(truth) * ACCURACY * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize("edge", [0, 1, 17, 1000, len(BOUNDS) - 1])
def test_a_value_on_the_edge_of_a_bucket_is_within_one_percent_too(edge: int) -> None:
    for value in (BOUNDS[edge], np.nextafter(BOUNDS[edge], 0), np.nextafter(BOUNDS[edge], np.inf)):
        if 1e-9 <= value <= 2.0**53:
            for signed in (value, -value):
                assert percentile([signed], 0.5) == pytest.approx(signed, rel=ACCURACY * (1 + 1e-9))


def test_merging_in_any_order_gives_the_same_slots() -> None:
    random.seed(7)
    values = [random.gauss(20, 40) for _ in range(3_000)]
    whole = [percentile(values, q) for q in (0.5, 0.9, 0.99)]
    random.shuffle(values)
    parts = np.array_split(spread_slots(np.array(values)), 7)
    merged = [combined(np.zeros(len(p), dtype=np.int64), p, np.ones(len(p)), np.add) for p in parts]
    owners, slots, counts = (np.concatenate(x) for x in zip(*merged, strict=True))
    again = combined(owners, slots, counts, np.add)
    assert [float(percentiles(*again, 1, q)[0]) for q in (0.5, 0.9, 0.99)] == whole
