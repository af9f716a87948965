"""Labels out of the lake: what events of the label stream say of a key, and what was told of a prediction by its id."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
import polars as pl

from millstream.contracts.envelope import derived_id
from millstream.contracts.tasks import Task, Truth, class_name
from millstream.contracts.topics import LABELS
from millstream.errors import RejectEvent
from millstream.project import Loop
from millstream_tiles.errors import TilesError
from millstream_tiles.lake import Lake
from millstream_trainer.adapters.lake_questions import as_text, rows_of
from millstream_trainer.domain.dataset import CONTRADICTING, WITHOUT_QUESTION
from millstream_trainer.domain.run import RunSpec
from millstream_trainer.errors import RunFailed

Label = int | float | str

TYPES: dict[Task, type[pl.DataType]] = {
    Task.BINARY: pl.Int8,
    Task.MULTICLASS: pl.String,
    Task.REGRESSION: pl.Float64,
}


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The first label of each key and of each prediction: `_label` (Int8, String or Float64, as the task has it) and
    `_label_known_at` beside `_key` or `_prediction`."""

    by_key: pl.DataFrame
    by_prediction: pl.DataFrame
    left_out: Mapping[str, int]
    """Events without a label, those that repeat one, and those that contradict the first."""

    def __len__(self) -> int:
        return len(self.by_key) + len(self.by_prediction)


def labels(lake: Lake, loop: Loop, spec: RunSpec) -> Labels:
    """What turned out to be true of `loop`, as known at `spec.at`. Raises RunFailed."""
    label, task, since = loop.label, loop.model.task, loop.train.longest
    told = pl.DataFrame(schema={"loop": pl.String, "prediction_id": pl.String, "value": pl.String, **_TIMES})
    try:
        no_events, none_told = lake.table(label.stream) is None, lake.table(LABELS.name) is None
    except TilesError as error:
        raise RunFailed(str(error)) from error
    if no_events and none_told:
        raise RunFailed(f"the lake has nothing of stream {label.stream} yet, nor labels by prediction id")
    if not none_told:
        told = rows_of(lake, LABELS.name, spec, ["loop", "prediction_id", "value"], since)
        told = told.filter(pl.col("loop") == loop.name)
    if no_events:
        said = pl.DataFrame(schema={**dict.fromkeys([label.by, *label.value.fields], pl.Null()), **_TIMES})
    else:
        said = rows_of(lake, label.stream, spec, [label.by, *label.value.fields], since)

    def of_event(row: tuple[Any, ...]) -> Label | None:
        value = label.value(dict(zip(label.value.fields, row, strict=True)))
        return None if value is None else _label(task, value)

    by_key, stream_left_out = _first("_key", as_text(said[label.by]), said, label.value.fields, of_event, task)
    by_prediction, told_left_out = _first(
        "_prediction", told["prediction_id"], told, ["value"], lambda row: told_label(task, row[0]), task
    )
    left_out = {why: count + told_left_out[why] for why, count in stream_left_out.items()}
    return Labels(by_key=by_key, by_prediction=by_prediction, left_out=left_out)


def joined(asked: pl.DataFrame, known: Labels, loop: Loop) -> tuple[pl.DataFrame, Mapping[str, int]]:
    """Questions with their label, sorted by (known-at, question), and how many rows and labels are left out, by reason: labels
    later than `label.within` do not count.

    A question may have a label of either kind. The one that was known first counts, as it does for drift; at one moment that
    of the stream.
    """
    both = asked.join(known.by_key, on="_key", how="inner", validate="m:1")
    unasked = 0
    if len(known.by_prediction):
        ids = pl.Series("_prediction", [derived_id(loop.name, question) for question in asked["_question"]], pl.String)
        told = asked.with_columns(ids).join(known.by_prediction, on="_prediction", how="inner", validate="1:1")
        unasked = len(known.by_prediction) - len(told)
        both = pl.concat([both, told.select(both.columns)])
    delay = pl.col("_label_known_at") - pl.col("_known_at")
    in_time = (delay >= pl.duration()) & (delay <= pl.lit(timedelta(microseconds=loop.label.within)))
    counted = both.filter(in_time).sort("_label_known_at", maintain_order=True)
    first = counted.unique("_question", keep="first", maintain_order=True)
    labelled = both["_question"].n_unique()
    left_out = {
        **known.left_out,
        "without_label": len(asked) - labelled,
        "label_outside_within": labelled - len(first),
        WITHOUT_QUESTION: unasked,
    }
    for why, count in _later(counted, "_question").items():
        left_out[why] += count
    return first.sort("_known_at", "_question"), left_out


_TIMES: dict[str, Any] = {"_known_at": pl.Datetime("us", "UTC")}


def _first(
    name: str,
    keys: pl.Series,
    frame: pl.DataFrame,
    fields: Iterable[str],
    read: Callable[[tuple[Any, ...]], Label | None],
    task: Task,
) -> tuple[pl.DataFrame, Mapping[str, int]]:
    """The first label of each of `keys`, and how many rows of `frame` are left out, by reason."""
    values, invalid = _evaluate(frame.select(list(fields)), read)
    frame = frame.select("_known_at", keys.alias(name), pl.Series("_label", values, TYPES[task]))
    left_out = {"label_null": frame["_label"].null_count() - invalid, "label_invalid": invalid}
    frame = frame.drop_nulls([name, "_label"])
    first = frame.unique(name, keep="first", maintain_order=True)
    return first.select(name, "_label", pl.col("_known_at").alias("_label_known_at")), {
        **left_out,
        **_later(frame, name),
    }


def _later(frame: pl.DataFrame, name: str) -> Mapping[str, int]:
    """Labels after the first of each `name`: those that say the same, and those that say something else."""
    contradicting = frame.select((pl.col("_label") != pl.col("_label").first().over(name)).sum()).item()
    return {
        "label_repeated": len(frame) - frame[name].n_unique() - contradicting,
        CONTRADICTING: contradicting,
    }


def _evaluate(frame: pl.DataFrame, read: Callable[[tuple[Any, ...]], Label | None]) -> tuple[list[Label | None], int]:
    """The label of every row; None where there is none, or none that can be computed (counted)."""
    rows = frame.rows()
    values: dict[tuple[Any, ...], Label | None] = {}
    broken: set[tuple[Any, ...]] = set()
    for row in set(rows):  # a delay in whole minutes has a few hundred values
        try:
            values[row] = read(row)
        except (RejectEvent, ValueError, OverflowError):
            broken.add(row)
            values[row] = None
    return [values[row] for row in rows], sum(row in broken for row in rows) if broken else 0


def told_label(task: Task, text: str | None) -> Label | None:
    """A label that was told by prediction id, out of the lake's text. Raises ValueError for what is none."""
    if text is None or task is Task.MULTICLASS:
        return text
    value = msgspec.json.decode(text)
    if not isinstance(value, bool | int | float):
        raise ValueError(f"{text[:100]!r} is no label of a {task} loop")
    return _label(task, value)


def _label(task: Task, value: Truth) -> Label:
    """Raises ValueError for what is no label of the task."""
    if task is Task.BINARY:
        return int(bool(value))
    if task is Task.MULTICLASS:
        return class_name(value)
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is no number to learn")
    return number
