"""What a windowed feature means: the one definition that online, offline and the recount implement.

For an aggregate with window `w` and slide `s` (`w % s == 0`), an event with event time `e` belongs to tile
`k = floor(e / s)`. The value at time `t` is the aggregate over the events with

    floor(t / s) - w / s  <  k  <=  floor(t / s)      and      known_at <= t      and not late

so the newest tile is partial and fresh to the last event, and the oldest edge moves by whole slides. An event is late
when `known_at - e > lateness`, a property of the event alone. No event in the window: counts and sum are 0, every other
function is null (NaN in our float64 columns).

**Which values count.** `count` of column "*" or "" counts events; `count` of a column counts events whose value there is
not null, whatever its type; `count_distinct` counts the texts, numbers and booleans there, compared as keys are, with true
as 1 and false as 0. The other functions see numbers only: a JSON number, or a boolean as 1 or 0 (a lake column of doubles
holds it so). Null, NaN, infinity, text, lists and any number beyond +-2**53 (`LARGEST`) count as null there and are ignored;
a float NaN is null for `count` too. So every sum stays finite and exact enough to compare.

**Which events count.** Not late ones; not those with a null in one of the view's keys; not those for which the view's
filter (`where`) is false, null or not computable; and, where the stream has an event id, one of each id: of the events on
time, the first known (then the lower partition, then the lower offset; online: the first applied), whether the filter
lets it through or not. A null id is never a duplicate. Copies are promised to be recognised while their event times
lie within `View.dedupe_span` of each other; exact copies always are, since a copy that comes later than that is late.

**Keys** compare as text (`millstream_tiles.keys.key_text`): 42, 42.0 and "42" are one entity, true is "true".

All times are int64 microseconds since the epoch, UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

LARGEST = 2.0**53
"""Largest magnitude that counts as a number: beyond it doubles skip integers, and squares of sums could overflow."""

DAY = 86_400_000_000
"""One day in microseconds."""


class Function(StrEnum):
    """The aggregate functions. All are mergeable: partial(a) + partial(b) = partial(a and b).

    Exact but for rounding: `count`, `sum`, `mean`, `min`, `max`, `var`, `std`, `first`, `last`, `last_k`. Estimates, the same
    online, offline and recounted since their sketches merge without loss (`millstream_tiles.sketches`): `count_distinct`
    with a standard error of 1.6 %, and `p50`, `p90`, `p99` within 1 % of the value that stands there.

    `var` is the sample variance and `std` its root (n - 1; null below two values). `last` is the value with the largest
    event time, `first` that with the smallest; among equal event times the larger value is the last and the smaller one the
    first, so that merging commutes. `last_k` (written `last_5` for five) is the list of the latest k values, the latest
    first; shorter where the window holds fewer, null where it holds none. A percentile is the value at rank
    `floor(q (n - 1))`, from 0, of the n values in ascending order.
    """

    COUNT = "count"
    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    VAR = "var"
    STD = "std"
    FIRST = "first"
    LAST = "last"
    LAST_K = "last_k"
    COUNT_DISTINCT = "count_distinct"
    P50 = "p50"
    P90 = "p90"
    P99 = "p99"

    @property
    def counts(self) -> bool:
        """Whether its values are whole numbers, 0 where nothing is."""
        return self in (Function.COUNT, Function.COUNT_DISTINCT)

    @property
    def quantile(self) -> float | None:
        """The part of the values that lies below it; None: it is no percentile."""
        return _QUANTILES.get(self.value)


_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}

MOST_LATEST = 100
"""Largest k of `last_k`: each tile keeps so many values, and a longer history is a question to the lake."""


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """One feature of a view: `function(column)` over `window`, moving by `slide` (both microseconds)."""

    name: str
    function: Function
    column: str
    window: int
    slide: int
    k: int = 0
    """How many values `last_k` keeps; 0 for every other function."""

    @property
    def tiles(self) -> int:
        """How many tiles the window spans."""
        return self.window // self.slide

    @property
    def columns(self) -> tuple[str, ...]:
        """What a model sees of it: itself, or one column for each value of `last_k`, the latest first (NaN: there is none)."""
        return (self.name,) if not self.k else tuple(f"{self.name}__{place}" for place in range(1, self.k + 1))

    def tile_range(self, t: int) -> tuple[int, int]:
        """The tiles visible at `t`: first and last index, both included."""
        newest = t // self.slide
        return newest - self.tiles + 1, newest


@dataclass(frozen=True, kw_only=True)
class View:
    """One Feast StreamFeatureView as Millstream computes it: the events of `stream`, grouped by `keys`."""

    name: str
    stream: str
    keys: tuple[str, ...]
    """Join keys, in Feast's order; each is a column of the stream's events. An event with a null key is in no window."""
    time_field: str
    lateness: int
    event_id: str | None
    """Column by which duplicates are recognised; None: every record counts."""
    aggregates: tuple[Aggregate, ...]
    where: str | None = None
    """An expression over one event (`millstream_expression`): events of which it is not true are in no window."""

    @property
    def slides(self) -> tuple[int, ...]:
        """The distinct slides, ascending: one family of tiles for each."""
        return tuple(sorted({a.slide for a in self.aggregates}))

    @property
    def dedupe_span(self) -> int:
        """Copies of one id are recognised while their event times are at most this far apart (microseconds)."""
        return self.lateness + DAY

    def is_late(self, event_time: int, known_at: int) -> bool:
        return known_at - event_time > self.lateness
