"""Questions and labels out of the lake: who asked what when, and what turned out to be true, as known at one time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import polars as pl

from millstream.contracts.tasks import Task, Truth, class_name
from millstream.contracts.times import from_datetime
from millstream.errors import RejectEvent
from millstream.project import Loop
from millstream_tiles.errors import TilesError
from millstream_tiles.lake import Lake
from millstream_tiles.lake_reader import read_events
from millstream_trainer.domain.broken import BROKEN_LABELS
from millstream_trainer.domain.run import RunSpec
from millstream_trainer.errors import RunFailed

LAKE_GROUP = "features-lake"
"""Consumer group that fills the lake; its offsets are what a run waits for."""

Label = int | float | str

LABELS: dict[Task, type[pl.DataType]] = {
    Task.BINARY: pl.Int8,
    Task.MULTICLASS: pl.String,
    Task.REGRESSION: pl.Float64,
}

_ORDER = ["_known_at", "_partition", "_offset"]
"""The lake's rows come so: of two records of one id the first known counts, as it did online."""


def wait_for(lake: Lake, spec: RunSpec, patience: float) -> None:
    """Until the lake holds what the streams held when the run began. Raises RunFailed."""
    for stream, positions in sorted(spec.positions.items()):
        wanted = {partition: offset for partition, offset in positions.items() if offset >= 0}
        try:
            lake.wait_for(stream, LAKE_GROUP, wanted, timeout=patience)
        except TilesError as error:
            raise RunFailed(str(error)) from error


def questions(lake: Lake, loop: Loop, spec: RunSpec, fields: Sequence[str]) -> pl.DataFrame:
    """Each question once: `_question`, `_key` (text of `label.by`), `_known_at`, and `fields` of the asking event."""
    predict = loop.predict
    assert predict.id is not None, "load_project fills predict.id in"
    columns = [predict.id, loop.label.by, *fields]
    frame = _rows(lake, predict.on, spec, columns, since=loop.train.longest)
    frame = frame.with_columns(_question=as_text(frame[predict.id]), _key=as_text(frame[loop.label.by]))
    frame = frame.drop_nulls(["_question", "_key"]).unique("_question", keep="first", maintain_order=True)
    return frame.select("_question", "_key", "_known_at", *dict.fromkeys(fields))


def labels(lake: Lake, loop: Loop, spec: RunSpec) -> tuple[pl.DataFrame, Mapping[str, int]]:
    """The first label of each key: `_key`, `_label` (Int8, String or Float64, as the task has it), `_label_known_at`; and how
    many events carried none."""
    label = loop.label
    frame = _rows(lake, label.stream, spec, [label.by, *label.value.fields], since=loop.train.longest)
    frame = frame.with_columns(_key=as_text(frame[label.by]))
    values, invalid = _evaluate(loop, frame)
    frame = frame.with_columns(_label=pl.Series(values, dtype=LABELS[loop.model.task]))
    left_out = {"label_null": frame["_label"].null_count() - invalid, "label_invalid": invalid}
    frame = frame.drop_nulls(["_key", "_label"]).unique("_key", keep="first", maintain_order=True)
    return frame.select("_key", "_label", pl.col("_known_at").alias("_label_known_at")), left_out


def joined(asked: pl.DataFrame, known: pl.DataFrame, within: int) -> tuple[pl.DataFrame, Mapping[str, int]]:
    """Questions with their label, sorted by (known-at, question); labels later than `within` microseconds do not count."""
    both = asked.join(known, on="_key", how="inner", validate="m:1")
    delay = pl.col("_label_known_at") - pl.col("_known_at")
    counted = both.filter((delay >= pl.duration()) & (delay <= pl.lit(timedelta(microseconds=within))))
    left_out = {"without_label": len(asked) - len(both), "label_outside_within": len(both) - len(counted)}
    return counted.sort("_known_at", "_question"), left_out


def without_broken(rows: pl.DataFrame, spec: RunSpec) -> tuple[pl.DataFrame, Mapping[str, int]]:
    """The rows of `joined` whose label became known while labels were whole."""
    known, broken = pl.col("_label_known_at"), pl.lit(False)
    for start, end in spec.broken_labels:
        broken |= known.is_between(start, end)
    whole = rows.filter(~broken)
    return whole, {BROKEN_LABELS: len(rows) - len(whole)} if len(whole) < len(rows) else {}


def as_text(values: pl.Series) -> pl.Series:
    """Ids and keys as text, as `millstream.project.fields.text_of` reads them: 5 and 5.0 are "5", "" is none."""
    if values.dtype == pl.String:
        return values.replace({"": None})
    if values.dtype.is_float():
        whole = values.cast(pl.Int64, strict=False)
        return whole.set(whole.cast(pl.Float64) != values, None).cast(pl.String)
    if values.dtype.is_integer():
        return values.cast(pl.String)
    return pl.Series(values.name, [None] * len(values), dtype=pl.String)


def _rows(lake: Lake, stream: str, spec: RunSpec, fields: Sequence[str], since: int | None) -> pl.DataFrame:
    """Rows of `stream` known by `spec.at`, and not longer before it than `since` (microseconds)."""
    try:
        table = lake.table(stream)
        if table is None:
            raise RunFailed(f"the lake has nothing of stream {stream} yet")
        columns = list(dict.fromkeys([*_ORDER, *fields]))
        missing = sorted(set(columns) - {field.name for field in table.schema().fields})
        if missing:
            raise RunFailed(f"lake {stream}: no column {', '.join(missing)}; the stream's schema does not declare it")
        frame = read_events(lake, stream, columns, known_by=from_datetime(spec.at))
    except TilesError as error:
        raise RunFailed(str(error)) from error
    if since is not None:
        frame = frame.filter(pl.col("_known_at") >= spec.at - timedelta(microseconds=since))
    ends = spec.positions.get(stream)
    if ends:
        # What arrived later belongs to the next run: a repeat of this one then reads the same rows.
        limits = pl.DataFrame({"_partition": list(ends), "_end": list(ends.values())}).cast(
            {"_partition": frame.schema["_partition"], "_end": pl.Int64}
        )
        frame = frame.join(limits, on="_partition", how="inner", maintain_order="left").filter(
            pl.col("_offset") <= pl.col("_end")
        )
    return frame.select(columns)


def _evaluate(loop: Loop, frame: pl.DataFrame) -> tuple[list[Label | None], int]:
    """The label of every row; None where the expression says null or cannot be computed (counted)."""
    expression, names = loop.label.value, loop.label.value.fields
    rows = list(zip(*(frame[name].to_list() for name in names), strict=True))
    values: dict[tuple[Any, ...], Label | None] = {}
    broken: set[tuple[Any, ...]] = set()
    for row in set(rows):  # a delay in whole minutes has a few hundred values
        try:
            value = expression(dict(zip(names, row, strict=True)))
            values[row] = None if value is None else _label(loop.model.task, value)
        except (RejectEvent, ValueError, OverflowError):
            broken.add(row)
            values[row] = None
    return [values[row] for row in rows], sum(row in broken for row in rows) if broken else 0


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
