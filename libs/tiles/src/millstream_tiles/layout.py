"""What one tile holds: the components of a packed partial, and how two partials become one.

A tile is a row of float64: first its index, then the components that the view's functions on that slide need. Values
are packed little-endian in the online store, and `tiles.lua` merges them by the same operations as `merge` here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from millstream_tiles.definition import Function, View

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Op(StrEnum):
    """How a component merges; one letter, since the Lua script reads them as a string."""

    ADD = "+"
    MIN = "<"
    MAX = ">"
    MOMENTS = "v"
    """Three components, n, mean, M2 (sum of squared differences from the mean): Chan, Golub and LeVeque (1983)."""
    FIRST = "f"
    """Two components, event time and value: the smaller time wins, then the smaller value."""
    LAST = "l"
    """Two components, event time and value: the larger time wins, then the larger value."""

    @property
    def width(self) -> int:
        return {"v": 3, "f": 2, "l": 2}.get(self.value, 1)

    @property
    def empty(self) -> tuple[float, ...]:
        """The partial of no values, the neutral element of the merge."""
        return _EMPTY[self.value]


_EMPTY: dict[str, tuple[float, ...]] = {
    "+": (0.0,),
    "<": (float("inf"),),
    ">": (float("-inf"),),
    "v": (0.0, 0.0, 0.0),
    "f": (float("inf"), float("inf")),
    "l": (float("-inf"), float("-inf")),
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """One group of components: what is kept of `column` (empty: of the event itself)."""

    kind: str
    column: str
    op: Op
    at: int
    """Index of its first component; 0 is the tile index."""


@dataclass(frozen=True)
class Layout:
    """The components of the tiles of one view and slide."""

    parts: tuple[Part, ...]

    @cached_property
    def ops(self) -> str:
        return "".join(p.op for p in self.parts)

    @cached_property
    def width(self) -> int:
        """Doubles a row, the tile index included."""
        return 1 + sum(p.op.width for p in self.parts)

    def find(self, kind: str, column: str) -> Part:
        return next(p for p in self.parts if p.kind == kind and p.column == column)


_NEEDS: dict[Function, tuple[tuple[str, Op], ...]] = {
    Function.COUNT: (("count", Op.ADD),),
    Function.SUM: (("sum", Op.ADD),),
    Function.MEAN: (("n", Op.ADD), ("sum", Op.ADD)),
    Function.MIN: (("min", Op.MIN),),
    Function.MAX: (("max", Op.MAX),),
    Function.VAR: (("moments", Op.MOMENTS),),
    Function.STD: (("moments", Op.MOMENTS),),
    Function.FIRST: (("first", Op.FIRST),),
    Function.LAST: (("last", Op.LAST),),
}


def counted(column: str) -> str:
    """ "" for the two ways to say "events", else the column."""
    return "" if column == "*" else column


@lru_cache(maxsize=4096)
def layout_of(view: View, slide: int) -> Layout:
    """The layout of the tiles of `view` at `slide`; the same for every process that knows the view."""
    wanted: dict[tuple[str, str], Op] = {}
    for aggregate in view.aggregates:
        if aggregate.slide == slide:
            for kind, op in _NEEDS[aggregate.function]:
                wanted.setdefault((kind, counted(aggregate.column)), op)
    parts = []
    at = 1
    for (kind, column), op in sorted(wanted.items()):
        parts.append(Part(kind=kind, column=column, op=op, at=at))
        at += op.width
    return Layout(tuple(parts))


def merge(layout: Layout, a: Floats, b: Floats) -> Floats:
    """Two rows of one tile as one row."""
    out = a.copy()
    for part in layout.parts:
        i = part.at
        if part.op is Op.ADD:
            out[i] = a[i] + b[i]
        elif part.op is Op.MIN:
            out[i] = min(a[i], b[i])
        elif part.op is Op.MAX:
            out[i] = max(a[i], b[i])
        elif part.op is Op.FIRST:
            if (b[i], b[i + 1]) < (a[i], a[i + 1]):
                out[i : i + 2] = b[i : i + 2]
        elif part.op is Op.LAST:
            if (b[i], b[i + 1]) > (a[i], a[i + 1]):
                out[i : i + 2] = b[i : i + 2]
        else:
            n = a[i] + b[i]
            if n > 0:
                delta = b[i + 1] - a[i + 1]
                out[i] = n
                out[i + 1] = a[i + 1] + delta * b[i] / n
                out[i + 2] = a[i + 2] + b[i + 2] + delta * delta * a[i] * b[i] / n
    return out
