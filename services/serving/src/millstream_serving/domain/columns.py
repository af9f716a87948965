"""From asking events and features to the columns of a model's graph, in the manifest's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from millstream.contracts.events import Scalar
from millstream.contracts.package import InputColumn

Columns = dict[str, NDArray[Any]]
"""Column → values of shape (n, 1): float32 with NaN for null, or objects that are all str with "" for null."""
Values = NDArray[np.float64] | NDArray[np.int64]
FeatureValues = Mapping[str, Values]
"""`view__feature` → one value a row."""
Events = Sequence[Mapping[str, Any]]
_SCALARS = frozenset({str, int, float, bool})
_SCALARS_AND_NULL = _SCALARS | {type(None)}
_NUMBERS = frozenset({int, float, type(None)})
V = TypeVar("V")


class Table(NamedTuple):
    """Features that came side by side: cut into columns once, for all rows of a run."""

    names: tuple[str, ...]
    values: Values
    """Of shape (rows, names)."""

    def columns(self) -> FeatureValues:
        return dict(zip(self.names, self.values.T, strict=True))

    def rows(self) -> list[dict[str, float | int | None]]:
        """The numbers exactly as they came, NaN as None."""
        found = [dict(zip(self.names, row, strict=True)) for row in self.values.tolist()]
        if self.values.dtype.kind == "f" and np.isnan(self.values).any():
            return [{name: None if value != value else value for name, value in row.items()} for row in found]
        return found


@dataclass(frozen=True, kw_only=True)
class Misfit:
    """An input that its column cannot hold."""

    row: int
    field: str
    detail: str


def columns_of(inputs: Sequence[InputColumn], events: Events, features: FeatureValues) -> tuple[Columns, list[Misfit]]:
    """The columns of `inputs` for all events, one row each; a misfit's cell holds null."""
    columns: Columns = {}
    misfits: list[Misfit] = []
    numbers: list[NDArray[Any]] = []
    asked = _asked_numbers([one.name for one in inputs if one.type == "number" and one.source != "feature"], events)
    for column in inputs:
        if column.source == "feature":
            numbers.append(features[column.name])
        elif column.type == "number":
            numbers.append(_numbers(column.name, events, misfits) if asked is None else asked[column.name])
        else:
            columns[column.name] = _categories(column.name, events, misfits)
    if not numbers:
        return columns, misfits
    with np.errstate(over="ignore"):  # beyond float32 is infinity, in training as here
        table = np.array(numbers, dtype=np.float32).reshape(len(numbers), -1, 1)
    row = iter(table)
    return {one.name: columns[one.name] if one.name in columns else next(row) for one in inputs}, misfits


def empty_columns(inputs: Sequence[InputColumn]) -> Columns:
    """Two rows that any model must bear: all null; all zero, with categories that it never saw."""
    columns: Columns = {}
    for column in inputs:
        if column.type == "number":
            columns[column.name] = np.array([[np.nan], [0.0]], dtype=np.float32)
        else:
            columns[column.name] = np.array([[""], ["\N{REPLACEMENT CHARACTER}"]], dtype=object)
    return columns


def unread(names: Sequence[str], rows: int) -> FeatureValues:
    """Features that nobody could read: all null."""
    return {name: np.full(rows, np.nan) for name in names}


def entities_of(join_keys: Sequence[str], events: Events) -> dict[str, list[Scalar]]:
    """Join key → one value a row; null where the event has none."""
    return {key: _scalars(key, events) for key in join_keys}


def inputs_of(names: Sequence[str], events: Events) -> list[dict[str, Scalar]]:
    """The same fields, as one mapping an event."""
    if len(names) > 1:
        with suppress(KeyError):  # an event that lacks one
            rows = list(map(itemgetter(*names), events))
            if _SCALARS_AND_NULL.issuperset(map(type, chain.from_iterable(rows))):
                return [dict(zip(names, row, strict=True)) for row in rows]
    return rows_of({name: _scalars(name, events) for name in names}, len(events))


def rows_of(columns: Mapping[str, Sequence[V]], rows: int) -> list[dict[str, V]]:
    """Columns as one mapping a row."""
    if not columns:
        return [{} for _ in range(rows)]
    names = tuple(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def scalar(value: Any) -> Scalar:
    """`value` as it may be logged: lists and objects name no entity, so they are null."""
    return value if type(value) in _SCALARS else None


def nullable(features: FeatureValues) -> dict[str, list[float | int | None]]:
    """The numbers exactly as read, NaN as None."""
    found: dict[str, list[float | int | None]] = {name: [] for name in features}
    floats = [name for name, values in features.items() if values.dtype.kind == "f"]
    for name in found.keys() - floats:
        found[name] = features[name].tolist()
    if floats:
        # All in one piece: a column alone is so short that numpy's calls would cost more than its numbers.
        table = np.array([features[name] for name in floats])
        columns = table.tolist()
        if np.isnan(table).any():
            columns = [[None if value != value else value for value in values] for values in columns]
        found.update(zip(floats, columns, strict=True))
    return found


def _field(name: str, events: Events) -> list[Any]:
    try:
        return list(map(itemgetter(name), events))
    except KeyError:
        return [event.get(name) for event in events]


def _scalars(name: str, events: Events) -> list[Scalar]:
    values = _field(name, events)
    return values if _SCALARS_AND_NULL.issuperset(map(type, values)) else [scalar(value) for value in values]


def _asked_numbers(names: Sequence[str], events: Events) -> dict[str, NDArray[np.float64]] | None:
    """Several columns of numbers at once; None where one of their values is none, and each has to be looked at."""
    if len(names) < 2:
        return None
    with suppress(KeyError, OverflowError):
        rows = list(map(itemgetter(*names), events))
        if _NUMBERS.issuperset(map(type, chain.from_iterable(rows))):
            return dict(zip(names, np.array(rows, dtype=np.float64).T, strict=True))
    return None


def _numbers(name: str, events: Events, misfits: list[Misfit]) -> NDArray[np.float64]:
    values = _field(name, events)
    if _NUMBERS.issuperset(map(type, values)):
        with suppress(OverflowError):  # an int that no float holds: it is named below
            return np.array(values, dtype=np.float64)
    found = np.empty(len(events), dtype=np.float64)
    for row, value in enumerate(values):
        if value is None:
            found[row] = np.nan
            continue
        try:
            if not isinstance(value, (int, float)):
                raise TypeError(f"{type(value).__name__} is no number")
            found[row] = value
        except (TypeError, OverflowError) as error:
            found[row] = np.nan
            misfits.append(Misfit(row=row, field=name, detail=str(error)))
    return found


def _categories(name: str, events: Events, misfits: list[Misfit]) -> NDArray[np.object_]:
    found = np.empty((len(events), 1), dtype=object)
    for row, event in enumerate(events):
        value = event.get(name)
        text = category_text(value)
        if text is None:
            misfits.append(Misfit(row=row, field=name, detail=f"{type(value).__name__} is no category"))
            text = ""
        found[row, 0] = text
    return found


def category_text(value: Any) -> str | None:
    """A category as the graph knows it; None where it can be none. 5 and 5.0 are one, as for entity keys."""
    match value:
        case str():
            return value
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return str(int(value)) if value.is_integer() else repr(value)
        case _:
            return None
