"""What one model version looked like in training, ready to compare windows with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from millstream.contracts.package import ColumnReference, Manifest, Reference
from millstream_drift.domain.events import Cell


class UnfitReference(ValueError):
    """The reference does not hold together; windows of this version cannot be judged."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A version's reference, and where each of its columns stands in a prediction event."""

    version: str
    reference: Reference
    columns: tuple[ColumnReference, ...]
    _places: tuple[tuple[str, bool, bool], ...]
    """Per column: name, whether it is a feature (else an input), whether it is a number."""

    def row(self, inputs: Mapping[str, Any], features: Mapping[str, Any]) -> tuple[Cell, ...]:
        """The cells of one prediction, in the reference's order: a float, a text, or None for null."""
        cells: list[Cell] = []
        for name, is_feature, is_number in self._places:
            value = features.get(name) if is_feature else inputs.get(name)
            if value is None:
                cells.append(None)
            elif is_number:
                cells.append(_number(value))
            else:
                cells.append(category(value))
        return tuple(cells)


def _number(value: Any) -> float | None:
    if isinstance(value, float):
        return None if value != value else value
    return float(value) if isinstance(value, int) else None


def category(value: Any) -> str | None:
    """The text under which a value is one category."""
    # "" is null in the model's own graph, so it is null here; 5 and 5.0 are one category there too.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) or None


def baseline_of(manifest: Manifest, reference: Reference) -> Baseline:
    """Join a package's reference with its manifest. Raises UnfitReference with what does not fit."""
    sources = {column.name: column.source for column in manifest.inputs}
    for column in (*reference.columns, reference.prediction):
        bins = len(column.edges) + 1 if column.type == "number" else len(column.categories) + 1
        if len(column.shares) != bins:
            raise UnfitReference(f"{column.name}: {len(column.shares)} shares for {bins} bins")
        if any(not 0 <= share <= 1 for share in (*column.shares, column.missing)):
            raise UnfitReference(f"{column.name}: shares outside 0 to 1")
    if not (math.isfinite(reference.holdout_loss) and reference.holdout_loss > 0 and reference.holdout_rows > 0):
        raise UnfitReference("no holdout loss to compare with")
    return Baseline(
        version=manifest.version,
        reference=reference,
        columns=tuple(reference.columns),
        _places=tuple(
            (column.name, sources.get(column.name, "feature") == "feature", column.type == "number")
            for column in reference.columns
        ),
    )
