"""From asking events and features to the columns of a model's graph, in the manifest's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream.contracts.events import Scalar
from millstream.contracts.package import InputColumn

Columns = dict[str, NDArray[Any]]
"""Column → values of shape (n, 1): float32 with NaN for null, or objects that are all str with "" for null."""
FeatureValues = Mapping[str, NDArray[np.float64] | NDArray[np.int64]]
"""`view__feature` → one value a row."""
Events = Sequence[Mapping[str, Any]]
_SCALARS = frozenset({str, int, float, bool})


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
    for column in inputs:
        if column.source == "feature":
            with np.errstate(over="ignore"):  # beyond float32 is infinity, in training as here
                columns[column.name] = features[column.name].astype(np.float32).reshape(-1, 1)
        elif column.type == "number":
            columns[column.name] = _numbers(column.name, events, misfits)
        else:
            columns[column.name] = _categories(column.name, events, misfits)
    return columns, misfits


def empty_columns(inputs: Sequence[InputColumn]) -> Columns:
    """Two rows that any model must bear: all null; all zero, with categories that it never saw."""
    columns: Columns = {}
    for column in inputs:
        if column.type == "number":
            columns[column.name] = np.array([[np.nan], [0.0]], dtype=np.float32)
        else:
            columns[column.name] = np.array([[""], ["\N{REPLACEMENT CHARACTER}"]], dtype=object)
    return columns


def entities_of(join_keys: Sequence[str], events: Events) -> dict[str, list[Scalar]]:
    """Join key → one value a row; null where the event has none."""
    return {key: [scalar(event.get(key)) for event in events] for key in join_keys}


def scalar(value: Any) -> Scalar:
    """`value` as it may be logged: lists and objects name no entity, so they are null."""
    return value if type(value) in _SCALARS else None


def nullable(values: NDArray[np.float64] | NDArray[np.int64]) -> list[float | int | None]:
    """The numbers exactly as read, NaN as None."""
    if values.dtype.kind != "f":
        whole: list[float | int | None] = values.tolist()
        return whole
    return [None if value != value else value for value in values.tolist()]


def _numbers(name: str, events: Events, misfits: list[Misfit]) -> NDArray[np.float32]:
    found = np.empty((len(events), 1), dtype=np.float64)
    for row, event in enumerate(events):
        value = event.get(name)
        if value is None:
            found[row, 0] = np.nan
            continue
        try:
            if not isinstance(value, (int, float)):
                raise TypeError(f"{type(value).__name__} is no number")
            found[row, 0] = value
        except (TypeError, OverflowError) as error:
            found[row, 0] = np.nan
            misfits.append(Misfit(row=row, field=name, detail=str(error)))
    with np.errstate(over="ignore"):
        return found.astype(np.float32)


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
