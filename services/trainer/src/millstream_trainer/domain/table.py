"""The training table: one row per question that has its label, column by column, in an order that never changes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream.contracts.package import InputColumn

NUMBER, CATEGORY = "number", "category"


@dataclass(frozen=True, kw_only=True, eq=False)
class Column:
    """One input of the model."""

    name: str
    source: str
    """`input` or `feature`."""
    type: str
    """`number`: float32, NaN is null. `category`: object array of str, "" is null."""
    values: NDArray[Any]

    @property
    def is_number(self) -> bool:
        return self.type == NUMBER

    @property
    def missing(self) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = np.isnan(self.values) if self.is_number else self.values == ""
        return found

    def declared(self) -> InputColumn:
        return InputColumn(name=self.name, source=self.source, type=self.type)


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Rows sorted by (known-at, question): the same history gives the same table, whatever order the lake returns."""

    questions: NDArray[Any]
    """Event ids, object array of str."""
    known_at: NDArray[np.int64]
    """When each question was asked, microseconds."""
    labels: NDArray[Any]
    """Binary: int8, 1 or 0. Multiclass: object array of str. Regression: float64."""
    columns: tuple[Column, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def column(self, name: str) -> Column:
        """Raises KeyError."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def take(self, rows: NDArray[Any]) -> Table:
        """Some rows, by mask or by index."""
        return replace(
            self,
            questions=self.questions[rows],
            known_at=self.known_at[rows],
            labels=self.labels[rows],
            columns=tuple(replace(c, values=c.values[rows]) for c in self.columns),
        )

    def without(self, spells: Iterable[tuple[int, int]]) -> Table:
        """The rows asked in none of these, each from its first to its last microsecond."""
        kept = np.ones(len(self), dtype=np.bool_)
        for start, end in spells:
            kept &= (self.known_at < start) | (self.known_at > end)
        return self if kept.all() else self.take(kept)

    def sorted(self) -> Table:
        return self.take(np.lexsort((self.questions.astype(str), self.known_at)))

    def asked_from(self, at: int | None) -> Table:
        """Rows asked at `at` or later; None: all."""
        return self if at is None else self.split(at)[1]

    def split(self, at: int) -> tuple[Table, Table]:
        """Rows asked before `at`, and rows asked from then on."""
        first = int(np.searchsorted(self.known_at, at, side="left"))
        rows = np.arange(len(self))
        return self.take(rows[:first]), self.take(rows[first:])

    def sha256(self) -> str:
        """Of everything a fit sees, so that two runs can say that they saw the same."""
        digest = hashlib.sha256()
        digest.update(self.known_at.tobytes())
        digest.update(_text_bytes(self.labels) if self.labels.dtype == object else self.labels.tobytes())
        digest.update(_text_bytes(self.questions))
        for column in self.columns:
            digest.update(f"{column.name}\x1f{column.source}\x1f{column.type}\x1e".encode())
            # All NaNs are one null: their payload bits may differ between libraries.
            values = column.values
            digest.update(
                np.where(np.isnan(values), np.float32(np.nan), values).tobytes()
                if column.is_number
                else _text_bytes(values)
            )
        return digest.hexdigest()


def _text_bytes(values: Sequence[str] | NDArray[Any]) -> bytes:
    return "\x1f".join(values).encode()


def number_column(name: str, source: str, values: NDArray[Any]) -> Column:
    """float32, as the ONNX graph will see them: a fit on doubles could split between two values that it cannot tell apart."""
    numbers = np.asarray(values, dtype=np.float64).astype(np.float32)
    return Column(
        name=name, source=source, type=NUMBER, values=np.where(np.isfinite(numbers), numbers, np.float32(np.nan))
    )


def category_column(name: str, source: str, values: Sequence[str | None]) -> Column:
    texts = np.empty(len(values), dtype=object)
    texts[:] = ["" if value is None else value for value in values]
    return Column(name=name, source=source, type=CATEGORY, values=texts)
