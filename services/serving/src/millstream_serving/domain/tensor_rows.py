"""From the tensors of a request to the rows of a question, and from answers to tensors."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from millstream.contracts.package import InputColumn, Manifest
from millstream.contracts.tasks import PROBABILITY, VALUE, Task
from millstream_serving.domain.columns import FeatureValues, Table, Values
from millstream_serving.domain.inference import TableRequest
from millstream_serving.domain.scores import Output
from millstream_serving.domain.tensors import BYTES, FP32, NUMBERS, Tensor, bad, of_numbers

MOST_ROWS = 1_000
"""Rows of one request: each is an event of its own on record. More at once are a table, and no question."""

FEATURES = "features"
"""One tensor for all columns."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What was asked, a row a question."""

    events: Sequence[dict[str, Any]]
    """Inputs and identifying fields, as an asking event would have them; null where a number is NaN or a text is empty."""
    features: FeatureValues | Table


def rows_of(
    tensors: Sequence[Tensor], inputs: Sequence[InputColumn], *, others: Sequence[InputColumn], fields: Collection[str]
) -> Rows:
    """The rows in `tensors`: one tensor a column of `inputs`, or all in `features`. Raises Refusal.

    Columns in `others` (a model on trial has inputs of its own) and `fields` that identify a row may come too.
    """
    plan = table_plan(inputs) if len(tensors) == 1 and tensors[0].name == FEATURES else None
    if plan is not None and plan.names.isdisjoint(fields):
        _check_table(tensors[0], inputs)
        _check_rows(tensors[0].shape[0])
        return rows_of_table(tensors[0].values, plan)
    wanted = {column.name: column for column in inputs}
    given = {tensor.name: tensor for tensor in tensors}
    if len(given) < len(tensors):
        raise bad(f"an input comes twice: {[tensor.name for tensor in tensors]!r:.200}; send each name once")
    if FEATURES in given and FEATURES not in wanted:
        given = _split(given, inputs)
    known = {column.name: column for column in others} | wanted
    if unknown := [name for name in given if name not in known and name not in fields]:
        raise bad(f"no input {unknown[0]!r:.100}; {_sent(inputs, fields)}")
    if missing := [name for name in wanted if name not in given]:
        raise bad(
            f"input {missing[0]!r} is missing; {_sent(inputs, fields)}; what is not known is NaN or an empty text"
        )
    rows = _rows(given.values())
    events: list[dict[str, Any]] = [{} for _ in range(rows)]
    features: dict[str, Any] = {}
    for name, tensor in given.items():
        column = known.get(name)
        _check(tensor, "key" if column is None else column.type)
        if column is not None and column.source == "feature":
            features[name] = _feature(tensor.values)
            continue
        names = column is None or column.type != "number" or name in fields
        for event, value in zip(events, _named(tensor) if names else tensor.values.tolist(), strict=True):
            event[name] = None if value == "" or value != value else value
    return Rows(events=events, features=features)


class TablePlan(NamedTuple):
    """Where the columns of a model are in one tensor."""

    width: int
    asked: Sequence[tuple[str, int]]
    """Names and places of those that the question brings."""
    names: frozenset[str]
    """Of the same."""
    features: tuple[str, ...]
    places: Sequence[int]
    """Of the features."""

    def holds(self, asked: TableRequest) -> bool:
        """Whether `asked` is what the model takes."""
        return asked.name == FEATURES and asked.width == self.width and asked.rows <= MOST_ROWS


def table_plan(inputs: Sequence[InputColumn]) -> TablePlan | None:
    """None where one tensor cannot hold them."""
    if any(column.type != "number" or column.name == FEATURES for column in inputs):
        return None
    places = [(column.name, place) for place, column in enumerate(inputs) if column.source == "feature"]
    asked = [(column.name, place) for place, column in enumerate(inputs) if column.source != "feature"]
    return TablePlan(
        len(inputs),
        asked,
        frozenset(name for name, _ in asked),
        tuple(name for name, _ in places),
        [place for _, place in places],
    )


def rows_of_table(values: NDArray[Any], plan: TablePlan) -> Rows:
    """As `rows_of` does it column by column, for all at once; `values` row by row."""
    table = values.reshape(-1, plan.width)
    events: list[dict[str, Any]] = [{} for _ in range(len(table))]
    for name, place in plan.asked:
        for event, value in zip(events, table[:, place].tolist(), strict=True):
            event[name] = None if value != value else value
    return Rows(events=events, features=Table(plan.features, _feature(table[:, plan.places])))


def output_tensor(manifest: Manifest, outputs: Sequence[Output]) -> Tensor:
    """What the rows were answered, as the graph of `manifest` has it."""
    name, shape = output_of(manifest)
    return of_numbers(name, (len(outputs), *shape[1:]), np.array(output_numbers(manifest, outputs), np.float32))


def output_numbers(manifest: Manifest, outputs: Sequence[Output]) -> list[float]:
    """The same, row by row.

    A row that another version answered may lack a class, which then has 0, or have one more, which has no place here.
    """
    if manifest.task == Task.MULTICLASS:
        return [output.get(one, 0.0) for output in outputs for one in manifest.classes]
    return [value for output in outputs for value in output.values()]


def output_of(manifest: Manifest) -> tuple[str, list[int]]:
    """Name and shape of a model's answer; -1 stands for the rows."""
    if manifest.task == Task.MULTICLASS:
        return "probabilities", [-1, len(manifest.classes)]
    return (VALUE if manifest.task == Task.REGRESSION else PROBABILITY), [-1]


def datatype_of(column: InputColumn) -> str:
    """The datatype that loses nothing: the graph's own."""
    return FP32 if column.type == "number" else BYTES


def _split(given: Mapping[str, Tensor], inputs: Sequence[InputColumn]) -> dict[str, Tensor]:
    """`features` as one tensor a column."""
    table = given[FEATURES]
    texts = [column.name for column in inputs if column.type != "number"]
    if texts:
        raise bad(f"input {FEATURES!r}: {texts[0]!r} is a text, so the columns are no one tensor; {_sent(inputs, ())}")
    _check_table(table, inputs)
    rows = table.values.reshape(table.shape)
    split = {
        column.name: Tensor(
            name=column.name, datatype=table.datatype, shape=(table.shape[0],), values=rows[:, position]
        )
        for position, column in enumerate(inputs)
    }
    if double := split.keys() & given.keys():
        raise bad(f"{sorted(double)[0]!r} comes twice: alone and in {FEATURES!r}")
    return split | {name: tensor for name, tensor in given.items() if name != FEATURES}


def _check_table(table: Tensor, inputs: Sequence[InputColumn]) -> None:
    width = len(inputs)
    if table.datatype not in NUMBERS or len(table.shape) != 2 or table.shape[1] != width:
        shape = f"{table.datatype} of shape {list(table.shape)}"
        raise bad(f"input {FEATURES!r}: {shape}; send {FP32} of shape [n, {width}]: {_names(inputs)}")


def _rows(tensors: Collection[Tensor]) -> int:
    counts: dict[int, str] = {}
    for tensor in tensors:
        if len(tensor.shape) == 2 and tensor.shape[1] != 1:
            raise bad(f"input {tensor.name!r}: shape {list(tensor.shape)}; send [n] or [n, 1], n being the rows")
        counts.setdefault(tensor.shape[0], tensor.name)
    if len(counts) > 1:
        (one, first), (other, second) = list(counts.items())[:2]
        raise bad(f"input {first!r} has {one} rows, {second!r} has {other}; send as many of each")
    rows = next(iter(counts))
    _check_rows(rows)
    return rows


def _check_rows(rows: int) -> None:
    if not 1 <= rows <= MOST_ROWS:
        raise bad(f"{rows} rows; send 1 to {MOST_ROWS:,} a request")


def _check(tensor: Tensor, kind: str) -> None:
    if kind == "number" and tensor.datatype == BYTES:
        raise bad(f"input {tensor.name!r}: {BYTES}, but it is a number; send {FP32}, or any of {', '.join(NUMBERS)}")
    if kind == "key" and tensor.datatype != BYTES and "INT" not in tensor.datatype:
        raise bad(f"input {tensor.name!r}: {tensor.datatype}, but it names something; send {BYTES} or INT64")


def _feature(values: NDArray[Any]) -> Values:
    """As `FeatureValues` has them: a whole number that float64 cannot hold stays one, where it is within 64 bits."""
    whole = values.dtype.kind in "biu" and not (values.dtype == np.uint64 and (values > np.iinfo(np.int64).max).any())
    return values.astype(np.int64) if whole else values.astype(np.float64)


def _named(tensor: Tensor) -> list[Any]:
    """Values that name something, which a digit more or less would make another: a key, an id, a category.

    A decimal is the shortest that reads as the same number, as it was written: 5.1, not the 5.099999904632568 of FP32.
    """
    values = tensor.values
    if values.dtype.kind != "f":
        found: list[Any] = values.tolist()
        return found
    exact = 2.0 ** (np.finfo(values.dtype).nmant + 1)
    if (large := values[np.abs(values) >= exact]).size:
        said = f"{float(large[0]):.0f} may have lost digits in {tensor.datatype}"
        raise bad(f"input {tensor.name!r}: {said}, but it names something; send {BYTES} or INT64")
    return [float(str(value)) for value in values]


def _sent(inputs: Sequence[InputColumn], fields: Collection[str]) -> str:
    more = f", and beside them {', '.join(sorted(fields))} where known" if fields else ""
    return f"send one tensor for each of {_names(inputs)}{more}"


def _names(inputs: Sequence[InputColumn]) -> str:
    return ", ".join(column.name for column in inputs)
