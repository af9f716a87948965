"""What one tile holds: the components of a packed partial, and how two partials become one.

A tile is a row of float64: first its index, then the components that the view's functions on that slide need. Values
are packed little-endian in the online store, and `tiles.lua` merges them by the same operations as `merge` here.

A sketch has a family of rows of its own: several rows a tile, with the index `tile * ROWS + row` (see `sketches`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from millstream_tiles.definition import Aggregate, Function

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
    LATEST = "k"
    """k pairs of event time and value, the latest first, as LAST orders them; -inf where there are fewer."""
    BYTES = "b"
    """The bytes of four doubles: 32 small numbers, of each the larger. Never read as doubles; alone in its layout."""

    @property
    def width(self) -> int:
        """Components of one (of LATEST: of each of its k)."""
        return {"v": 3, "f": 2, "l": 2, "k": 2, "b": 4}.get(self.value, 1)

    @property
    def empty(self) -> tuple[float, ...]:
        """The partial of no values, the neutral element of the merge (of LATEST: each of its k)."""
        return _EMPTY[self.value]


_EMPTY: dict[str, tuple[float, ...]] = {
    "+": (0.0,),
    "<": (float("inf"),),
    ">": (float("-inf"),),
    "v": (0.0, 0.0, 0.0),
    "f": (float("inf"), float("inf")),
    "l": (float("-inf"), float("-inf")),
    "k": (float("-inf"), float("-inf")),
    "b": (0.0, 0.0, 0.0, 0.0),
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """One group of components: what is kept of `column` (empty: of the event itself)."""

    kind: str
    column: str
    op: Op
    at: int
    """Index of its first component; 0 is the tile index."""
    k: int = 0
    """Values that LATEST keeps; 0 for every other operation."""

    @property
    def width(self) -> int:
        return self.op.width * (self.k or 1)

    @property
    def empty(self) -> tuple[float, ...]:
        """The partial of no values."""
        return self.op.empty * (self.k or 1)


@dataclass(frozen=True)
class Layout:
    """The components of the rows of one family."""

    parts: tuple[Part, ...]
    where: str | None = None
    """The view's filter: other filters, other tiles."""
    coarse: int = 0
    """Of a family of coarse tiles: how many fine ones are in each."""

    @cached_property
    def ops(self) -> str:
        """For the script: the letter of each part, behind LATEST its k."""
        return "".join(f"{p.op}{p.k or ''}" for p in self.parts)

    @cached_property
    def width(self) -> int:
        """Doubles a row, the index included."""
        return 1 + sum(p.width for p in self.parts)

    @cached_property
    def sketch(self) -> bool:
        """Whether its rows are the slots of a sketch."""
        return self.parts[0].kind in SKETCHES

    @cached_property
    def mark(self) -> str:
        """Names the layout in keys: a changed set of functions, columns or filters makes other tiles, never misread ones."""
        said = ",".join(f"{p.kind}{p.k or ''}:{p.column}" for p in self.parts)
        if self.where is not None:
            said += f"|{self.where}"
        if self.coarse:
            said += f"|x{self.coarse}"
        return f"{crc32(said.encode()):08x}"

    def find(self, kind: str, column: str) -> Part:
        return next(p for p in self.parts if p.kind == kind and p.column == column)


SKETCHES = {"distinct": Op.BYTES, "spread": Op.ADD}
"""Kinds of parts that are sketches, and how their slots merge."""

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
    Function.LAST_K: (("latest", Op.LATEST),),
    Function.COUNT_DISTINCT: (("distinct", SKETCHES["distinct"]),),
    Function.P50: (("spread", SKETCHES["spread"]),),
    Function.P90: (("spread", SKETCHES["spread"]),),
    Function.P99: (("spread", SKETCHES["spread"]),),
}


def counted(column: str) -> str:
    """ "" for the two ways to say "events", else the column."""
    return "" if column == "*" else column


def sketch_of(aggregate: Aggregate) -> str | None:
    """The kind of sketch that the aggregate is taken from; None: it is taken from plain components."""
    kind = _NEEDS[aggregate.function][0][0]
    return kind if kind in SKETCHES else None


def layout_of(aggregates: Iterable[Aggregate], where: str | None = None) -> Layout:
    """The layout that serves all of `aggregates`; the same for every process that knows them."""
    wanted: dict[tuple[str, str], tuple[Op, int]] = {}
    for aggregate in aggregates:
        for kind, op in _NEEDS[aggregate.function]:
            name = kind, counted(aggregate.column)
            wanted[name] = op, max(aggregate.k, wanted.get(name, (op, 0))[1])
    parts = []
    at = 1
    for (kind, column), (op, k) in sorted(wanted.items()):
        parts.append(Part(kind=kind, column=column, op=op, at=at, k=k))
        at += parts[-1].width
    return Layout(tuple(parts), where)


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
        elif part.op is Op.LATEST:
            upto = i + part.width
            pairs = [
                *zip(a[i:upto:2], a[i + 1 : upto : 2], strict=True),
                *zip(b[i:upto:2], b[i + 1 : upto : 2], strict=True),
            ]
            out[i:upto] = np.array(sorted(pairs, reverse=True)[: part.k]).ravel()
        elif part.op is Op.BYTES:
            upto = i + part.width
            out[i:upto] = np.maximum(a[i:upto].view(np.uint8), b[i:upto].view(np.uint8)).view(np.float64)
        else:
            n = a[i] + b[i]
            if n > 0:
                delta = b[i + 1] - a[i + 1]
                out[i] = n
                out[i + 1] = a[i + 1] + delta * b[i] / n
                out[i + 2] = a[i + 2] + b[i + 2] + delta * delta * a[i] * b[i] / n
    return out
