"""A few rows are computed in plain Python and many by columns: both must say the same."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream_tiles import Aggregate, Function, View
from millstream_tiles.few_windows import few_values, steps_of
from millstream_tiles.layout import layout_of
from millstream_tiles.windows import window_values

MINUTE = 60_000_000
KNOWN = ["count", "sum", "mean", "min", "max", "var", "std", "first", "last"]
VIEW = View(
    name="delays",
    stream="departed",
    keys=("origin",),
    time_field="at",
    lateness=0,
    event_id=None,
    aggregates=(
        *(
            Aggregate(
                name=f"{function}_{tiles}", function=Function(function), column="delay", window=window, slide=MINUTE
            )
            for function in KNOWN
            for tiles, window in ((1, MINUTE), (3, 3 * MINUTE), (60, 60 * MINUTE))
        ),
        Aggregate(name="flights", function=Function.COUNT, column="*", window=3 * MINUTE, slide=MINUTE),
    ),
)
LAYOUT = layout_of(VIEW.aggregates)
DELAYS = st.floats(-1e6, 1e6) | st.integers(-3, 3).map(float)
EVENTS = st.lists(st.tuples(st.integers(0, 3), st.none() | DELAYS), min_size=1, max_size=4)
"""(seconds into the tile, delay) of the flights of one tile; some have no delay."""


def tile(index: int, events: list[tuple[int, float | None]]) -> list[float]:
    """What the store keeps of them."""
    seen = [(float(index * MINUTE + s), d) for s, d in events if d is not None]
    delays = [d for _, d in seen]
    parts = {
        ("count", ""): (float(len(events)),),
        ("count", "delay"): (float(len(delays)),),
        ("n", "delay"): (float(len(delays)),),
        ("sum", "delay"): (math.fsum(delays),),
        ("min", "delay"): (min(delays, default=math.inf),),
        ("max", "delay"): (max(delays, default=-math.inf),),
        ("moments", "delay"): (
            float(len(delays)),
            statistics.fmean(delays) if delays else 0.0,
            statistics.pvariance(delays) * len(delays) if delays else 0.0,
        ),
        ("first", "delay"): min(seen, default=(math.inf, math.inf)),
        ("last", "delay"): max(seen, default=(-math.inf, -math.inf)),
    }
    return [float(index), *(c for part in LAYOUT.parts for c in parts[part.kind, part.column])]


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.integers(0, 9), EVENTS), st.integers(0, 12 * MINUTE))
def test_few_windows_are_those_of_many(flights: dict[int, list[tuple[int, float | None]]], as_of: int) -> None:
    held = [tile(index, events) for index, events in flights.items()]
    rows = np.array(held).reshape(-1, LAYOUT.width)
    counts, first, times = np.array([len(held)]), np.zeros(1, dtype=np.int64), np.array([as_of])
    many = [float(v[0]) for v in window_values(VIEW.aggregates, LAYOUT, rows, counts, first, times)]
    steps = steps_of(VIEW.aggregates, LAYOUT)
    assert steps is not None, "every one of these functions is computed for a few rows"
    assert few_values(steps, held, as_of) == pytest.approx(many, rel=1e-9, abs=1e-5, nan_ok=True)
    exact = [i for i, a in enumerate(VIEW.aggregates) if a.function in ("count", "min", "max", "first", "last")]
    few = few_values(steps, held, as_of)
    np.testing.assert_array_equal([few[i] for i in exact], [many[i] for i in exact])
