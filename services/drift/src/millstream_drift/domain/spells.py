"""When a version's inputs were broken: what it answered then says nothing of the model, however its labels turn out."""

from __future__ import annotations

import msgspec

VERSIONS = 16
"""Versions of which it is remembered; twice what has open windows."""
MOST = 20
"""Spells of a version: the newest stay. Labels of older ones have long come."""


class Spell(msgspec.Struct, array_like=True):
    """Windows of inputs judged broken one after the other. Microseconds of stream time."""

    start: int
    """When the first question of the first was asked."""
    end: int
    """When the last question of the last was."""
    lasts: bool = True
    """No whole window has come since: of what was asked meanwhile nobody can tell."""


class Spells(msgspec.Struct, array_like=True):
    """One loop's, by version, the one with the latest window last."""

    of: dict[str, list[Spell]] = {}

    def judged(self, version: str, start: int, end: int, *, broken: bool) -> None:
        """A window of inputs, asked from `start` to `end`, was judged."""
        mine = self.of.pop(version, [])
        if mine and mine[-1].lasts:
            mine[-1].end, mine[-1].lasts = (end, True) if broken else (mine[-1].end, False)
        elif broken:
            mine.append(Spell(start, end))
        if mine:
            self.of[version] = mine[-MOST:]
        while len(self.of) > VERSIONS:
            del self.of[next(iter(self.of))]

    def now(self, version: str) -> int:
        """Start of the spell to which this version's newest window belongs; 0: that was whole."""
        mine = self.of.get(version)
        return mine[-1].start if mine and mine[-1].lasts else 0

    def hold(self, version: str, asked: int, besides: int = 0) -> bool:
        """Whether what this version was `asked` then was asked while its inputs were broken, as far as is known. The spell that
        starts at `besides` is none."""
        return any(
            one.start <= asked and (one.lasts or asked <= one.end) and one.start != besides
            for one in self.of.get(version, ())
        )
