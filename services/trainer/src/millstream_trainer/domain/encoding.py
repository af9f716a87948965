"""From named columns to the matrix that an estimator fits on; the graph does the same (`adapters.onnx_graph`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millstream_trainer.domain.table import Table

MOST_CATEGORIES = 50
"""Of one column, as columns of their own. The rest are none of them, as null is: a rare category says little by itself."""

Matrix = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How each column of a table becomes one or more of a matrix, rows × columns in float32; NaN is missing."""

    columns: tuple[str, ...]
    categories: Mapping[str, tuple[str, ...]]
    """Per category column its known values, sorted; the index is the code. Anything else is missing."""
    one_hot: bool
    """A column of 0 and 1 for each known value, instead of its code."""

    @property
    def owners(self) -> list[str]:
        """Which column of the table each column of the matrix comes from."""
        wide = self.categories if self.one_hot else {}
        return [name for name in self.columns for _ in range(len(wide[name]) if name in wide else 1)]

    @property
    def codes(self) -> list[int]:
        """Columns of the matrix that hold codes."""
        return [] if self.one_hot else [i for i, name in enumerate(self.columns) if name in self.categories]

    def matrix(self, table: Table) -> Matrix:
        parts: list[Matrix] = []
        for name in self.columns:
            values = table.column(name).values
            if name not in self.categories:
                parts.append(values.astype(np.float32).reshape(-1, 1))
                continue
            known = self.categories[name]
            codes = {value: float(code) for code, value in enumerate(known)}
            column = np.fromiter((codes.get(v, np.nan) for v in values), dtype=np.float32, count=len(values))
            parts.append(
                (column[:, None] == np.arange(len(known))).astype(np.float32) if self.one_hot else column[:, None]
            )
        return np.ascontiguousarray(np.hstack(parts), dtype=np.float32)

    def shares(self, weights: NDArray[np.float64]) -> dict[str, float]:
        """Importance of the matrix's columns as shares of the table's columns."""
        found = dict.fromkeys(self.columns, 0.0)
        for owner, weight in zip(self.owners, weights, strict=True):
            found[owner] += float(weight)
        total = sum(found.values()) or 1.0
        return {name: value / total for name, value in found.items()}


def by_code(table: Table) -> Encoding:
    """For estimators that split by category."""
    known = {c.name: tuple(sorted(set(c.values) - {""})) for c in table.columns if not c.is_number}
    return Encoding(columns=tuple(c.name for c in table.columns), categories=known, one_hot=False)


def by_column(table: Table) -> Encoding:
    """For estimators that know numbers only."""
    known = {}
    for column in table.columns:
        if not column.is_number:
            counted = sorted(Counter(column.values[column.values != ""]).items(), key=lambda pair: (-pair[1], pair[0]))
            known[column.name] = tuple(sorted(name for name, _ in counted[:MOST_CATEGORIES]))
    return Encoding(columns=tuple(c.name for c in table.columns), categories=known, one_hot=True)
