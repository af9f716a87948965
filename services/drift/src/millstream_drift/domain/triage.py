"""Broken data is told from drift before anything else: which field, what is wrong with it, and who sends it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from millstream.contracts.events import BrokenField
from millstream.contracts.package import ColumnReference
from millstream_drift.domain.baseline import Baseline
from millstream_drift.domain.events import Cell
from millstream_drift.domain.psi import ColumnShift

BROKEN_SHARE = 0.3
"""Nulls or unknown categories up by this share of rows: a producer broke; the world does not move like that."""
LONGER = 3
"""A column may be constant so many times longer than it ever was in training. Rows are not independent: in a dry week it rains
at no station, and the longest dry time of a month is no bound for the next. In eight made-up half years of rain
(examples/bikes, other seeds) the worst dry week was 2.3 times as long as any dry time in the weeks before it."""
MOST_FIELDS = 20
"""Fields that one verdict names. Where more are broken, the first ones show why."""


def broken_field(
    reference: ColumnReference,
    one: ColumnShift,
    cells: Sequence[Cell],
    producers: Sequence[str],
    baseline: Baseline,
    asked: str,
    lasted: int,
) -> BrokenField | None:
    """What is wrong with a column of a window that `lasted` so long (microseconds of stream time); None where nothing is.
    `asked` is the stream whose events ask."""
    found = _wrong(one, reference, cells, lasted)
    if found is None:
        return None
    detail, rows = found
    stream, field = baseline.origin(one.column, asked)
    # A feature is made of events of other streams: who asked has nothing to do with it.
    producer = _sender([producers[row] for row in rows]) if baseline.is_input(one.column) else ""
    return BrokenField(column=one.column, stream=stream, field=field, producer=producer, detail=detail)


def in_words(broken: Sequence[BrokenField]) -> str:
    """A few words a field: `carrier: 60% missing, 0% in training (flights-scheduled.carrier, sent by urn:desk-2)`."""
    return "; ".join(f"{one.column}: {one.detail}{_whence(one)}" for one in broken[:5])


def _wrong(
    one: ColumnShift, reference: ColumnReference, cells: Sequence[Cell], lasted: int
) -> tuple[str, Sequence[int]] | None:
    """The fault with its numbers, and the rows that show it."""
    if one.missing - one.reference_missing >= BROKEN_SHARE:
        detail = f"{one.missing:.0%} missing, {one.reference_missing:.0%} in training"
        return detail, [row for row, cell in enumerate(cells) if cell is None or cell != cell]
    if one.unknown - one.reference_unknown >= BROKEN_SHARE:
        known = set(reference.categories)
        rows = [row for row, cell in enumerate(cells) if cell is not None and cell not in known]
        most = Counter(str(cells[row]) for row in rows).most_common(1)[0][0]
        unknown = f"{one.unknown:.0%} unknown categories, {one.reference_unknown:.0%} in training"
        return f"{unknown}, most of them {most[:40]!r}", rows
    if one.constant and lasted >= LONGER * reference.longest_constant:
        rows = [row for row, cell in enumerate(cells) if cell is not None]
        return f"constant ({str(cells[rows[0]])[:40]}), it varied in training", rows
    return None


def _sender(producers: Sequence[str]) -> str:
    """Who sent more than half of the rows; empty where nobody did, or nobody says."""
    if not producers:
        return ""
    name, rows = Counter(producers).most_common(1)[0]
    return name if rows * 2 > len(producers) else ""


def _whence(one: BrokenField) -> str:
    parts = [f"{one.stream}.{one.field}"] if one.stream else []
    parts += [f"sent by {one.producer}"] if one.producer else []
    return f" ({', '.join(parts)})" if parts else ""
