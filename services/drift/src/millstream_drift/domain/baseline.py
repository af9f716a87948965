"""What one model version looked like in training, ready to compare windows with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from millstream.contracts.package import ColumnReference, Manifest, Origin, Reference, SliceReference
from millstream_drift.domain.error_groups import fault_of
from millstream_drift.domain.events import Cell

IMPORTANT_SHARE = 0.9
"""Of the importance: what the columns that are called important hold together."""
FEWEST_IMPORTANT = 3
"""Even where one column does nearly everything, a second and a third are looked at."""


class UnfitReference(ValueError):
    """The reference does not hold together; windows of this version cannot be judged."""


Place = tuple[str, bool, bool]
"""Of a column: name, whether it is a feature (else an input), whether it is a number."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A version's reference, and where each of its columns stands in a prediction event."""

    version: str
    reference: Reference
    columns: tuple[ColumnReference, ...]
    _places: tuple[Place, ...]
    origins: Mapping[str, Origin] = field(default_factory=dict)
    """Column → the field that it is made of, as far as the package tells."""
    _reader: RowReader | None = None
    """A quick way to most of the cells; None where there are too few of them."""

    def row(self, inputs: Mapping[str, Any], features: Mapping[str, Any]) -> tuple[Cell, ...]:
        """The cells of one prediction, in the reference's order: a number, a text, or None for null."""
        if self._reader is None:
            return tuple(_cell(place, inputs, features) for place in self._places)
        return self._reader(inputs, features)

    @property
    def important(self) -> frozenset[str]:
        """The columns that together hold nine tenths of the importance, the most important first, at least three."""
        ranked = sorted(self.columns, key=lambda column: (-column.importance, column.name))
        total = math.fsum(column.importance for column in ranked)
        # A model that never splits knows no important column; all of them are watched.
        wanted = IMPORTANT_SHARE * total if total > 0 else math.inf
        chosen: list[ColumnReference] = []
        while len(chosen) < len(ranked) and (
            len(chosen) < FEWEST_IMPORTANT or math.fsum(one.importance for one in chosen) < wanted - 1e-9
        ):
            chosen.append(ranked[len(chosen)])
        return frozenset(column.name for column in chosen)

    @property
    def slices(self) -> dict[tuple[str, str], SliceReference]:
        """How the holdout's slices did, by column and value."""
        return {(one.column, one.value): one for one in self.reference.slices}

    def is_input(self, column: str) -> bool:
        """Whether the column is a field of the asking event."""
        return any(name == column and not is_feature for name, is_feature, _ in self._places)

    def origin(self, column: str, asked: str) -> tuple[str, str]:
        """(stream, field) that a column is made of; an input is a field of the stream `asked`. Empty where nobody knows."""
        known = self.origins.get(column)
        if known is not None:
            return known.stream, known.field
        return (asked, column) if self.is_input(column) else ("", "")


class RowReader:
    """Reads the cells of an answer; most of them, the numbers among the features, are taken by one call in C.

    The events' decoder lets nothing but numbers and null into features, so those are cells as they stand.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = places
        quick = [number for number, (_, is_feature, is_number) in enumerate(places) if is_feature and is_number]
        others = [number for number in range(len(places)) if number not in set(quick)]
        self._quick = itemgetter(*(places[number][0] for number in quick))
        self._others = [places[number] for number in others]
        position = {number: at for at, number in enumerate([*quick, *others])}
        self._ordered = itemgetter(*(position[number] for number in range(len(places))))

    def __call__(self, inputs: Mapping[str, Any], features: Mapping[str, Any]) -> tuple[Cell, ...]:
        try:
            cells: tuple[Cell, ...] = self._quick(features)
        except KeyError:  # a feature that the answer had not
            return tuple(_cell(place, inputs, features) for place in self._places)
        found: tuple[Cell, ...] = self._ordered((*cells, *[_cell(place, inputs, features) for place in self._others]))
        return found

    @classmethod
    def of(cls, places: Sequence[Place]) -> RowReader | None:
        """None where there are not two cells of either kind to take at once."""
        return cls(places) if sum(is_feature and is_number for _, is_feature, is_number in places) > 1 else None


def _cell(place: Place, inputs: Mapping[str, Any], features: Mapping[str, Any]) -> Cell:
    name, is_feature, is_number = place
    value = features.get(name) if is_feature else inputs.get(name)
    if type(value) is str:
        return None if is_number else value or None
    return _number(value) if is_number else category(value)


def _number(value: Any) -> float | None:
    number = float(value) if isinstance(value, int | float) else math.nan
    return None if number != number else number


def category(value: Any) -> str | None:
    """The text under which a value is one category; None for null."""
    if value is None:
        return None
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
    fault = fault_of(reference.error_groups, [column.name for column in reference.columns])
    if fault is not None:
        raise UnfitReference(fault)
    places = tuple(
        (column.name, sources.get(column.name, "feature") == "feature", column.type == "number")
        for column in reference.columns
    )
    return Baseline(
        version=manifest.version,
        reference=reference,
        columns=tuple(reference.columns),
        _places=places,
        origins=manifest.origins,
        _reader=RowReader.of(places),
    )
