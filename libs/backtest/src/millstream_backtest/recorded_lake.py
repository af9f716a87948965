"""A recording as a lake: every event at the time at which a replay would have made it known."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from millstream.contracts.times import from_rfc3339
from millstream.project import Project, Stream
from millstream_backtest.errors import BacktestFailed
from millstream_tiles.lake import Lake, LakeBatch
from millstream_tiles.lake_schema import MICROS, table_schema

GROUP = "backtest"
LAKES = 4
"""Lakes kept beside each other, one for each recording and tick; a year of flights takes 40 MB. The oldest goes first."""


def recorded_lake(project: Project, events: Mapping[str, pl.DataFrame], folder: Path, *, tick: int) -> str:
    """The lake of a recording under `folder`, written where it is not there yet. `tick` is microseconds.

    By a replay's clock a question is known at the start of its tick, with what was known before it; every other event at
    the end of its own. Nothing is checked against the streams' schemas: a recording is what `millstream replay` sends.
    Raises BacktestFailed.
    """
    asking = {loop.predict.on for loop in project.loops.values()}
    target = folder / f"lake-{_digest(project, events, tick)}"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder, prefix=".draft-"))
        try:
            lake = Lake(str(draft))
            for name, frame in events.items():
                rows = _rows(project.streams[name], frame, known_at(frame, name in asking, tick))
                if len(rows):
                    lake.append(name, [LakeBatch(partition=0, end=len(rows) - 1, rows=rows)], group=GROUP)
            draft.rename(target)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    for old in sorted(folder.glob("lake-*"), key=lambda path: path.stat().st_mtime)[:-LAKES]:
        if old != target:
            shutil.rmtree(old, ignore_errors=True)
    return str(target.absolute())


def known_at(frame: pl.DataFrame, asks: bool, tick: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """When a replay makes each event known (microseconds)."""
    found: np.ndarray[tuple[int], np.dtype[np.int64]] = (frame["known_at"].to_numpy() // tick + (not asks)) * tick
    return found


def _rows(stream: Stream, frame: pl.DataFrame, known: np.ndarray[tuple[int], np.dtype[np.int64]]) -> pa.Table:
    schema = table_schema(stream.event_schema)
    try:
        times = pa.array([from_rfc3339(text) for text in frame[stream.time].to_list()], pa.int64()).cast(MICROS)
        ids = pa.nulls(len(frame), pa.string()) if stream.id is None else frame[stream.id].cast(pl.String).to_arrow()
        columns = {
            "_event_time": times,
            "_known_at": pa.array(known).cast(MICROS),
            "_partition": pa.array(np.zeros(len(frame), dtype=np.int32)),
            "_offset": pa.array(np.arange(len(frame))),
            "_id": ids.cast(pa.string()),
            "_date": times.cast(pa.date32()),
        }
        for field in schema:
            if field.name not in columns:
                there = field.name in frame.columns
                columns[field.name] = (
                    frame[field.name].to_arrow().cast(field.type) if there else pa.nulls(len(frame), field.type)
                )
    except (pl.exceptions.PolarsError, pa.ArrowException, TypeError, ValueError) as error:
        raise BacktestFailed(f"recording: {stream.name}: {error}") from error
    return pa.Table.from_arrays([columns[field.name] for field in schema], schema=schema)


def _digest(project: Project, events: Mapping[str, pl.DataFrame], tick: int) -> str:
    """Of all that decides what the lake holds."""
    digest = hashlib.sha256(str(tick).encode())
    for name in sorted(events):
        stream, frame = project.streams[name], events[name]
        digest.update(stream.model_dump_json(by_alias=True).encode())
        digest.update(",".join(frame.columns).encode())
        digest.update(frame.hash_rows().to_numpy().tobytes())
    digest.update(",".join(sorted(loop.predict.on for loop in project.loops.values())).encode())
    return digest.hexdigest()[:16]
