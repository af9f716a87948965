"""Spells of broken inputs: what was asked in them is left out of what later runs learn from."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from millstream.contracts.events import Finding, WindowJudged
from millstream.contracts.times import from_datetime

MOST_WINDOWS = 100
"""Of one spell; with the 5,000 rows of a window by default half a million. The newest stay."""
MOST_SPELLS = 20
"""The newest stay: histories are months long, and a producer that breaks more often is no stream to learn from."""


@dataclass(frozen=True, kw_only=True)
class Spell:
    """Windows of inputs judged broken one after the other, until one was whole. Microseconds of stream time."""

    windows: tuple[tuple[int, int, int], ...]
    """First and last question of each, and when it was judged."""
    ended: int | None = None
    """When a whole window was judged; None: none was yet."""


def told(spells: tuple[Spell, ...], event: WindowJudged) -> tuple[Spell, ...]:
    """What a verdict on inputs makes of them. Heard again it changes nothing."""
    at = from_datetime(event.at)
    last = spells[-1] if spells else None
    if event.finding is not Finding.BROKEN_DATA:
        began = None if last is None or last.ended is not None else last.windows[0][2]
        return (*spells[:-1], replace(spells[-1], ended=at)) if began is not None and at > began else spells
    window = (from_datetime(event.start), from_datetime(event.end), at)
    if any(window in spell.windows for spell in spells):
        return spells
    if last is not None and last.ended is None:
        return (*spells[:-1], replace(last, windows=(*last.windows, window)[-MOST_WINDOWS:]))
    return (*spells, Spell(windows=(window,)))[-MOST_SPELLS:]


def left_out(spells: Iterable[Spell], looked: Collection[int], at: int) -> list[tuple[int, int]]:
    """From when to when (both included) a run at `at` learns nothing, as far as was known then.

    `looked` is when persons had runs accepted. A spell in which one did is learned: what seemed broken is how the world is now.
    """
    return [
        (start, end)
        for spell in spells
        if not any(spell.windows[0][2] <= when < (spell.ended or when + 1) for when in looked if when <= at)
        for start, end, judged in spell.windows
        if judged <= at
    ]
