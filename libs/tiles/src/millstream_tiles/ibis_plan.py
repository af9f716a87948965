"""The same windowed features as a plan in Ibis: whoever outgrows one machine runs it where the events are (Spark, Trino).

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
each question the events of its key in one longest window. The local engine (history.py) has no such factor, it answers a
question from a few blocks however many events they hold: where it fits, it is the faster one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from millstream_tiles.definition import LARGEST, Aggregate, Function, View
from millstream_tiles.errors import BadView, TilesError
from millstream_tiles.join_events import EVENT_TIME, ID, KNOWN_AT, OFFSET, PARTITION, every_event

try:
    import ibis
    import ibis.expr.datatypes as dt
    import ibis.expr.types as ir
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{error}; the plan for other engines needs `pip install 'millstream-tiles[spark]'`"
    ) from error

TIME = "event_timestamp"
"""The questions' column of time, as Feast calls it."""

_MINE = "_ms_"
"""Our own columns begin so; a stream's columns and a user's questions do not."""
_AT, _BUCKET, _EVENT, _KNOWN, _COPY = (f"{_MINE}{name}" for name in ("at", "bucket", "event", "known", "copy"))

_UNDERSTOOD = {"name", "stream", "keys", "time_field", "lateness", "event_id", "aggregates"}
_UNDERSTOOD |= {"function", "column", "window", "slide"}
"""What this plan computes of View and Aggregate. Whatever else one says is refused: ignored, it would be a wrong number."""

_MICROS = {"duckdb": "epoch_us", "pyspark": "unix_micros"}
"""What turns a timestamp into microseconds without rounding, by Ibis backend; Ibis has no word of its own for it."""


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

    Counts are int64, everything else float64 with NULL where there is nothing. A fractional key is spelled as the engine
    spells it, so as text in one table and as a number in the other it may not be found.

    Raises BadView for what this plan does not compute (the local engine does: `get_historical_features`), TilesError for a
    column that is missing or there twice.
    """
    answered = questions.mutate(**{_AT: _micros(questions, time)})
    made: list[str] = []
    for number, view in enumerate(views):
        if view.stream not in events:
            raise TilesError(f"view {view.name}: no events of stream {view.stream!r}; there are {sorted(events)}")
        names = {a.name: f"{view.name}__{a.name}" if full_feature_names else a.name for a in view.aggregates}
        for name in names.values():
            if name in made or name in questions.columns:
                raise TilesError(f"view {view.name}: there are two columns {name!r}; ask with full_feature_names=True")
        made += names.values()
        for key in view.keys:
            _need(questions, key, f"view {view.name}: the questions")
        texts = {f"{_MINE}key{number}_{i}": _text(answered[key]) for i, key in enumerate(view.keys)}
        answered = answered.mutate(**texts)
        asked = answered.select(*texts, _AT).distinct()
        found = _answers(view, list(texts), events[view.stream], asked).rename({new: old for old, new in names.items()})
        # A question without events finds no row; nothing at all counts 0 and adds up to 0.
        none = {a.name: 0 for a in view.aggregates if a.function in (Function.COUNT, Function.SUM)}
        columns = {new: found[new].fill_null(none[old]) if old in none else found[new] for old, new in names.items()}
        kept = {column: answered[column] for column in answered.columns}
        answered = answered.left_join(found, [*texts, _AT]).select(**kept, **columns)
    return answered.select(*questions.columns, *made)


def _answers(view: View, keys: list[str], events: ir.Table, asked: ir.Table) -> ir.Table:
    """The value of each aggregate for each of the distinct questions `asked` (`keys`, time) that has events in its reach."""
    usable = _usable(view, keys, events)
    back, ahead = max(a.window for a in view.aggregates), max(a.slide for a in view.aggregates)
    # What a question may see happened after t - back and before t + ahead: in one bucket of that size or in the next.
    size = back + ahead
    usable = usable.mutate(**{_BUCKET: _floor(usable[_EVENT], size)})
    first = _floor(asked[_AT] - back, size)
    newest = {f"{_MINE}newest{slide}": _floor(asked[_AT], slide) for slide in view.slides}
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
    return pairs.group_by(*keys, _AT).agg(**{a.name: _value(view, a, pairs) for a in view.aggregates})


def _usable(view: View, keys: list[str], events: ir.Table) -> ir.Table:
    """The events that may enter the view's windows: times, keys as text, and each column that its aggregates need."""
    ones: tuple[View | Aggregate, ...] = (view, *view.aggregates)
    for one in ones:
        for field in fields(one):
            if field.name not in _UNDERSTOOD and getattr(one, field.name):
                raise _beyond_us(view, field.name if one is view else f"{one.name}: {field.name}")
    by_id = view.event_id is not None
    for column in (EVENT_TIME, KNOWN_AT, *((PARTITION, OFFSET, ID) if by_id else ()), *view.keys, *_columns(view)):
        _need(events, column, f"view {view.name}: events of stream {view.stream}")
    rows = events.mutate(**{_EVENT: _micros(events, EVENT_TIME), _KNOWN: _micros(events, KNOWN_AT)})
    rows = rows.filter(rows[_KNOWN] - rows[_EVENT] <= view.lateness)
    if by_id:
        # Events without an id are each in a group of their own: all of them in one would be one task's work.
        alone = [ibis.cases((rows[ID].isnull(), rows[column].cast("int64"))) for column in (PARTITION, OFFSET)]
        copies = ibis.window(group_by=[rows[ID], *alone], order_by=[rows[_KNOWN], rows[PARTITION], rows[OFFSET]])
        rows = rows.mutate(**{_COPY: ibis.row_number().over(copies)})
        rows = rows.filter(rows[_COPY] == 0)
    kept: dict[str, ir.Value] = {text: _text(rows[key]) for text, key in zip(keys, view.keys, strict=True)}
    for i, column in enumerate(_columns(view)):
        kept |= {f"{_MINE}number{i}": _number(rows[column]), f"{_MINE}present{i}": _present(rows[column])}
    rows = rows.select(_EVENT, _KNOWN, **kept)
    return rows.filter(*(rows[key].notnull() for key in keys)) if keys else rows


def _value(view: View, aggregate: Aggregate, pairs: ir.Table) -> ir.Value:
    """`aggregate` over those events of a question that are in its tiles."""
    newest, event = pairs[f"{_MINE}newest{aggregate.slide}"], pairs[_EVENT]
    mine = (event >= newest - (aggregate.window - aggregate.slide)) & (event < newest + aggregate.slide)
    if every_event(aggregate.column):
        if aggregate.function is Function.COUNT:
            return pairs.count(where=mine)
        raise _beyond_us(view, f"{aggregate.name}: {aggregate.function} of no column")
    place = _columns(view).index(aggregate.column)
    if aggregate.function is Function.COUNT:
        return pairs.count(where=mine & pairs[f"{_MINE}present{place}"])
    number = pairs[f"{_MINE}number{place}"]
    mine &= number.notnull()
    match aggregate.function:
        case Function.SUM:
            return number.sum(where=mine)
        case Function.MEAN:
            return number.mean(where=mine)
        case Function.MIN:
            return number.min(where=mine)
        case Function.MAX:
            return number.max(where=mine)
        case Function.VAR:
            return number.var(where=mine, how="sample")
        case Function.STD:
            return number.std(where=mine, how="sample")
        # By event time, then by value: structs are compared field by field.
        case Function.FIRST:
            return ibis.struct({"at": event, "value": number}).min(where=mine)["value"]
        case Function.LAST:
            return ibis.struct({"at": event, "value": number}).max(where=mine)["value"]
    raise _beyond_us(view, f"{aggregate.name}: function {aggregate.function}")


def _columns(view: View) -> list[str]:
    return list(dict.fromkeys(a.column for a in view.aggregates if not every_event(a.column)))


def _beyond_us(view: View, what: str) -> BadView:
    remedy = "the local engine (get_historical_features) computes it"
    return BadView(view.name, f"{what} is not in the plan for Spark and SQL engines; {remedy}")


def _number(column: Any) -> Any:
    """`column` as float64; NULL where definition.py sees no number."""
    kind = column.type()
    if kind.is_boolean():
        return column.cast("float64")  # a literal 1.0 would be a decimal to Spark, and a mean of five digits
    if not kind.is_numeric():
        return ibis.null("float64")
    # Integers are compared as integers: as a double, 2**53 + 1 would pass. To SQL, NaN is greater than every number.
    largest = int(LARGEST) if kind.is_integer() else LARGEST
    return ibis.cases((column.between(-largest, largest), column.cast("float64")))


def _present(column: Any) -> Any:
    """Whether there is a value, of whatever type; NaN is none."""
    return column.notnull() & ~column.isnan().fill_null(False) if column.type().is_floating() else column.notnull()


def _text(column: Any) -> Any:
    """A key as text, as keys.py has it; NULL where it names no entity."""
    kind = column.type()
    if kind.is_boolean():
        return ibis.cases((column, "true"), (~column, "false"))
    if kind.is_integer() or kind.is_string():
        return column.cast("string")
    if kind.is_floating():
        whole = column.between(-(2.0**63), 2.0**63) & (column.floor() == column)
        return ibis.cases((whole, column.try_cast("int64").cast("string")), (~column.isnan(), column.cast("string")))
    return ibis.null("string")


def _micros(table: Any, name: str) -> Any:
    _need(table, name, "questions or events")
    column = table[name]
    if column.type().is_integer():
        return column.cast("int64")
    backends, _ = table._find_backends()
    function = _MICROS.get(backends[0].name) if backends else None
    if function is None or not column.type().is_timestamp():
        raise TilesError(
            f"column {name!r} is {column.type()}; give int64 microseconds since the epoch, or on DuckDB and PySpark a timestamp"
        )
    return ibis.udf.scalar.builtin(_epoch, name=function, signature=((column.type(),), dt.int64))(column)


def _epoch(at: Any) -> Any:
    """Stands for the engine's own function: Ibis wants a Python one to take the shape from."""


def _floor(value: Any, step: int) -> Any:
    """The start of the step that `value` is in. By remainders: some engines divide integers as doubles, some truncate."""
    return value - ((value % step) + step) % step


def _need(table: ir.Table, column: str, whose: str) -> None:
    if column not in table.columns:
        raise TilesError(f"{whose} have no column {column!r}; there are {', '.join(table.columns)}")
