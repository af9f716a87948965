"""Reads a Feast StreamFeatureView as the View that Millstream computes, or says why it cannot."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches

from feast import Entity, FeatureStore, Field, KafkaSource
from feast.aggregation import Aggregation
from feast.feature_view import DUMMY_ENTITY_NAME
from feast.feature_view_projection import FeatureViewProjection
from feast.stream_feature_view import StreamFeatureView
from feast.types import Array, Float64, Int64

from millstream_expression import BadExpression
from millstream_tiles.definition import DAY, MOST_LATEST, Aggregate, Function, View
from millstream_tiles.durations import micros
from millstream_tiles.errors import BadView
from millstream_tiles.filters import filter_of
from millstream_tiles.sketches import SHORTEST_SLIDE
from millstream_tiles.source import DEFAULT_LATENESS, ID_TAG
from millstream_tiles.tiling import FLAT, MOST_TILES

WHERE_TAG = "where"
"""The tag of a view that holds its filter, an expression over one event."""

MINUTE = 60_000_000
_LATEST = re.compile(r"last_(\d{1,6})")

# Feast says so whenever it builds one, and it builds them anew for every request.
warnings.filterwarnings("ignore", message="Stream feature views are experimental", category=RuntimeWarning)


def is_windowed(view: object) -> bool:
    """Whether Millstream computes this Feast view (a StreamFeatureView with aggregations) or Feast itself."""
    return isinstance(view, StreamFeatureView) and bool(view.aggregations)


def views_of(store: FeatureStore) -> dict[str, View]:
    """All windowed views of a store by name. Raises BadView for the first that cannot be computed; `open_store` let none in."""
    entities = {e.name: e for e in store.list_entities()}
    return {v.name: view_of(v, entities) for v in store.list_stream_feature_views() if is_windowed(v)}


def view_of(sfv: StreamFeatureView, entities: Mapping[str, Entity] | None = None) -> View:
    """`sfv` as a View. Raises BadView.

    An applied view knows its join keys by its entity columns; for one that is not, `entities` (by name) gives them, and
    an entity that is not there either is taken to have its own name as join key.
    """
    if (problem := next(problems_of(sfv, entities), None)) is not None:
        raise BadView(sfv.name, problem)
    source, keys = sfv.stream_source, _join_keys(sfv, entities or {})
    lateness = source.kafka_options.watermark_delay_threshold
    return View(
        name=sfv.name,
        stream=source.kafka_options.topic or source.name,
        keys=keys,
        time_field=sfv.timestamp_field or source.timestamp_field,
        lateness=micros(DEFAULT_LATENESS if lateness is None else lateness),
        event_id=source.tags.get(ID_TAG),
        aggregates=tuple(_aggregate(a) for a in sfv.aggregations),
        where=sfv.tags.get(WHERE_TAG),
    )


def problems_of(sfv: StreamFeatureView, entities: Mapping[str, Entity] | None = None) -> Iterator[str]:
    """Why `sfv` cannot be computed and what to write instead; nothing where it can. `entities` as in `view_of`."""
    if not isinstance(sfv.stream_source, KafkaSource):
        yield "its source is not a stream; write source=stream_source('../streams/NAME.yaml')"
    if not sfv.aggregations:
        yield "it has no aggregations; without any it is an ordinary view that Feast serves itself"
    keys = _join_keys(sfv, entities or {})
    if not keys:
        yield "it has no entity; write entities=[...], windows are kept for each entity"
    for aggregation in sfv.aggregations:
        for problem in _aggregation_problems(aggregation):
            yield f"aggregation {feature_name(aggregation)!r}: {problem}"
    if (where := sfv.tags.get(WHERE_TAG)) is not None:
        yield from _filter_problems(where)
    for tag in get_close_matches(WHERE_TAG, [tag for tag in sfv.tags if tag != WHERE_TAG], cutoff=0.75):
        yield f"tag {tag!r} means nothing; did you mean {WHERE_TAG!r}, the filter of the view's events?"
    names = [feature_name(aggregation) for aggregation in sfv.aggregations]
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            yield f"two aggregations are called {name!r}; give one of them a name=..."
        if name in keys:
            yield f"aggregation {name!r} has the name of a join key; give it another name=..."
    for field in sfv.features:
        # An SFV that comes back from the registry lists its join keys among its features (Feast 0.67).
        if field.name not in names and field.name not in keys:
            yield f"schema field {field.name!r} is made by no aggregation; there are {', '.join(sorted(names))}"


def schema_of(aggregations: Iterable[Aggregation]) -> list[Field]:
    """The `schema=` of a view with these aggregations: Int64 for counts, a list for `last_k`, Float64 for everything else.

    `feast apply` infers a schema from the columns of the batch source, which knows nothing of aggregations; so a view
    for plain Feast must state it. `open_store` adds it where it is missing.
    """
    fields = []
    for aggregation in aggregations:
        function, _ = function_of(aggregation.function)
        dtype = Array(Float64) if function is Function.LAST_K else Int64 if function and function.counts else Float64
        fields.append(Field(name=feature_name(aggregation), dtype=dtype))
    return fields


def function_of(text: str) -> tuple[Function | None, int]:
    """The function that an aggregation names, None if there is no such; and the k of `last_5`, else 0."""
    if (latest := _LATEST.fullmatch(text or "")) is not None:
        return Function.LAST_K, int(latest[1])
    known = [f for f in Function if f is not Function.LAST_K]
    return next((f for f in known if f == text), None), 0


def feature_name(aggregation: Aggregation) -> str:
    """The feature that an aggregation makes: its own name, else as Feast derives it, e.g. "mean_delay_3600s"."""
    return str(aggregation.resolved_name(aggregation.time_window))


def columns_in(projection: FeatureViewProjection, views: Mapping[str, View]) -> list[str]:
    """The columns "view__feature" that a model sees of one view of a FeatureService; a `last_k` is k of them."""
    view = views.get(projection.name)
    columns = {a.name: a.columns for a in view.aggregates} if view else {}
    prefix = projection.name_to_use()
    return [f"{prefix}__{column}" for f in projection.features for column in columns.get(f.name, (f.name,))]


def _join_keys(sfv: StreamFeatureView, entities: Mapping[str, Entity]) -> tuple[str, ...]:
    names = [n for n in sfv.entities if n != DUMMY_ENTITY_NAME]
    columns = [c.name for c in sfv.entity_columns]
    if len(columns) == len(names):  # always so once applied; its order is what writers and readers then agree on
        return tuple(columns)
    return tuple(entities[n].join_key if n in entities else n for n in names)


def _aggregation_problems(aggregation: Aggregation) -> Iterator[str]:
    function, k = function_of(aggregation.function)
    if function is None:
        known = ["last_5 (the latest five values)" if f is Function.LAST_K else f.value for f in Function]
        yield f"no function {aggregation.function!r}; there are {', '.join(known)}"
    if function is Function.LAST_K and not 1 <= k <= MOST_LATEST:
        yield f"{aggregation.function!r} keeps {k} values; write last_1 to last_{MOST_LATEST}"
    if not aggregation.column and aggregation.function != Function.COUNT:
        yield "no column; only count may go without"
    if not aggregation.time_window or micros(aggregation.time_window) <= 0:
        yield "no window; write time_window=timedelta(hours=1)"
        return
    window, slide = micros(aggregation.time_window), micros(aggregation.slide_interval or aggregation.time_window)
    if slide <= 0 or window % slide:
        parts = next(n for n in (6, 5, 4, 3, 2, 1) if window % n == 0)
        yield (
            f"slide {aggregation.slide_interval} does not divide window {aggregation.time_window}; write for example "
            f"slide_interval={_duration(window // parts)}"
        )
        return
    sketch = function is not None and (function is Function.COUNT_DISTINCT or function.quantile is not None)
    most = FLAT if sketch else MOST_TILES
    if window // slide > most:
        fewer = next((n for n in range(most, 0, -1) if window % n == 0 and window // n % MINUTE == 0), 1)
        yield (
            f"its window is {window // slide} slides, {aggregation.function} may have {most}; write for example "
            f"slide_interval={_duration(window // fewer)}"
        )
    if sketch and slide < SHORTEST_SLIDE:
        yield f"slide {aggregation.slide_interval} is too short for {aggregation.function}; write a second or more"


def _duration(span: int) -> str:
    """`span` (microseconds) as a person writes it in Python."""
    for unit, size in (("days", DAY), ("hours", 60 * MINUTE), ("minutes", MINUTE), ("seconds", MINUTE // 60)):
        if span and span % size == 0:
            return f"timedelta({unit}={span // size})"
    return f"timedelta(microseconds={span})"


def _filter_problems(where: str) -> Iterator[str]:
    try:
        compiled = filter_of(where)
    except BadExpression as error:
        yield f"tags={{'where': ...}}: {error}"
        return
    if compiled.kind == "number":
        yield f"tags={{'where': {where!r}}} is a number; write a comparison like 'not cancelled and distance > 500'"


def _aggregate(aggregation: Aggregation) -> Aggregate:
    window, slide = micros(aggregation.time_window), micros(aggregation.slide_interval or aggregation.time_window)
    name, (function, k) = feature_name(aggregation), function_of(aggregation.function)
    if function is None:  # `problems_of` lets none pass
        raise ValueError(aggregation.function)
    return Aggregate(name=name, function=function, column=aggregation.column, window=window, slide=slide, k=k)
