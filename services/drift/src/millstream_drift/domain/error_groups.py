"""How wrong a model of numbers will turn out, before its labels: by the groups of the holdout that a window's rows fall into.

Direct loss estimation, as NannyML documents its DLE, in its plainest form: the loss of each group as the holdout had it,
weighted by the window's shares (post-stratification: Cochran, Sampling Techniques, 1977, section 5A.9). It sees that more
questions come from where the model was always more wrong. It does not see that the model is more wrong there than it was: that
takes labels. And beyond what the holdout knew it goes on with the loss of the group at the edge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from millstream.contracts.package import Condition, ErrorGroup
from millstream_drift.domain.events import Cell
from millstream_drift.domain.interval import ERROR_RATE

ANSWER = ""
"""Column name of the model's own answer."""
ADDS_UP = 1e-6
"""Rounding of shares that sum to one."""
LARGEST = float(np.finfo(np.float32).max)
"""No number is above it: what is can only be null."""
NAMED = 3
"""Categories that a sentence names."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Mean loss that is to be expected of some rows."""

    loss: float
    error: float
    """Standard error of its distance from the holdout's loss: of the groups' losses, and of the rows that happened to come."""
    low: float
    """95 % interval of what their labels will show, if each group is as it was."""
    high: float
    most: str
    """In words: the group to which most of an increase is due."""


def fault_of(groups: Sequence[ErrorGroup], columns: Sequence[str]) -> str | None:
    """What does not hold together; None: nothing."""
    known = {*columns, ANSWER}
    for group in groups:
        if missing := [one.column for one in group.where if one.column not in known]:
            return f"a group of errors by column {missing[0]!r}, which the reference does not have"
        numbers = (group.share, group.loss, group.loss_std)
        if group.rows < 1 or not all(math.isfinite(one) and one >= 0 for one in numbers):
            return f"a group of errors of {group.rows} rows, share {group.share}, loss {group.loss} ± {group.loss_std}"
    together = math.fsum(one.share for one in groups)
    if groups and abs(together - 1) > ADDS_UP:
        return f"shares of the groups of errors come to {together}"
    return None


def expected(groups: Sequence[ErrorGroup], cells: Mapping[str, Sequence[Cell]], holdout_rows: int) -> Expected:
    """Of rows whose `cells` are given by column, the answer among them; groups and rows: one at least."""
    shares = np.bincount(group_of(groups, cells), minlength=len(groups)) / len(cells[ANSWER])
    then = np.array([one.share for one in groups])
    losses = np.array([one.loss for one in groups])
    variances = np.array([one.loss_std**2 for one in groups])
    of_losses = variances / np.array([one.rows for one in groups])
    rows = len(cells[ANSWER])
    loss, before = float(shares @ losses), float(then @ losses)
    chance = _variance(shares, losses) / rows + _variance(then, losses) / holdout_rows
    reach = NormalDist().inv_cdf(1 - ERROR_RATE / 2) * math.sqrt(shares**2 @ of_losses + shares @ variances / rows)
    most = int(np.argmax((shares - then) * (losses - before)))
    return Expected(
        loss=loss,
        error=math.sqrt((shares - then) ** 2 @ of_losses + chance),
        low=max(0.0, loss - reach),
        high=loss + reach,
        most=f"{in_words(groups[most])}: {shares[most]:.0%} of the rows, {then[most]:.0%} of the holdout's",
    )


def group_of(groups: Sequence[ErrorGroup], cells: Mapping[str, Sequence[Cell]]) -> npt.NDArray[np.intp]:
    """The group of each row."""
    named: dict[str, set[str]] = {}
    for one in (one for group in groups for one in group.where):
        named.setdefault(one.column, set()).update(one.categories)
    columns = {name: _column(cells[name], known) for name, known in named.items()}
    found = np.full(len(cells[ANSWER]), len(groups) - 1)
    free = np.ones(found.size, dtype=bool)
    for number, group in enumerate(groups[:-1]):
        own = free.copy()
        for one in group.where:
            own &= _holds(one, columns[one.column])
        found[own] = number
        free &= ~own
    return found


def in_words(group: ErrorGroup) -> str:
    return " and ".join(_condition(one) for one in group.where) or "all rows"


def _variance(shares: npt.NDArray[np.float64], losses: npt.NDArray[np.float64]) -> float:
    return max(0.0, float(shares @ losses**2) - float(shares @ losses) ** 2)


def _column(cells: Sequence[Cell], known: set[str]) -> npt.NDArray[Any]:
    """Numbers in float32, NaN for null; or categories, null for those that no group names."""
    if known:
        return np.array([one if one in known else None for one in cells], dtype=object)
    return np.array([np.nan if one is None else one for one in cells], dtype=np.float32)


def _holds(one: Condition, cells: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    if cells.dtype == object:
        wanted = {*one.categories, *([None] if one.others else [])}
        return np.array([cell in wanted for cell in cells], dtype=bool)
    # Compared with doubles, as the tree does that the groups come from: a cut may lie between two float32.
    numbers = cells.astype(np.float64)
    held = np.ones(numbers.size, dtype=bool)
    if one.above is not None:
        held &= numbers > one.above
    if one.upto is not None:
        held &= numbers <= one.upto
    nulls = np.isnan(numbers)
    return np.where(nulls, one.others, held)


def _condition(one: Condition) -> str:
    name = one.column or "the answer"
    if one.above is not None and one.above >= LARGEST:
        return f"{name} null"
    ends = [
        f"above {one.above:.4g}" if one.above is not None else "",
        f"up to {one.upto:.4g}" if one.upto is not None else "",
    ]
    named = ", ".join(one.categories[:NAMED])
    if len(one.categories) > NAMED:
        named += f" or {len(one.categories) - NAMED} more"
    parts = [" ".join(end for end in ends if end), f"in {named}" if named else ""]
    said = " ".join(part for part in parts if part)
    return f"{name} {said}" if said else f"{name} {'null or unknown' if one.others else 'known'}"
