"""Tables to score as Parquet files: read row group by row group, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from millstream.contracts.events import Scalar
from millstream_serving.domain.batch import NULL_FEATURES, NUMBER, OTHER, TEXT, TIME, TRUTH, VERSION
from millstream_serving.domain.columns import category_text, scalar
from millstream_serving.errors import BadTable
from millstream_serving.ports import Piece

ROWS_OF_A_GROUP = 262_144
"""Of the output: enough to compress well, some 10 MB to hold."""


class ParquetPiece:
    """`ports.Piece` on a record batch."""

    def __init__(self, batch: Any, first: int, source: str) -> None:
        self.batch = batch
        self._first = first
        self._source = source

    @property
    def rows(self) -> int:
        rows: int = self.batch.num_rows
        return rows

    def numbers(self, name: str) -> NDArray[Any]:
        column = self._column(name)
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.int8())
        if not pa.types.is_floating(column.type):
            column = column.cast(pa.float64(), safe=False)  # rounds above 2^53, as an event's number is
        found: NDArray[Any] = column.to_numpy(zero_copy_only=False)
        return found

    def texts(self, name: str) -> NDArray[np.object_]:
        column = self._column(name).dictionary_encode()
        # Once for each value that occurs, by the very function of an event's field.
        known = [category_text(_plain(value)) for value in column.dictionary.to_pylist()]
        texts = np.array([*(text or "" for text in known), ""], dtype=object)
        found: NDArray[np.object_] = texts[column.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)]
        return found

    def scalars(self, name: str) -> Sequence[Scalar]:
        return [scalar(_plain(value)) for value in self._column(name).to_pylist()]

    def times(self, name: str) -> NDArray[np.int64]:
        column = self._column(name)
        if column.null_count:
            row = self._first + pc.index(column.is_null(), True).as_py()
            raise BadTable(f"{self._source}: row {row} has no {name}; every row needs the time that it asks as of")
        micros: NDArray[np.int64] = (
            column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64()).to_numpy()
        )
        return micros

    def _column(self, name: str) -> Any:
        column = self.batch.column(name)
        return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


class ParquetTable:
    """The table to score."""

    def __init__(self, path: Path) -> None:
        """Raises BadTable for what is no Parquet file."""
        self._path = path
        try:
            # Else all that was read of a file stays in memory until its end.
            self._file = pq.ParquetFile(path, pre_buffer=False)
        except (OSError, pa.ArrowException) as error:
            raise BadTable(f"{path}: {_why(path, error)}") from error
        self.schema = self._file.schema_arrow
        names = self.schema.names
        if double := sorted({name for name in names if names.count(name) > 1}):
            raise BadTable(f"{path}: two columns are called {double[0]!r}; rename one")
        self.rows: int = self._file.metadata.num_rows
        self.kinds = {field.name: _kind(field.type) for field in self.schema}

    def pieces(self, rows: int) -> Iterator[Piece]:
        """The table in pieces of at most `rows`. Raises BadTable where the file is broken on the way."""
        first = 0
        try:
            for batch in self._file.iter_batches(batch_size=rows):
                if batch.num_rows:
                    yield ParquetPiece(batch, first, str(self._path))
                first += batch.num_rows
        except (OSError, pa.ArrowException) as error:
            raise BadTable(f"{self._path}: cannot be read behind row {first}: {error}") from error


class ParquetAnswers:
    """`ports.AnswerTable`: a file that appears under its name when everything is in it."""

    def __init__(self, path: Path, schema: Any, kept: Sequence[str], answers: Sequence[str], version: str) -> None:
        """`schema` of the input, of which the columns `kept` come out too. Raises OSError."""
        self._path = path
        self._draft = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._kept = list(kept)
        self._version = version
        self._schema = pa.schema(
            [
                *(schema.field(name) for name in kept),
                *(pa.field(name, pa.float64()) for name in answers),
                pa.field(VERSION, pa.string()),
                pa.field(NULL_FEATURES, pa.int32()),
            ]
        )
        self._waiting: list[Any] = []
        self._rows = 0
        self._writer = pq.ParquetWriter(self._draft, self._schema, compression="zstd")

    def write(self, piece: Piece, values: NDArray[np.float64], nulls: NDArray[np.int32]) -> None:
        assert isinstance(piece, ParquetPiece)
        columns = [
            *(piece.batch.column(name) for name in self._kept),
            *(pa.array(values[:, place], from_pandas=True) for place in range(values.shape[1])),
            pa.repeat(self._version, piece.rows),
            pa.array(nulls),
        ]
        self._waiting.append(pa.record_batch(columns, schema=self._schema))
        self._rows += piece.rows
        if self._rows >= ROWS_OF_A_GROUP:
            self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The file is there now; or nothing is, where something went wrong."""
        try:
            if error is None:
                self._flush()
            self._writer.close()
            if error is None:
                with self._draft.open("rb") as draft:
                    os.fsync(draft.fileno())
                os.replace(self._draft, self._path)
        finally:
            with suppress(FileNotFoundError):
                self._draft.unlink()

    def _flush(self) -> None:
        if self._waiting:
            table = pa.Table.from_batches(self._waiting, self._schema)
            self._writer.write_table(table, row_group_size=len(table))
        self._waiting, self._rows = [], 0


def _kind(type: Any) -> str:
    kinds, value = pa.types, type.value_type if pa.types.is_dictionary(type) else type
    if kinds.is_integer(value) or kinds.is_floating(value) or kinds.is_decimal(value):
        return NUMBER
    if kinds.is_string(value) or kinds.is_large_string(value) or kinds.is_string_view(value):
        return TEXT
    if kinds.is_boolean(value):
        return TRUTH
    if kinds.is_null(value):
        return NUMBER  # no value at all, so it fits wherever a null does
    return TIME if kinds.is_timestamp(value) else OTHER


def _plain(value: Any) -> Any:
    """A decimal as the number that an event would have."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return int(value) if value == value.to_integral_value() else float(value)


def _why(path: Path, error: Exception) -> str:
    if path.is_dir():
        return "is a folder; name one Parquet file"
    if not path.exists():
        return "no such file"
    return f"is no Parquet file that can be read: {error}"
