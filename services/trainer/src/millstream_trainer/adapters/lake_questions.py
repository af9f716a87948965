"""Questions out of the lake: who asked what when, as known at one time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

import polars as pl

from millstream.contracts.times import from_datetime
from millstream.project import Loop
from millstream_tiles.errors import TilesError
from millstream_tiles.lake import Lake
from millstream_tiles.lake_reader import read_events
from millstream_trainer.domain.broken import BROKEN_LABELS
from millstream_trainer.domain.run import RunSpec
from millstream_trainer.errors import RunFailed

LAKE_GROUP = "features-lake"
"""Consumer group that fills the lake; its offsets are what a run waits for."""

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
    frame = rows_of(lake, predict.on, spec, columns, since=loop.train.longest)
    frame = frame.with_columns(_question=as_text(frame[predict.id]), _key=as_text(frame[loop.label.by]))
    frame = frame.drop_nulls(["_question", "_key"]).unique("_question", keep="first", maintain_order=True)
    return frame.select("_question", "_key", "_known_at", *dict.fromkeys(fields))


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


def rows_of(lake: Lake, stream: str, spec: RunSpec, fields: Sequence[str], since: int | None) -> pl.DataFrame:
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
        # Of a partition that Kafka has nothing left of, all that the lake has counts.
        within = (pl.col("_offset") <= pl.col("_end")).fill_null(True)
        frame = frame.join(limits, on="_partition", how="left", maintain_order="left").filter(within)
    return frame.select(columns)
