"""Training/serving skew, measured: features that were logged when they were read, computed again from the lake and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from millstream_tiles.history import Asked, history
from millstream_tiles.keys import key_text
from millstream_tiles.lake import Lake
from millstream_tiles.recount import Value
from millstream_tiles.service_views import Logs, ServiceView

TOLERANCE = 1e-9
"""Relative difference above which two numbers are two: the last digits of a sum depend on its order."""

Number = float | int | None


@dataclass(frozen=True, kw_only=True)
class Logged:
    """One read of features as somebody logged it."""

    id: str
    question: str
    asked_at: int
    """Microseconds; the features were read as of this time."""
    entities: Mapping[str, Any]
    features: Mapping[str, Number]
    """By "view__feature"; None where there was no value."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One feature of one read that is another number offline."""

    logged: Logged
    view: ServiceView
    feature: str
    """As logged."""
    online: Number
    offline: Number

    @property
    def logs(self) -> Logs:
        """Which feature of the view that is."""
        return self.view.features[self.feature]

    @property
    def key(self) -> tuple[Any, ...]:
        """The entity's key, in the view's order."""
        return tuple(self.logged.entities[column] for column in self.view.keys.values())

    @property
    def apart(self) -> float:
        return apart(self.online, self.offline)


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What came of one read."""

    logged: Logged
    values: Mapping[str, int]
    """View (as the log has it) -> how many of its features were compared."""
    differences: tuple[Difference, ...]


def check_reads(
    lake: Lake, views: Sequence[ServiceView], reads: Sequence[Logged], *, tolerance: float = TOLERANCE
) -> list[Checked]:
    """Compute the windowed features of `reads` again, as known when each was asked, and compare; in the order of `reads`.

    Counts must be equal; of everything else the difference may be `tolerance` of the larger one (and of 1, so that sums
    around zero are not held to digits that they cannot have). A null equals a null only. Features that are no windows of
    `views` and reads without a view's entity are not compared. Blocks. Raises LakeUnavailable.
    """
    if not reads:
        return []
    values: list[dict[str, int]] = [{} for _ in reads]
    differences: list[list[Difference]] = [[] for _ in reads]
    used = [one for one in views if any(name in read.features for read in reads for name in one.features)]
    asked = [Asked(view=one.view, keys=_keys(one, reads)) for one in used]
    times = np.array([read.asked_at for read in reads], dtype=np.int64)
    for one, found in zip(used, history(lake, asked, times) if asked else [], strict=True):
        for logged_as, logs in one.features.items():
            column, exact = found[logs.aggregate.name], logs.aggregate.function.counts
            if logs.place:
                column = column[:, logs.place - 1]
            for row, read in enumerate(reads):
                if logged_as not in read.features or not all(c in read.entities for c in one.keys.values()):
                    continue
                values[row][one.prefix] = values[row].get(one.prefix, 0) + 1
                online, offline = read.features[logged_as], number(column[row])
                if differ(online, offline, tolerance=0.0 if exact else tolerance):
                    differences[row].append(
                        Difference(logged=read, view=one, feature=logged_as, online=online, offline=offline)
                    )
    return [
        Checked(logged=read, values=values[row], differences=tuple(differences[row])) for row, read in enumerate(reads)
    ]


def apart(a: Number, b: Number) -> float:
    """Absolute difference: 0 between two nulls, infinite between a null and a number."""
    if a is None or b is None:
        return 0.0 if a is b else float("inf")
    return abs(a - b)


def differ(a: Value, b: Value, *, tolerance: float = TOLERANCE) -> bool:
    """Whether `a` and `b` are two values, by the relative `tolerance` (of values below 1: absolute); lists one by one."""
    if isinstance(a, list) or isinstance(b, list):
        longer = max(_size(a), _size(b))
        return any(differ(place(a, i), place(b, i), tolerance=tolerance) for i in range(1, longer + 1))
    a, b = number(a), number(b)
    return apart(a, b) > tolerance * max(1.0, abs(a or 0.0), abs(b or 0.0))


def place(value: Value, number: int) -> Number:
    """The `number`th value of a `last_k`, from 1, null behind its end; the value itself where it is no list."""
    if not isinstance(value, list):
        return value
    return value[number - 1] if 0 < number <= len(value) else None


def plain(value: Any) -> Value:
    """A value of either side as Python has it: NaN is null, a row of `last_k` a list up to its first NaN (null: nothing)."""
    if isinstance(value, np.ndarray):
        return [float(one) for one in value if one == one] or None
    return number(value)


def number(value: Any) -> Number:
    """`plain` for one number."""
    if value is None or value != value:
        return None
    return value.item() if hasattr(value, "item") else value  # type: ignore[no-any-return]


def _size(value: Value) -> int:
    return len(value) if isinstance(value, list) else 1


def _keys(one: ServiceView, reads: Sequence[Logged]) -> pl.DataFrame:
    """The key of each read, as text; null where the read names none."""
    columns = {
        key: pl.Series([key_text(read.entities.get(column)) for read in reads], dtype=pl.String)
        for key, column in one.keys.items()
    }
    return pl.DataFrame(columns)
