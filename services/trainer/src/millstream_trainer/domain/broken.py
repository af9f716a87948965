"""Spells of broken inputs and of broken labels: what later runs do not learn from."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from millstream.contracts.events import Finding, WindowJudged
from millstream.contracts.times import from_datetime

BROKEN_INPUTS = "broken_inputs"
"""Reason of rows left out: asked while inputs were judged broken."""
BROKEN_LABELS = "broken_labels"
"""Reason of rows left out: their label became known while labels were judged broken."""

MOST_SPELLS = 20
"""The newest stay: histories are months long, and a producer that breaks more often is no stream to learn from."""


@dataclass(frozen=True, kw_only=True)
class Spell:
    """Windows of one kind judged broken one after the other, until one was whole. Microseconds of stream time."""

    began: int
    """When the first was judged."""
    judged: int
    """When the last was."""
    start: int
    """First question of the first (of labels: when it became known), or the last of a whole window that ended later."""
    end: int
    """Last question of the last, likewise."""
    ended: int | None = None
    """When a whole window was judged; None: none was yet."""
    whole: int = 0
    """Nothing earlier is of it, for a window that was judged before it was whole; 0: none is known."""

    def holds(self, at: int) -> bool:
        """Whether it lasted at that time."""
        return self.began <= at and (self.ended is None or at < self.ended)

    def with_window(self, start: int, end: int, at: int) -> Spell:
        """With one more. The same one again changes nothing."""
        start = max(self.whole, min(self.start, start))
        return replace(self, judged=max(self.judged, at), start=start, end=max(self.end, end))

    def known(self, at: int) -> tuple[int, int]:
        """From when to when (both included), as known at that time: of one that lasts nobody can tell what is whole since."""
        return self.start, at if self.holds(at) else self.end


def told(spells: tuple[Spell, ...], event: WindowJudged, before: WindowJudged | None = None) -> tuple[Spell, ...]:
    """What a verdict makes of the spells of its kind. `before`: the one of its kind that was heard before it. Heard again it
    changes nothing."""
    at = from_datetime(event.at)
    last = spells[-1] if spells else None
    if event.finding is not Finding.BROKEN_DATA:
        ends = last is not None and last.ended is None and at > last.judged
        return (*spells[:-1], replace(spells[-1], ended=at)) if ends else spells
    start, end = from_datetime(event.start), from_datetime(event.end)
    if any(spell.holds(at) for spell in spells):
        return tuple(spell.with_window(start, end, at) if spell.holds(at) else spell for spell in spells)
    if len(spells) == MOST_SPELLS and at < spells[0].began:
        return spells
    is_whole = before is not None and not before.says_nothing and before.finding is not Finding.BROKEN_DATA
    if before is None or not is_whole or before.at >= event.at or not event.shows_in(before):
        return (*spells, Spell(began=at, judged=at, start=start, end=end))[-MOST_SPELLS:]
    start = from_datetime(event.broken_from(before))
    whole = min(start, from_datetime(before.end))
    return (*spells, Spell(began=at, judged=at, start=start, end=end, whole=whole))[-MOST_SPELLS:]


def left_out(spells: Iterable[Spell], looked: Collection[int], at: int) -> list[tuple[int, int]]:
    """From when to when (both included) a run at `at` learns nothing, as far as was known then.

    `looked` is when persons had runs accepted. A spell in which one did is learned: what seemed broken is how the world is now.
    """
    return [
        spell.known(at)
        for spell in spells
        if spell.began <= at and not any(spell.holds(when) for when in looked if when <= at)
    ]


def blind(spells: Iterable[Spell], since: int, at: int) -> list[tuple[int, int]]:
    """From when to when, between `since` and `at`, nobody could tell how models do, as far as was known then.

    A spell that lasted at `since` hides nothing: who began in it takes its inputs as they are (drift's `Trial.took`).
    """
    known = [spell.known(at) for spell in spells if since < spell.began <= at]
    return [(max(start, since), min(end, at)) for start, end in known]


def covered(stretches: Iterable[tuple[int, int]]) -> int:
    """How long they are together (microseconds), what lies in several of them once."""
    total, reached = 0, 0
    for start, end in sorted(stretches):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total
