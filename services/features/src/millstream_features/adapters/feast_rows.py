"""Rows that are pushed over HTTP, into the ordinary views of the project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from millstream.contracts.json_text import pointer
from millstream.errors import Refusal
from millstream_features.errors import StoreUnavailable

if TYPE_CHECKING:
    from feast import FeatureStore
    from pandas import DataFrame


class FeastRows:
    """Writes ordinary views of `store`; the windowed ones are filled from their streams alone."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store

    def push(self, *, source: str, columns: Mapping[str, Sequence[Any]], transform: bool) -> None:
        """Write rows to all views of a PushSource, as Feast's server does with `to: online`.

        Blocks. Raises Refusal(`unknown_push_source`, `filled_from_stream`, `bad_rows`), StoreUnavailable.
        """
        from feast import KafkaSource, PushSource

        sources = {v.name: getattr(v, "stream_source", None) for v in self._store.list_all_feature_views()}
        views = [v for v, s in sources.items() if isinstance(s, PushSource) and s.name == source]
        if not views:
            for kafka in sources.values():
                if isinstance(kafka, KafkaSource) and source in (kafka.name, kafka.kafka_options.topic):
                    raise _filled_from(source, kafka.kafka_options.topic)
            found = ", ".join(sorted(s.name for s in sources.values() if isinstance(s, PushSource))) or "none"
            raise Refusal("unknown_push_source", f"push_source_name: no PushSource {source!r}; found: {found}")
        for view in views:
            self.write(view=view, columns=columns, transform=transform)

    def write(self, *, view: str, columns: Mapping[str, Sequence[Any]], transform: bool) -> None:
        """Write rows to one view.

        Blocks. Raises Refusal(`unknown_feature`, `filled_from_stream`, `bad_rows`), StoreUnavailable.
        """
        import pyarrow as pa
        from feast.errors import FeastError
        from feast.feature_view import FeatureView

        from millstream_tiles import errors as tiles_errors
        from millstream_tiles.feast_views import is_windowed

        every = {v.name: v for v in self._store.list_all_feature_views()}
        found = every.get(view)
        if found is None:
            raise Refusal("unknown_feature", f"feature_view_name: no view {view!r}; found: {', '.join(sorted(every))}")
        if is_windowed(found):
            raise _filled_from(view, found.stream_source.kafka_options.topic)
        frame = _frame(columns, found if isinstance(found, FeatureView) else None)
        try:
            self._store.write_to_online_store(view, frame, transform_on_write=transform)
        except tiles_errors.StoreUnavailable as error:
            raise StoreUnavailable(str(error)) from error
        except (FeastError, pa.ArrowException, ValueError, TypeError, KeyError, AssertionError) as error:
            raise Refusal("bad_rows", f"df: Feast cannot write these rows to {view}: {error}") from error


def _filled_from(name: str, topic: str) -> Refusal:
    what = f"{name} is computed from the events of the stream {topic!r}"
    return Refusal("filled_from_stream", f"{what}; produce them there (to its topic, or to ingest), and it follows")


def _frame(columns: Mapping[str, Sequence[Any]], view: Any) -> DataFrame:
    """The rows with their times as times. Raises Refusal(`bad_rows`)."""
    import pandas as pd

    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1:
        raise Refusal("bad_rows", f"df: columns must have one length; got {sorted(lengths)}")
    frame = pd.DataFrame(dict(columns))
    if view is None:
        return frame
    source = view.batch_source
    mapped = {v: k for k, v in (source.field_mapping or {}).items()} if source is not None else {}
    keys = [key for key in view.join_keys if key != "__dummy_id"]
    times = [source.timestamp_field, source.created_timestamp_column] if source is not None else []
    needed = [*keys, *(f.name for f in view.features), *times[:1]]
    if missing := [mapped.get(n, n) for n in needed if n and mapped.get(n, n) not in frame and n not in frame]:
        raise Refusal("bad_rows", f"df: {view.name} needs the columns {', '.join(missing)} too")
    for i, name in enumerate(times):
        if name and name in frame:
            frame[name] = pd.to_datetime([_time(name, row, v, optional=i > 0) for row, v in enumerate(columns[name])])
    return frame


def _time(name: str, row: int, value: Any, *, optional: bool) -> datetime | None:
    """A time as Feast's clients write it: RFC 3339, or without an offset in UTC."""
    if value is None and optional:
        return None
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError) as error:
        said = f"{pointer(['df', name, row])} is {str(value)[:100]!r}; write a time like 2013-06-01T12:00:00Z"
        raise Refusal("bad_rows", said) from error
