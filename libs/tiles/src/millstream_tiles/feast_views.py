"""Reads a Feast StreamFeatureView as the View that Millstream computes, or says why it cannot."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping

from feast import Entity, FeatureStore, Field, KafkaSource
from feast.aggregation import Aggregation
from feast.feature_view import DUMMY_ENTITY_NAME
from feast.stream_feature_view import StreamFeatureView
from feast.types import Float64, Int64

from millstream_tiles.definition import Aggregate, Function, View
from millstream_tiles.durations import micros
from millstream_tiles.errors import BadView
from millstream_tiles.source import DEFAULT_LATENESS, ID_TAG

# Feast says so whenever it builds one, and it builds them anew for every request.
warnings.filterwarnings("ignore", message="Stream feature views are experimental", category=RuntimeWarning)


def is_windowed(view: object) -> bool:
    """Whether Millstream computes this Feast view (a StreamFeatureView with aggregations) or Feast itself."""
    return isinstance(view, StreamFeatureView) and bool(view.aggregations)


def views_of(store: FeatureStore) -> dict[str, View]:
    """All windowed views of a store by name. Raises BadView for the first that cannot be computed."""
    entities = {e.name: e for e in store.list_entities()}
    return {v.name: view_of(v, entities) for v in store.list_stream_feature_views() if is_windowed(v)}


def view_of(sfv: StreamFeatureView, entities: Mapping[str, Entity] | None = None) -> View:
    """`sfv` as a View. Raises BadView.

    An applied view knows its join keys by its entity columns; for one that is not, `entities` (by name) gives them, and
    an entity that is not there either is taken to have its own name as join key.
    """
    source = sfv.stream_source
    if not isinstance(source, KafkaSource):
        raise BadView(sfv.name, "its source is not a stream; write source=stream_source('../streams/NAME.yaml')")
    if not sfv.aggregations:
        raise BadView(sfv.name, "it has no aggregations; without any it is an ordinary view that Feast serves itself")
    keys = _join_keys(sfv, entities or {})
    if not keys:
        raise BadView(sfv.name, "it has no entity; write entities=[...], windows are kept for each entity")
    aggregates = tuple(_aggregate(sfv.name, a) for a in sfv.aggregations)
    names = [a.name for a in aggregates]
    for name in names:
        if names.count(name) > 1:
            raise BadView(sfv.name, f"two aggregations are called {name!r}; give one of them a name=...")
        if name in keys:
            raise BadView(sfv.name, f"aggregation {name!r} has the name of a join key; give it another name=...")
    # An SFV that comes back from the registry lists its join keys among its features (Feast 0.67).
    missing = [f.name for f in sfv.features if f.name not in names and f.name not in keys]
    if missing:
        raise BadView(
            sfv.name, f"schema field {missing[0]!r} is made by no aggregation; there are {', '.join(sorted(names))}"
        )
    lateness = source.kafka_options.watermark_delay_threshold
    return View(
        name=sfv.name,
        stream=source.kafka_options.topic or source.name,
        keys=keys,
        time_field=sfv.timestamp_field or source.timestamp_field,
        lateness=micros(DEFAULT_LATENESS if lateness is None else lateness),
        event_id=source.tags.get(ID_TAG),
        aggregates=aggregates,
    )


def schema_of(aggregations: Iterable[Aggregation]) -> list[Field]:
    """The `schema=` of a view with these aggregations: Int64 for counts, Float64 for everything else.

    `feast apply` infers a schema from the columns of the batch source, which knows nothing of aggregations; so a view
    for plain Feast must state it. `open_store` adds it where it is missing.
    """
    fields = []
    for aggregation in aggregations:
        counts = aggregation.function == Function.COUNT
        fields.append(Field(name=feature_name(aggregation), dtype=Int64 if counts else Float64))
    return fields


def feature_name(aggregation: Aggregation) -> str:
    """The feature that an aggregation makes: its own name, else as Feast derives it, e.g. "mean_delay_3600s"."""
    return str(aggregation.resolved_name(aggregation.time_window))


def _join_keys(sfv: StreamFeatureView, entities: Mapping[str, Entity]) -> tuple[str, ...]:
    names = [n for n in sfv.entities if n != DUMMY_ENTITY_NAME]
    columns = [c.name for c in sfv.entity_columns]
    if len(columns) == len(names):  # always so once applied; its order is what writers and readers then agree on
        return tuple(columns)
    return tuple(entities[n].join_key if n in entities else n for n in names)


def _aggregate(view: str, aggregation: Aggregation) -> Aggregate:
    name = feature_name(aggregation)
    try:
        function = Function(aggregation.function)
    except ValueError:
        known = ", ".join(Function)
        problem = f"aggregation {name!r}: no function {aggregation.function!r}; there are {known}"
        raise BadView(view, problem) from None
    if not aggregation.time_window or micros(aggregation.time_window) <= 0:
        raise BadView(view, f"aggregation {name!r}: no window; write time_window=timedelta(hours=1)")
    window, slide = micros(aggregation.time_window), micros(aggregation.slide_interval or aggregation.time_window)
    if slide <= 0 or window % slide:
        raise BadView(
            view,
            f"aggregation {name!r}: slide {aggregation.slide_interval} does not divide window {aggregation.time_window}; "
            f"write for example slide_interval=timedelta(seconds={window / 6e6:g}), a sixth of it",
        )
    if not aggregation.column and function is not Function.COUNT:
        raise BadView(view, f"aggregation {name!r}: no column; only count may go without")
    return Aggregate(name=name, function=function, column=aggregation.column, window=window, slide=slide)
