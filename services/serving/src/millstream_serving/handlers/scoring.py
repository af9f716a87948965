"""Scores a table with one model: in pieces, on all cores, in the table's order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream_serving.domain.batch import EVENT_TIMESTAMP, honest
from millstream_serving.domain.columns import Columns, FeatureValues
from millstream_serving.domain.scores import shape_of
from millstream_serving.errors import ModelFailed
from millstream_serving.handlers.loaded import Loaded
from millstream_serving.ports import AnswerTable, Piece

ROWS_OF_A_RUN = 16_384
"""Given features: what a run reads and makes stays in a core's cache (a tenth faster than 65,536)."""
ROWS_OF_A_READ = 250_000
"""Looked-up features: each piece reads its stretch of the lake, longest windows included, so not too few; with 40 columns
a piece is some 200 MB on the way through Feast's frames, so not too many."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What came of a table."""

    rows: int
    unanswered: int
    """Rows where the model raised or gave no honest answer: null in the table, `model_failed` live."""
    with_nulls: int
    """Rows of which at least one feature was null."""


async def score(
    loaded: Loaded,
    pieces: Iterator[Piece],
    answers: AnswerTable,
    *,
    look_up: bool,
    threads: int,
    told: Callable[[int], None],
) -> Scored:
    """Write an answer for each row of `pieces`; `told` hears how many more rows are written.

    Holds `threads` + 1 pieces at most. Raises BadTable, FeaturesUnavailable, OSError.
    """
    rows = unanswered = with_nulls = 0
    reading = asyncio.Lock()
    under_way: deque[asyncio.Task[_Answered]] = deque()

    async def write_first() -> None:
        nonlocal rows, unanswered, with_nulls
        done = await under_way.popleft()
        # On this thread: a command that is stopped must not close the file under a writer.
        answers.write(done.piece, done.values, done.nulls)
        rows += done.piece.rows
        unanswered += int(np.isnan(done.values).any(axis=1).sum())
        with_nulls += int((done.nulls > 0).sum())
        told(done.piece.rows)

    with ThreadPoolExecutor(threads, thread_name_prefix="score") as pool:
        try:
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                under_way.append(asyncio.create_task(_answered(loaded, piece, look_up, reading, pool)))
                if len(under_way) > threads:
                    await write_first()
            while under_way:
                await write_first()
        finally:
            for task in under_way:
                task.cancel()
            # Not on the event loop: what runs in the pool may wait for it.
            await asyncio.to_thread(pool.shutdown, wait=True, cancel_futures=True)
    return Scored(rows=rows, unanswered=unanswered, with_nulls=with_nulls)


@dataclass(frozen=True, kw_only=True)
class _Answered:
    piece: Piece
    values: NDArray[np.float64]
    """(n, answers); NaN where a row has none."""
    nulls: NDArray[np.int32]


async def _answered(
    loaded: Loaded, piece: Piece, look_up: bool, reading: asyncio.Lock, pool: ThreadPoolExecutor
) -> _Answered:
    features: FeatureValues | None = None
    if look_up:
        async with reading:  # one stretch of history in memory at a time
            entities = {key: piece.scalars(key) for key in loaded.features.join_keys}
            features = await loaded.features.read(entities, piece.times(EVENT_TIMESTAMP))
    return await asyncio.get_running_loop().run_in_executor(pool, _run, loaded, piece, features)


def _run(loaded: Loaded, piece: Piece, features: FeatureValues | None) -> _Answered:
    columns: Columns = {}
    nulls = np.zeros(piece.rows, np.int32)
    for column in loaded.manifest.inputs:
        if column.type != "number":
            columns[column.name] = piece.texts(column.name).reshape(-1, 1)
            continue
        looked_up = features.get(column.name) if features is not None and column.source == "feature" else None
        found: NDArray[Any] = piece.numbers(column.name) if looked_up is None else looked_up
        with np.errstate(over="ignore"):  # beyond float32 is infinity, in training as here
            values = found.astype(np.float32)
        if column.source == "feature":
            nulls += np.isnan(values)
        columns[column.name] = values.reshape(-1, 1)
    return _Answered(piece=piece, values=_values(loaded, columns, piece.rows), nulls=nulls)


def _values(loaded: Loaded, columns: Columns, rows: int) -> NDArray[np.float64]:
    """Where a run fails as a whole each row runs alone, as live: one that the graph cannot bear costs no other."""
    wanted = shape_of(loaded.task, loaded.manifest.classes, rows)
    try:
        found = loaded.model.run(columns)
        if found.shape != wanted:
            raise ModelFailed(f"{rows} rows in: shape {found.shape} out, not {wanted}")
    except ModelFailed:
        if rows == 1:
            return np.full((1, max(1, len(loaded.manifest.classes))), np.nan)
        alone = ({name: values[row : row + 1] for name, values in columns.items()} for row in range(rows))
        return np.concatenate([_values(loaded, one, 1) for one in alone])
    values = found.astype(np.float64)
    values[~honest(loaded.task, found)] = np.nan
    return values.reshape(rows, -1)
