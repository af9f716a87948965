"""What a plan for other engines ranks or counts in several steps: the latest values, percentiles and distinct values.

Each function here answers some aggregates that see the same events of a question: `seen` has a row for each of those, `by`
are the columns of the question, and the answer is a table of `by` and the features, without the questions that have none.
Ranks come from window functions, which the engines spill to disk: no window has to fit into memory.

**Percentiles** are the local engine's to the last bit. The bucket of a number is guessed by a logarithm and corrected by the
bounds of sketches.py, which come along as a table of 2,900 rows. What stands for it takes the number's place before the numbers
are ranked: buckets lie in the order of their numbers.

**Distinct values** are counted in registers of the same hash (Spark's own; for DuckDB computed in Python) and estimated by the
same formula. Two things are left: registers are added up in no order, so an estimate within 1e-12 of a half may round to the
other side; and Ertl's correction for a register of the last rank (one value in 2**52 has it) is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import xxhash

from millstream_tiles.ibis_columns import MINE, beside, builtin, double, floor_to
from millstream_tiles.sketches import BOUNDS, REGISTERS, SEED, percentiles, sigma, spread_slots

_REST = 2**52
"""The bits of a hash behind its register."""

_GUESS, _LOW, _HIGH, _BELOW, _HERE, _ABOVE = (
    f"{MINE}{name}" for name in ("guess", "low", "high", "below", "here", "above")
)
_PLACE, _N, _REGISTER, _PART, _SUM, _FILLED, _SIGMA = (
    f"{MINE}{name}" for name in ("place", "n", "register", "part", "sum", "filled", "sigma")
)


def latest_lists(seen: ir.Table, by: Sequence[str], event: str, number: str, most: Mapping[str, int]) -> ir.Table:
    """For each name the list of so many latest numbers, the latest first; among equal times the larger is the later."""
    order = ibis.window(group_by=by, order_by=[ibis.desc(event), ibis.desc(number)])
    placed = seen.mutate(**{_PLACE: ibis.row_number().over(order)})
    placed = placed.filter(placed[_PLACE] < max(most.values()))
    # No engine's aggregate keeps an order that all of them do; so the place goes into the list, and is taken out.
    each = ibis.struct({"place": placed[_PLACE], "value": placed[number]})
    lists = {name: each.collect(where=placed[_PLACE] < k) for name, k in most.items()}
    found = placed.group_by(by).agg(**lists)
    return found.mutate(**{name: found[name].sort().map(lambda one: one["value"]) for name in most})


def percentiles_of(seen: ir.Table, by: Sequence[str], stand_in: str, quantiles: Mapping[str, float]) -> ir.Table:
    """For each name the value at rank floor(quantile * (n - 1)) of the n values of a question."""
    ranked = seen.mutate(
        **{
            _PLACE: ibis.row_number().over(ibis.window(group_by=by, order_by=stand_in)),
            _N: seen.count().over(ibis.window(group_by=by)),
        }
    )
    # In whole hundredths: to some engines 0.9 is a decimal, to others a double.
    ranks = {name: floor_to((ranked[_N] - 1) * round(q * 100), 100) for name, q in quantiles.items()}
    return ranked.group_by(by).agg(
        **{name: ranked[stand_in].max(where=ranked[_PLACE] * 100 == rank) for name, rank in ranks.items()}
    )


def bucketed(rows: ir.Table, number: str, stand_in: str) -> ir.Table:
    """`rows` with the column `stand_in`: what stands for the bucket of `number`; NULL where that is NULL."""
    n = len(BOUNDS)
    here = percentiles(np.arange(n), spread_slots(BOUNDS), np.ones(n), n, 0.5)  # of the one value at each bound
    # One row more at each end: the guess is at most one bucket off.
    low, high = np.concatenate([[0, 0], BOUNDS]), np.concatenate([[0], BOUNDS, [math.inf]])
    values = np.pad(here, 2, mode="edge")
    table = {
        _GUESS: pa.array(range(-1, n + 1), pa.int64()),
        _LOW: low,
        _HIGH: high,
        _BELOW: values[:-2],
        _HERE: values[1:-1],
        _ABOVE: values[2:],
    }
    buckets = beside(rows, pa.table(table))
    size = rows[number].abs()
    # A logarithm of nothing is an error to DuckDB and null to Spark.
    steps = ibis.cases((size >= double(BOUNDS[0]), size / double(BOUNDS[0]))).ln()
    guess = (steps / double(math.log(BOUNDS[1] / BOUNDS[0]))).ceil()
    guessed = rows.mutate(**{_GUESS: guess.cast("int64")})
    found = guessed.left_join(buckets, _GUESS)
    size = found[number].abs()
    value = ibis.cases((size <= found[_LOW], found[_BELOW]), (size <= found[_HIGH], found[_HERE]), else_=found[_ABOVE])
    stands = ibis.cases((size < double(BOUNDS[0]), double(0.0)), (found[number] < 0, -value), else_=value)
    return found.select(*rows.columns, **{stand_in: ibis.cases((found[number].notnull(), stands))})


def distinct_estimates(seen: ir.Table, by: Sequence[str], hashed: str, names: Sequence[str]) -> ir.Table:
    """How many different hashes there are, as HyperLogLog says: the same number under each of `names`."""
    register = floor_to(seen[hashed], _REST)
    rest = seen[hashed] - register
    bits = builtin("bin", dt.int64, dt.string)(rest * 2 + 1).length() - 1  # all the digits, none for 0
    # A register of rank r adds 2**-r: the more zeros lead the rest of a hash, the higher its rank.
    parts = seen.mutate(**{_REGISTER: register, _PART: double(2.0).pow(bits - 53)})
    registers = parts.group_by(*by, _REGISTER).agg(**{_PART: parts[_PART].min()})
    sums = registers.group_by(by).agg(**{_SUM: registers[_PART].sum(), _FILLED: registers.count()})
    filled = np.arange(1, REGISTERS + 1)
    empty = REGISTERS * sigma((REGISTERS - filled) / REGISTERS)
    found = sums.left_join(beside(seen, pa.table({_FILLED: pa.array(filled), _SIGMA: empty})), _FILLED)
    estimate = double(REGISTERS * REGISTERS / (2 * math.log(2))) / (found[_SUM] + found[_SIGMA])
    return found.select(*by, **dict.fromkeys(names, estimate.round().cast("int64")))


def hash_of(text: Any, engine: str) -> Any | None:
    """XXH64 of `text` as int64; None: the engine has no such function."""
    if engine == "pyspark":
        found = builtin("xxhash64", dt.string, dt.int64)(text)  # of the seed 42, which is also what it says of NULL
        return ibis.cases((text.notnull(), found))
    if engine == "duckdb":
        return ibis.udf.scalar.pyarrow(_xxh64s, signature=((dt.string,), dt.int64))(text)
    return None


def _xxh64s(text: Any) -> Any:
    return pa.array([None if one is None else _xxh64(one) for one in text.to_pylist()], pa.int64())


def _xxh64(text: str) -> int:
    return int.from_bytes(xxhash.xxh64_digest(text.encode(), seed=SEED), signed=True)
