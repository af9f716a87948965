"""The holdout, cut by the values of a column: better on the whole may be worse for one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream_trainer.domain.table import Column, Table

MOST = 100
"""Values of a column, the most frequent ones: each is looked at, and each divides the error rate."""
FEWEST = 30
"""Rows of a slice that is written down at all."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Slice:
    """The rows of one value."""

    column: str
    value: str
    rows: NDArray[np.bool_]

    @property
    def name(self) -> str:
        return f"{self.column}={self.value}"


def slices_of(table: Table, columns: Sequence[str]) -> list[Slice]:
    """Per column its frequent values, the most frequent first; null is none."""
    found = []
    for name in columns:
        texts = _texts(table.column(name))
        counted = sorted(Counter(texts[texts != ""]).items(), key=lambda pair: (-pair[1], pair[0]))
        for value, count in counted[:MOST]:
            if count >= FEWEST:
                found.append(Slice(column=name, value=str(value), rows=texts == value))
    return found


def _texts(column: Column) -> NDArray[Any]:
    """Values as drift spells them: 5 and 5.0 are `5`, null is empty."""
    if not column.is_number:
        return column.values
    texts = np.empty(len(column.values), dtype=object)
    texts[:] = [
        "" if value != value else str(int(value)) if value.is_integer() else str(value)
        for value in column.values.tolist()
    ]
    return texts
