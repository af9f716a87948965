"""Which families of tiles a view keeps: one for each slide, one for each sketch, and coarse ones under long windows.

A window of many slides is read from two levels. A day's tiles of five minutes (288) are fetched whole; those of 90 days
(25,920) are too many, so such a family has a second one beside it whose tiles are as many times as long (161: the root, so that
both levels are equally short). A window is then its fine tiles up to the end of the first coarse tile, the whole coarse tiles
between, and the fine ones from the start of the last: some 480 rows in place of 25,920, and still exact to the slide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from millstream_tiles.definition import Aggregate, View
from millstream_tiles.layout import Ints, Layout, counted, layout_of, sketch_of

FLAT = 512
"""Tiles of a window up to which they are fetched whole: so many the store packs densely (`hash-max-listpack-entries`), and
reading them takes some tenths of a millisecond."""

MOST_TILES = 1 << 17
"""Longest window in slides, 90 days of minutes: an entity that is always busy takes 9 MiB then."""


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """One family of tiles of a view."""

    view: View
    slide: int
    layout: Layout
    aggregates: tuple[Aggregate, ...]
    """Those that are computed from it."""
    window: int
    """The longest of their windows (microseconds)."""
    coarse: Tiling | None = None
    """The family of longer tiles that long windows read in their middle."""

    @property
    def levels(self) -> tuple[Tiling, ...]:
        """Itself, and the coarse family beside it."""
        return (self,) if self.coarse is None else (self, self.coarse)

    @property
    def tiles(self) -> int:
        """Tiles that cover the longest window, of which coarse ones are no whole number."""
        return -(-self.window // self.slide)


@lru_cache(maxsize=4096)
def tilings_of(view: View) -> tuple[Tiling, ...]:
    """The families of `view`, ascending by slide; the same in every process that knows it. Coarse ones hang under theirs."""
    groups: dict[tuple[int, str, str], list[Aggregate]] = {}
    for aggregate in view.aggregates:
        kind = sketch_of(aggregate)
        groups.setdefault((aggregate.slide, kind or "", counted(aggregate.column) if kind else ""), []).append(
            aggregate
        )
    return tuple(_tiling(view, slide, tuple(members)) for (slide, _, _), members in sorted(groups.items()))


def _tiling(view: View, slide: int, aggregates: tuple[Aggregate, ...]) -> Tiling:
    window = max(a.window for a in aggregates)
    layout = layout_of(aggregates, view.where)
    fine = Tiling(view=view, slide=slide, layout=layout, aggregates=aggregates, window=window)
    if fine.tiles <= FLAT:
        return fine
    many = math.isqrt(fine.tiles - 1) + 1
    coarse = replace(fine, slide=slide * many, layout=replace(layout, coarse=many))
    return replace(fine, coarse=coarse)


@dataclass(frozen=True, kw_only=True, eq=False)
class Cover:
    """The tiles that make up windows from `oldest` to `newest` (fine tile indices, both included), one a question."""

    oldest: Ints
    head: Ints
    """Last fine tile at the left; below `oldest` where there is none."""
    tail: Ints
    """First fine tile at the right."""
    newest: Ints
    first: Ints
    """First coarse tile between."""
    last: Ints
    """Last coarse tile between; below `first` where there is none."""


def cover(oldest: Ints, newest: Ints, many: int) -> Cover:
    """How windows are put together from fine tiles and coarse ones of `many` fine tiles each."""
    first, last = oldest // many + 1, newest // many - 1
    whole = first <= last
    tail = np.where(whole, (last + 1) * many, oldest)
    head = np.where(whole, first * many - 1, oldest - 1)
    return Cover(oldest=oldest, head=head, tail=tail, newest=newest, first=first, last=last)
