"""Spells of broken inputs and of broken labels: what later runs do not learn from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from millstream.contracts.events import Finding, WindowJudged, WindowKind
from millstream.contracts.times import from_datetime

LEARNED: Mapping[WindowKind, str] = {WindowKind.INPUTS: "inputs", WindowKind.PERFORMANCE: "labels"}
"""What a run learns from, by the windows that judge it: retrains wait until it is whole. No model reads texts and embeddings:
a broken one holds up nothing."""

BROKEN_INPUTS = "broken_inputs"
"""Reason of rows left out: asked while inputs were judged broken."""
BROKEN_LABELS = "broken_labels"
"""Reason of rows left out: their label became known while labels were judged broken."""

MOST_WINDOWS = 100
"""Of one spell; with the 5,000 rows of a window by default half a million. The newest stay."""
MOST_SPELLS = 20
"""The newest stay: histories are months long, and a producer that breaks more often is no stream to learn from."""


@dataclass(frozen=True, kw_only=True)
class Spell:
    """Windows of one kind judged broken one after the other, until one was whole. Microseconds of stream time."""

    began: int
    """When the first was judged, also where more came than are kept."""
    windows: tuple[tuple[int, int, int], ...]
    """First and last question of each (of labels: when they became known), and when it was judged."""
    ended: int | None = None
    """When a whole window was judged; None: none was yet."""

    def knows(self, window: tuple[int, int, int]) -> bool:
        """Whether it is, or was, one of these."""
        return window in self.windows or self.began <= window[2] < self.windows[0][2]


def told(spells: tuple[Spell, ...], event: WindowJudged) -> tuple[Spell, ...]:
    """What a verdict makes of the spells of its kind. Heard again it changes nothing."""
    at = from_datetime(event.at)
    last = spells[-1] if spells else None
    if event.finding is not Finding.BROKEN_DATA:
        ends = last is not None and last.ended is None and at > last.began
        return (*spells[:-1], replace(spells[-1], ended=at)) if ends else spells
    window = (from_datetime(event.start), from_datetime(event.end), at)
    if any(spell.knows(window) for spell in spells) or (len(spells) == MOST_SPELLS and at < spells[0].began):
        return spells
    if last is not None and last.ended is None:
        return (*spells[:-1], replace(last, windows=(*last.windows, window)[-MOST_WINDOWS:]))
    return (*spells, Spell(began=at, windows=(window,)))[-MOST_SPELLS:]


def left_out(spells: Iterable[Spell], looked: Collection[int], at: int) -> list[tuple[int, int]]:
    """From when to when (both included) a run at `at` learns nothing, as far as was known then.

    `looked` is when persons had runs accepted. A spell in which one did is learned: what seemed broken is how the world is now.
    """
    return [
        (start, end)
        for spell in spells
        if not any(spell.began <= when < (spell.ended or when + 1) for when in looked if when <= at)
        for start, end, judged in spell.windows
        if judged <= at
    ]
