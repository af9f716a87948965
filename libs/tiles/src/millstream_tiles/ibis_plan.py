"""The same windowed features as a plan in Ibis: whoever outgrows one machine runs it on Spark or Trino.

    import ibis
    from millstream_tiles.ibis_plan import windowed_features

    spark = ibis.pyspark.connect(session)
    events = {"orders": spark.table("lake.orders")}
    training = windowed_features(views_of(store).values(), events, spark.table("questions"))
    training.to_parquet("s3a://training/today")

The plan is the definition written as relations: late events out, one event of each id, then each question joined with the
events of its key and aggregated with one condition per window. What keeps it from comparing every question with every event
of a busy key: time is cut into buckets as long as the longest window and slide together, an event is in one of them and a
question looks into two. So it is an equality join on (keys, bucket), which every engine shuffles by hash and Spark's adaptive
execution splits where one key is busy; the conditions on time are the rest of the join. Rows between join and aggregation: for
each question the events of its key in one longest window. What takes steps (`last_k`, percentiles, distinct values) is a branch
of its own from there, for each column, window and slide; an engine that shares no work between branches joins again for each.
The local engine (history.py) has no such factor, it answers a question from a few blocks however many events they hold: where
it fits, it is the faster one.

The values are the local engine's, sums and means to rounding; what is to say of estimates and of filters stands in
ibis_windows.py and ibis_filter.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields

import ibis
import ibis.expr.types as ir

from millstream_tiles.definition import Aggregate, Function, View
from millstream_tiles.errors import TilesError
from millstream_tiles.ibis_columns import MINE, beyond_us, engine_of, floor_to, micros, need, number, present, text
from millstream_tiles.ibis_filter import let_through
from millstream_tiles.ibis_windows import bucketed, distinct_estimates, hash_of, latest_lists, percentiles_of
from millstream_tiles.join_events import EVENT_TIME, ID, KNOWN_AT, OFFSET, PARTITION, every_event

TIME = "event_timestamp"
"""The questions' column of time, as Feast calls it."""

_AT, _BUCKET, _EVENT, _KNOWN, _COPY = (f"{MINE}{name}" for name in ("at", "bucket", "event", "known", "copy"))

_UNDERSTOOD = {"name", "stream", "keys", "time_field", "lateness", "event_id", "aggregates", "where"}
_UNDERSTOOD |= {"function", "column", "window", "slide", "k"}
"""What this plan computes of View and Aggregate. Whatever else one says is refused: ignored, it would be a wrong number."""


def windowed_features(
    views: Iterable[View],
    events: Mapping[str, ir.Table],
    questions: ir.Table,
    *,
    time: str = TIME,
    full_feature_names: bool = False,
) -> ir.Table:
    """`questions` with one more column for each feature of `views`: its value as known at the question's `time`.

    `events` has one table per stream with the lake's columns (`_event_time`, `_known_at`, `_partition`, `_offset`, `_id`
    and the event's own); late and repeated events belong into it. For questions from `a` to `b` it may be cut to event
    times from `a` - longest window - `View.dedupe_span` to `b` + longest slide + `View.dedupe_span`: filter by `_date`,
    and the engine skips files. Times are timestamps (on DuckDB and PySpark) or int64 microseconds since the epoch, UTC
    (everywhere). `questions` has the views' join keys; every other column is passed on, rows come in no order, and a
    question may be there twice.

    Counts are int64, `last_k` is a list of float64 (the latest first), everything else float64; NULL where there is nothing. A
    fractional key is spelled as the engine spells it, so as text in one table and as a number in the other it may not be found.

    Raises BadView for what this plan does not compute (the local engine does: `get_historical_features`): a filter that takes a
    column for what it is not, `count_distinct` of a column of fractions (each engine spells them in its own way) and on engines
    other than DuckDB and PySpark (no XXH64). Raises TilesError for a column that is missing or there twice.
    """
    views = list(views)
    texts: list[dict[str, ir.Value]] = []
    for place, view in enumerate(views):
        for key in view.keys:
            need(questions, key, f"view {view.name}: the questions")
        texts.append({f"{MINE}key{place}_{i}": text(questions[key]) for i, key in enumerate(view.keys)})
    every = {name: key for keys in texts for name, key in keys.items()}
    # All views ask with this one table: asked with the answers of the view before, a plan would double with each.
    given = answered = questions.mutate(**{_AT: micros(questions, time)}, **every)
    made: list[str] = []
    for view, keys in zip(views, texts, strict=True):
        if view.stream not in events:
            raise TilesError(f"view {view.name}: no events of stream {view.stream!r}; there are {sorted(events)}")
        names = {a.name: f"{view.name}__{a.name}" if full_feature_names else a.name for a in view.aggregates}
        for name in names.values():
            if name in made or name in questions.columns:
                raise TilesError(f"view {view.name}: there are two columns {name!r}; ask with full_feature_names=True")
        made += names.values()
        asked = given.select(*keys, _AT).distinct()
        found = _answers(view, list(keys), events[view.stream], asked).rename({new: old for old, new in names.items()})
        # A question without events finds no row; nothing at all counts 0 and adds up to 0.
        none = {a.name: 0 for a in view.aggregates if a.function.counts or a.function is Function.SUM}
        columns = {new: found[new].fill_null(none[old]) if old in none else found[new] for old, new in names.items()}
        kept = {column: answered[column] for column in answered.columns}
        answered = answered.left_join(found, [*keys, _AT]).select(**kept, **columns)
    return answered.select(*questions.columns, *made)


def _answers(view: View, keys: list[str], events: ir.Table, asked: ir.Table) -> ir.Table:
    """The value of each aggregate for each of the distinct questions `asked` (`keys`, time) that has events in its reach."""
    usable = _usable(view, keys, events)
    back, ahead = max(a.window for a in view.aggregates), max(a.slide for a in view.aggregates)
    # What a question may see happened after t - back and before t + ahead: in one bucket of that size or in the next.
    size = back + ahead
    usable = usable.mutate(**{_BUCKET: floor_to(usable[_EVENT], size)})
    first = floor_to(asked[_AT] - back, size)
    newest = {f"{MINE}newest{slide}": floor_to(asked[_AT], slide) for slide in view.slides}
    looks = asked.mutate(**{_BUCKET: first}, **newest).union(asked.mutate(**{_BUCKET: first + size}, **newest))
    pairs = looks.join(
        usable,
        [
            *(looks[name] == usable[name] for name in (*keys, _BUCKET)),
            usable[_KNOWN] <= looks[_AT],
            usable[_EVENT] > looks[_AT] - back,
            usable[_EVENT] < looks[_AT] + ahead,
        ],
    )
    by = [*keys, _AT]
    at_once, in_steps = _shares(view)
    found = pairs.group_by(by).agg(**{a.name: _value(view, a, pairs) for a in at_once})
    for alike in in_steps:
        more = _branch(view, alike, pairs, by)
        kept = {column: found[column] for column in found.columns}
        found = found.left_join(more, by).select(**kept, **{a.name: more[a.name] for a in alike})
    return found


def _shares(view: View) -> tuple[list[Aggregate], list[list[Aggregate]]]:
    """The aggregates that one GROUP BY gives, and those that take steps: together where they see the same events."""
    at_once: list[Aggregate] = []
    in_steps: dict[tuple[str, str, int, int], list[Aggregate]] = {}
    for a in view.aggregates:
        kind = "percentile" if a.function.quantile else a.function.value
        if kind in ("percentile", Function.LAST_K, Function.COUNT_DISTINCT):
            in_steps.setdefault((kind, a.column, a.window, a.slide), []).append(a)
        else:
            at_once.append(a)
    return at_once, list(in_steps.values())


def _usable(view: View, keys: list[str], events: ir.Table) -> ir.Table:
    """The events that may enter the view's windows: times, keys as text, and what its aggregates need of each column."""
    ones: tuple[View | Aggregate, ...] = (view, *view.aggregates)
    for one in ones:
        for field in fields(one):
            if field.name not in _UNDERSTOOD and getattr(one, field.name):
                raise beyond_us(view, field.name if one is view else f"{one.name}: {field.name}")
    for a in view.aggregates:
        if every_event(a.column) and a.function is not Function.COUNT:
            raise beyond_us(view, f"{a.name}: {a.function} of no column")
    by_id = view.event_id is not None
    for column in (EVENT_TIME, KNOWN_AT, *((PARTITION, OFFSET, ID) if by_id else ()), *view.keys, *_columns(view)):
        need(events, column, f"view {view.name}: events of stream {view.stream}")
    rows = events.mutate(**{_EVENT: micros(events, EVENT_TIME), _KNOWN: micros(events, KNOWN_AT)})
    rows = rows.filter(rows[_KNOWN] - rows[_EVENT] <= view.lateness)
    if by_id:
        # Events without an id are each in a group of their own: all of them in one would be one task's work.
        alone = [ibis.cases((rows[ID].isnull(), rows[column].cast("int64"))) for column in (PARTITION, OFFSET)]
        copies = ibis.window(group_by=[rows[ID], *alone], order_by=[rows[_KNOWN], rows[PARTITION], rows[OFFSET]])
        rows = rows.mutate(**{_COPY: ibis.row_number().over(copies)})
        rows = rows.filter(rows[_COPY] == 0)
    rows = let_through(view, rows)  # after the copies: one that the filter keeps out is still the first
    kept: dict[str, ir.Value] = {name: text(rows[key]) for name, key in zip(keys, view.keys, strict=True)}
    for i, column in enumerate(_columns(view)):
        kept |= {f"{MINE}number{i}": number(rows[column]), f"{MINE}present{i}": present(rows[column])}
        for a in view.aggregates:
            if a.column == column and a.function is Function.COUNT_DISTINCT:
                kept[f"{MINE}hash{i}"] = _hash(view, a, rows)
    rows = rows.select(_EVENT, _KNOWN, **kept)
    rows = rows.filter(*(rows[key].notnull() for key in keys)) if keys else rows
    for column in dict.fromkeys(a.column for a in view.aggregates if a.function.quantile):
        place = _place(view, column)
        rows = bucketed(rows, f"{MINE}number{place}", f"{MINE}bucketed{place}")
    return rows


def _hash(view: View, aggregate: Aggregate, rows: ir.Table) -> ir.Value:
    column = rows[aggregate.column]
    kind = column.type()
    if not (kind.is_string() or kind.is_integer() or kind.is_boolean()):
        raise beyond_us(view, f"{aggregate.name}: count_distinct of {aggregate.column!r}, which is {kind},")
    # true counts as 1 here, and as a key it is "true".
    found = hash_of(text(column.cast("int64") if kind.is_boolean() else column), engine_of(rows))
    if found is None:
        raise beyond_us(view, f"{aggregate.name}: count_distinct, whose hash DuckDB and PySpark have,")
    return found


def _mine(aggregate: Aggregate, pairs: ir.Table) -> ir.BooleanValue:
    """Whether the event of a pair is in the question's tiles."""
    newest, event = pairs[f"{MINE}newest{aggregate.slide}"], pairs[_EVENT]
    return (event >= newest - (aggregate.window - aggregate.slide)) & (event < newest + aggregate.slide)


def _branch(view: View, alike: list[Aggregate], pairs: ir.Table, by: list[str]) -> ir.Table:
    """What takes steps, of aggregates of one kind that see the same events."""
    one = alike[0]
    place = _place(view, one.column)
    read = f"{MINE}{'hash' if one.function is Function.COUNT_DISTINCT else 'number'}{place}"
    seen = pairs.filter(_mine(one, pairs), pairs[read].notnull())
    if one.function is Function.LAST_K:
        return latest_lists(seen, by, _EVENT, read, {a.name: a.k for a in alike})
    if one.function is Function.COUNT_DISTINCT:
        return distinct_estimates(seen, by, read, [a.name for a in alike])
    return percentiles_of(seen, by, f"{MINE}bucketed{place}", {a.name: a.function.quantile or 0.0 for a in alike})


def _value(view: View, aggregate: Aggregate, pairs: ir.Table) -> ir.Value:
    """`aggregate` over those events of a question that are in its tiles."""
    mine = _mine(aggregate, pairs)
    if every_event(aggregate.column):
        return pairs.count(where=mine)
    place = _place(view, aggregate.column)
    if aggregate.function is Function.COUNT:
        return pairs.count(where=mine & pairs[f"{MINE}present{place}"])
    value = pairs[f"{MINE}number{place}"]
    mine &= value.notnull()
    match aggregate.function:
        case Function.SUM:
            return value.sum(where=mine)
        case Function.MEAN:
            return value.mean(where=mine)
        case Function.MIN:
            return value.min(where=mine)
        case Function.MAX:
            return value.max(where=mine)
        case Function.VAR:
            return value.var(where=mine, how="sample")
        case Function.STD:
            return value.std(where=mine, how="sample")
        # By event time, then by value: structs are compared field by field.
        case Function.FIRST:
            return ibis.struct({"at": pairs[_EVENT], "value": value}).min(where=mine)["value"]
        case Function.LAST:
            return ibis.struct({"at": pairs[_EVENT], "value": value}).max(where=mine)["value"]
    raise beyond_us(view, f"{aggregate.name}: function {aggregate.function}")


def _columns(view: View) -> list[str]:
    return list(dict.fromkeys(a.column for a in view.aggregates if not every_event(a.column)))


def _place(view: View, column: str) -> int:
    return _columns(view).index(column)
