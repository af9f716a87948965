"""A dry week of the made-up city is weather, and drift must not call it broken; a stuck sensor is found in hours."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import msgspec
import numpy as np
import polars as pl
import pytest

from millstream.contracts.package import ColumnReference, InputColumn, Origin
from millstream.contracts.times import DAY, HOUR
from millstream.testing import models
from millstream_drift.domain.baseline import Baseline, baseline_of
from millstream_drift.domain.psi import shift
from millstream_drift.domain.triage import broken_field
from millstream_trainer.domain.reference import column_reference, longest_constant
from millstream_trainer.domain.table import number_column

from .example import EXAMPLES

STATIONS, SPAN, DAY_OF = 12, 3 * HOUR, 8
"""Stations, the time between two questions of one, and how many a day has."""
WEEK, LEARNED = 7 * DAY_OF, 21 * DAY_OF
"""Spans: a window has a week, a model has learned from three at least."""


@pytest.fixture(scope="module")
def bike_city() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES / "bikes"))
        __import__("bike_city")
        yield sys.modules.pop("bike_city")


def learned(name: str, spans: np.ndarray[tuple[int], np.dtype[np.float64]]) -> ColumnReference:
    """What trainer writes of one value a span that every station's question has."""
    column = number_column(name, "feature", np.repeat(spans, STATIONS))
    times = np.repeat(np.arange(len(spans)) * SPAN, STATIONS)
    return msgspec.structs.replace(column_reference(column, 1.0), longest_constant=longest_constant(column, times))


def is_broken(reference: ColumnReference, spans: np.ndarray[tuple[int], np.dtype[np.float64]]) -> bool:
    """Whether drift calls a window of these spans broken."""
    cells = [None if value != value else float(value) for value in np.repeat(spans, STATIONS)]
    inputs = [InputColumn(name=reference.name, source="feature", type="number")]
    known = models.manifest(
        "rides", inputs, origins={reference.name: Origin(stream="bikes-weather", field=reference.name)}
    )
    baseline: Baseline = baseline_of(known, models.reference([reference], models.number("value", [1.0], importance=0)))
    lasted = (len(spans) - 1) * SPAN
    found = broken_field(reference, shift(reference, cells), cells, [""] * len(cells), baseline, "bikes-hours", lasted)
    return found is not None


@pytest.mark.parametrize("seed", [20240201, 1, 7])
def test_no_dry_week_is_broken_data(bike_city: ModuleType, seed: int) -> None:
    _, weather = bike_city.half_year(seed)
    rain = weather.with_columns(pl.col("rain").fill_null(0.1))["rain"].to_numpy()  # the broken sensor is another test's
    dry = 0
    for start in range(LEARNED, len(rain) - WEEK, DAY_OF):
        week = rain[start : start + WEEK]
        if not week.any():
            dry += 1
            assert not is_broken(learned("rain", rain[:start]), week), f"the week from span {start}"
    assert dry > 5, "the test needs dry weeks"


def test_a_stuck_thermometer_is_found_in_a_day(bike_city: ModuleType) -> None:
    """It shows the same for some hours at most; rows of twelve stations are no more evidence than one's."""
    _, weather = bike_city.half_year()
    temperature = weather["temperature"].fill_null(strategy="forward").to_numpy()[: 83 * DAY_OF]
    reference = learned("temperature", temperature)
    assert 0 < reference.longest_constant < DAY / 3
    assert is_broken(reference, np.full(DAY_OF, 21.5))
    assert not is_broken(reference, temperature[:DAY_OF])
