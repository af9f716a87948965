"""The two sketches: how many different values there are, and where a percentile lies.

Both are a few numbers in numbered slots, and merging two of them takes the larger number (distinct values) or their sum
(percentiles) slot by slot. So they merge without loss in any order: tiles, the point-in-time join and the recount come to
the same slots, and from those to the same answer, to the last bit. Sketches that compress while they merge (KLL, t-digest,
the unions of DataSketches) do not, and none of them can be merged inside the store's atomic step.

**Distinct values**: HyperLogLog (Flajolet, Fusy, Gandouet, Meunier 2007) with 4,096 registers over the 64-bit XXH64 of the
value's text, estimated as Ertl proposes ("New cardinality estimation algorithms for HyperLogLog sketches", 2017, algorithm
6), which needs no correction table. Standard error 1.04 / sqrt(4096) = 1.6 %; a handful of values is counted exactly
but where two share a register (one pair in 4,096).

**Percentiles**: DDSketch (Masson, Rim, Lee 2019): counts in buckets whose bounds grow by a constant factor, so that the answer
is within 1 % of the true value at that rank, whatever the distribution. Magnitudes below 1e-9 count as 0. The bounds are a
table made by repeated multiplication and looked up by comparison: a logarithm may differ in its last bit from one
processor to the next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from millstream_tiles.definition import LARGEST
from millstream_tiles.keys import key_text

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

SLOTS = 1 << 16
"""Slots are numbered below it."""

ROWS = SLOTS
"""Rows of a tile are numbered below it; a row of a sketch has the index `tile * ROWS + row`, exact in a double for slides of
13 ms and more."""

PACKED = 32
"""Registers in one row of `distinct`, a byte each. With one a row, a hot entity would take 57 bytes a register; with so many,
few values take 54 bytes each, and the row is short enough for the store to pack it (`hash-max-listpack-value`, 64)."""

SHORTEST_SLIDE = 1_000_000
"""Microseconds; the least slide of a sketch, far above what its row index could take."""

REGISTERS = 4096
_REST = 52
"""Bits of the hash behind the register's number."""
SEED = 42
"""Of XXH64; Spark's `xxhash64` has the same."""

ACCURACY = 0.01
"""Largest relative error of a percentile."""
_GROWTH = (1 + ACCURACY) / (1 - ACCURACY)
_SMALLEST = 1e-9
_ZERO = SLOTS // 2
"""Slot of the zeros; those of positive values lie above it, of negative ones below, in the order of the values."""


def _bounds() -> Floats:
    bounds = [_SMALLEST]
    while bounds[-1] < LARGEST:
        bounds.append(bounds[-1] * _GROWTH)
    return np.array(bounds)


BOUNDS = _bounds()
"""Bucket i (from 0) holds the magnitudes in (BOUNDS[i - 1], BOUNDS[i]]."""


def distinct_of(value: Any) -> tuple[int, int] | None:
    """Register and rank of one value; None: it is none that counts."""
    text = key_text(int(value) if isinstance(value, bool) else value)
    if text is None:
        return None
    bits: int = xxhash.xxh64_intdigest(text.encode("utf-8", "surrogatepass"), seed=SEED)
    rest = bits & ((1 << _REST) - 1)
    return bits >> _REST, _REST - rest.bit_length() + 1


def distinct_entries(values: Sequence[Any]) -> tuple[Ints, Floats]:
    """Slot (-1: none) and rank of every value. Each different value is hashed once."""
    known: dict[Any, tuple[int, int] | None] = {}
    slots, ranks = np.full(len(values), -1, dtype=np.int64), np.zeros(len(values))
    for i, value in enumerate(values):
        try:
            found = known[value]  # equal values of other types have the same text: 1, 1.0 and true are "1"
        except KeyError:
            found = known[value] = distinct_of(value)
        except TypeError:  # a list or an object
            continue
        if found is not None:
            slots[i], ranks[i] = found
    return slots, ranks


def spread_slots(numbers: Floats) -> Ints:
    """The slot of every number; -1 for NaN."""
    size = np.abs(numbers)
    bucket = np.searchsorted(BOUNDS, size) + 1
    slots = np.where(size < _SMALLEST, _ZERO, np.where(numbers > 0, _ZERO + bucket, _ZERO - bucket))
    return np.where(np.isnan(numbers), -1, slots)


def row_of(sketch: str, slots: Ints) -> Ints:
    """The row, within its tile, that holds each slot; below 0 for slot -1."""
    return slots // PACKED if sketch == "distinct" else slots


def packed(groups: Ints, slots: Ints, ranks: Floats, n: int) -> Floats:
    """The registers of `n` rows from entries of each: (n, PACKED / 8) doubles that hold bytes."""
    registers = np.zeros((n, PACKED), dtype=np.uint8)
    np.maximum.at(registers, (groups, slots % PACKED), ranks.astype(np.uint8))
    return registers.view(np.float64)


def unpacked(owners: Ints, rows: Floats) -> tuple[Ints, Ints, Floats]:
    """The entries (owner, slot, rank) of rows: their index, then their registers as `packed`."""
    registers = np.ascontiguousarray(rows[:, 1:]).view(np.uint8)
    row, place = np.nonzero(registers)
    slots = rows[row, 0].astype(np.int64) % ROWS * PACKED + place
    return owners[row], slots, registers[row, place].astype(np.float64)


def combined(owners: Ints, slots: Ints, values: Floats, merge: np.ufunc) -> tuple[Ints, Ints, Floats]:
    """The entries of each owner with every slot once, ascending by (owner, slot)."""
    places = owners * SLOTS + slots
    order = np.argsort(places, kind="stable")
    places = places[order]
    starts = np.flatnonzero(np.diff(places, prepend=-1))
    merged = merge.reduceat(values[order], starts) if len(starts) else np.empty(0)
    places = places[starts]
    return places // SLOTS, places % SLOTS, merged


def distinct_counts(owners: Ints, ranks: Floats, n: int) -> Ints:
    """How many different values each of `n` owners saw, from its `combined` registers (Ertl 2017, algorithm 6)."""
    counts = np.zeros((n, _REST + 2))
    np.add.at(counts, (owners, ranks.astype(np.int64)), 1)
    counts[:, 0] = REGISTERS - counts[:, 1:].sum(axis=1)
    z = REGISTERS * _tau(1 - counts[:, -1] / REGISTERS)
    for rank in range(_REST, 0, -1):
        z = 0.5 * (z + counts[:, rank])
    z = z + REGISTERS * sigma(counts[:, 0] / REGISTERS)
    estimate = REGISTERS * REGISTERS / (2 * math.log(2) * z)
    return np.rint(estimate).astype(np.int64)


def sigma(x: Floats) -> Floats:
    """x + sum of x^(2^k) 2^(k-1) for k = 1, 2, ...; infinite at 1 (no register was ever set)."""
    with np.errstate(over="ignore"):
        y, z = np.ones_like(x), x.copy()
        endless = x == 1
        x = np.where(endless, 0.0, x)
        while True:
            x = x * x
            before, z = z, z + x * y
            y = y + y
            if np.array_equal(before, z):
                return np.where(endless, np.inf, z)


def _tau(x: Floats) -> Floats:
    """(1 - x - sum of (1 - x^(2^-k))^2 2^-k for k = 1, 2, ...) / 3; 0 at 0 and 1."""
    ends = (x == 0) | (x == 1)
    y, z = np.ones_like(x), 1 - x
    while True:
        x = np.sqrt(x)
        y = y * 0.5
        before, z = z, z - (1 - x) ** 2 * y
        if np.array_equal(before, z):
            return np.where(ends, 0.0, z / 3)


def percentiles(owners: Ints, slots: Ints, counts: Floats, n: int, quantile: float) -> Floats:
    """The value at rank floor(quantile * (values - 1)) for each of `n` owners, from its `combined` buckets; NaN without one."""
    answer = np.full(n, np.nan)
    if not len(owners):
        return answer
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    present = owners[starts]
    upto = np.cumsum(counts)
    before = (upto - counts)[starts]
    total = np.append(before[1:], upto[-1]) - before
    # Counts are whole numbers, so every sum here is exact.
    at = np.searchsorted(upto, before + np.floor(quantile * (total - 1)), side="right")
    answer[present] = _value_of(slots[at])
    return answer


def _value_of(slots: Ints) -> Floats:
    """What stands for a bucket: the number that is equally far, relatively, from its two bounds."""
    bucket = np.abs(slots - _ZERO) - 1
    size = 2 * BOUNDS[np.maximum(bucket, 0)] / (_GROWTH + 1)
    return np.where(slots == _ZERO, 0.0, np.copysign(size, slots - _ZERO))
