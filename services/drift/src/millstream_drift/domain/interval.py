"""How sure a mean is, of all rows and of each slice."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np

from millstream.contracts.events import SlicePerformance
from millstream.contracts.package import SliceReference
from millstream_drift.domain.events import Cell
from millstream_drift.domain.score import Floats
from millstream_drift.domain.tally import SliceTally, Tally

ERROR_RATE = 0.05
"""Chance that an interval leaves the truth out; of the slices together, that any of theirs does."""
SLICE_ROWS = 50
"""Below that a mean of losses is not yet normal, and its interval too short; such slices are not told."""
MOST_SLICES = 50
"""The largest ones. Each makes the intervals of all wider, and nobody reads on."""

Slice = tuple[str, str]
"""Column and value."""


def mean_interval(row_losses: Floats, tests: int = 1) -> tuple[float, float]:
    """Confidence interval of a mean by the central limit theorem; of `tests` at once (Bonferroni, as Dunn, JASA 56, 1961)."""
    return tally_interval(Tally.of(row_losses), tests)


def tally_interval(tally: Tally, tests: int = 1) -> tuple[float, float]:
    """The same of losses that are summed up."""
    reach = NormalDist().inv_cdf(1 - ERROR_RATE / (2 * tests)) * tally.deviation / math.sqrt(tally.rows)
    return tally.mean - reach, tally.mean + reach


def by_slice(row_losses: Floats, columns: Mapping[str, Sequence[Cell]]) -> list[SliceTally]:
    """The losses of each slice that has enough rows, the largest slices first."""
    rows: defaultdict[Slice, list[int]] = defaultdict(list)
    for column, values in columns.items():
        for row, value in enumerate(values):
            rows[column, "" if value is None else str(value)].append(row)
    told = sorted((one for one in rows if len(rows[one]) >= SLICE_ROWS), key=lambda one: (-len(rows[one]), one))
    return [
        SliceTally(column, value, Tally.of(row_losses[np.array(rows[column, value])]))
        for column, value in told[:MOST_SLICES]
    ]


def told_of(slices: Sequence[SliceTally], known: Mapping[Slice, SliceReference]) -> list[SlicePerformance]:
    """Each mean with its interval; `known` are the holdout's."""
    found = []
    for one in slices:
        low, high = tally_interval(one.losses, len(slices))
        reference = known.get((one.column, one.value))
        found.append(
            SlicePerformance(
                column=one.column,
                value=one.value,
                rows=one.losses.rows,
                loss=one.losses.mean,
                low=low,
                high=high,
                reference=None if reference is None else reference.loss,
            )
        )
    return found


def worse_slices(slices: Sequence[SlicePerformance], drop: float) -> list[SlicePerformance]:
    """Those whose whole interval is above the holdout's loss by more than `drop`, the worst first."""
    found = [one for one in slices if one.reference is not None and one.low > one.reference * (1 + drop)]
    return sorted(found, key=lambda one: (-(one.loss / max(one.reference or 0.0, 1e-12)), one.column, one.value))
