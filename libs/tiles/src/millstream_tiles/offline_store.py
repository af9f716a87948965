"""The Feast offline store: windowed views joined from the lake, every other view through one of Feast's own stores."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from feast import FeatureView, OnDemandFeatureView, RepoConfig
from feast.data_source import DataSource
from feast.feature_logging import LoggingConfig, LoggingSource
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel
from feast.utils import _get_requested_feature_views_to_features_dict, _get_requested_on_demand_feature_views
from pandas.api.types import infer_dtype
from pydantic import Field, StrictStr, field_validator

from millstream_tiles.definition import View
from millstream_tiles.errors import TilesError
from millstream_tiles.feast_views import is_windowed, view_of
from millstream_tiles.history import Asked, history
from millstream_tiles.join_forest import Ints
from millstream_tiles.join_keys import is_key
from millstream_tiles.lake import Lake
from millstream_tiles.ordinary_views import (
    Requested,
    delegate,
    feature_column,
    in_files,
    ordinary_features,
    settings_of,
)
from millstream_tiles.retrieval_job import EVENT_TIMESTAMP, MillstreamRetrievalJob

log = logging.getLogger(__name__)


class MillstreamOfflineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]
    """`offline_store:` in feature_store.yaml."""

    type: StrictStr = "millstream_tiles.offline_store.MillstreamOfflineStore"
    lake: StrictStr = "data/lake"
    """Folder (relative: to feature_store.yaml) or URI of the Delta tables."""
    storage_options: dict[StrictStr, StrictStr] = Field(default_factory=dict)
    """Credentials and endpoint of object storage, as delta-rs names them."""
    ordinary: dict[StrictStr, Any] | None = None
    """The offline store of views without aggregations whose source is no file, written as for Feast alone, for example
    `{type: postgres, host: ...}`; files are read without it."""

    @field_validator("ordinary")
    @classmethod
    def _known(cls, section: dict[str, Any] | None) -> dict[str, Any] | None:
        if section is not None:
            if "type" not in section:
                raise ValueError("no type; write one of Feast's offline stores, such as {type: postgres, host: ...}")
            settings_of(section)
        return section


class MillstreamOfflineStore(OfflineStore):  # type: ignore[misc]
    """`get_historical_features` answers as known at each row's time, to the microsecond."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        **kwargs: Any,
    ) -> RetrievalJob:
        """Raises TilesError for questions that are no DataFrame and BadView; the job raises LakeUnavailable.

        `kwargs` are Feast's own options; they are for the ordinary views.
        """
        requested, _ = _get_requested_feature_views_to_features_dict(
            feature_refs, feature_views, _get_requested_on_demand_feature_views(feature_refs, project, registry)
        )
        windowed: Requested = {v: names for v, names in requested.items() if is_windowed(v)}
        ordinary: Requested = {v: names for v, names in requested.items() if not is_windowed(v)}
        if not windowed and not isinstance(entity_df, pd.DataFrame) and len({in_files(view) for view in ordinary}) == 1:
            store, seen = delegate(config, next(iter(ordinary)).batch_source)
            return store.get_historical_features(
                seen, feature_views, feature_refs, entity_df, registry, project, full_feature_names, **kwargs
            )
        if not isinstance(entity_df, pd.DataFrame):
            _refuse(entity_df, next((view.name for view in requested), feature_refs[0]))
        column = _time_column(entity_df)
        t = _micros(entity_df[column])
        lake = _lake(config)
        asked = [Asked(view=_only(view_of(v), names), keys=_keys(v, entity_df)) for v, names in windowed.items()]

        def compute() -> pd.DataFrame:
            _tell_of_empty(lake, {one.view.stream for one in asked})
            answers = history(lake, asked, t)
            features: dict[str, Any] = {}
            for (view, names), values in zip(windowed.items(), answers, strict=True):
                for name in names:
                    features[feature_column(view, name, full_feature_names)] = _column(values[name])
            if ordinary:
                features |= ordinary_features(
                    config, ordinary, entity_df, column, registry, project, full_feature_names, kwargs
                )
            for name in features:
                if name in entity_df.columns:
                    raise TilesError(f"the questions have a column {name!r} already, which is a feature; rename it")
            rows = entity_df.reset_index(drop=True)
            return pd.concat([rows, pd.DataFrame(features, index=rows.index)], axis=1)

        return MillstreamRetrievalJob(
            compute,
            full_feature_names=full_feature_names,
            on_demand=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=[c for c in entity_df.columns if c != column],
                min_event_timestamp=entity_df[column].min(),
                max_event_timestamp=entity_df[column].max(),
            ),
            repo=str(config.repo_path or "."),
            time_column=column,
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig, data_source: DataSource, *args: Any, **kwargs: Any
    ) -> RetrievalJob:
        _refuse_lake(data_source)
        store, seen = delegate(config, data_source)
        return store.pull_latest_from_table_or_query(seen, data_source, *args, **kwargs)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig, data_source: DataSource, *args: Any, **kwargs: Any
    ) -> RetrievalJob:
        _refuse_lake(data_source)
        store, seen = delegate(config, data_source)
        return store.pull_all_from_table_or_query(seen, data_source, *args, **kwargs)

    @staticmethod
    def write_logged_features(
        config: RepoConfig,
        data: pa.Table | Path,
        source: LoggingSource,
        logging_config: LoggingConfig,
        registry: BaseRegistry,
    ) -> None:
        store, seen = delegate(config, logging_config.destination.to_data_source())
        store.write_logged_features(seen, data, source, logging_config, registry)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig, feature_view: FeatureView, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        if is_windowed(feature_view):
            _refuse_lake(feature_view.batch_source)
        store, seen = delegate(config, feature_view.batch_source)
        store.offline_write_batch(seen, feature_view, table, progress)


def _lake(config: RepoConfig) -> Lake:
    uri = config.offline_store.lake
    if "://" not in uri:
        uri = str((Path(config.repo_path or ".") / uri).resolve())
    return Lake(uri, config.offline_store.storage_options)


def _tell_of_empty(lake: Lake, streams: set[str]) -> None:
    """A stream may have had no event yet; a mistyped lake looks the same, and would train a model on nothing."""
    for stream in sorted(streams):
        if lake.table(stream) is None:
            log.warning(
                "lake %s has no events of %s: its windows are empty; check `lake:` if it should", lake.uri, stream
            )


def _refuse_lake(source: DataSource) -> None:
    stream = source.name.removesuffix("-lake")
    # `stream_source` names the batch source of a stream so.
    if isinstance(source, FileSource) and source.name == f"{stream}-lake" and source.path == f"lake/{stream}":
        raise TilesError(
            f"stream {stream}: its lake is written and its windows are kept by the features service; "
            "materialize, push and pull are for views without aggregations"
        )


def _refuse(questions: object, view: str) -> NoReturn:
    """Says what to give instead of questions that are no DataFrame."""
    remedy = "give entity_df=DataFrame with the join keys and event_timestamp"
    if questions is None:
        raise TilesError(f"{view}: each value is of a key and a time, not of a range of dates; {remedy}")
    if isinstance(questions, str):
        raise TilesError(f"{view}: the lake is files, nothing here runs SQL; {remedy}, for example of pandas.read_sql")
    raise TilesError(f"{view}: entity_df is a {type(questions).__name__}; {remedy}")


def _only(view: View, names: list[str]) -> View:
    """The view with no more aggregates than are asked for."""
    made = [a.name for a in view.aggregates]
    for name in names:
        if name not in made:
            raise TilesError(f"view {view.name} has no feature {name!r}; it has {', '.join(made)}")
    return replace(view, aggregates=tuple(a for a in view.aggregates if a.name in names))


def _time_column(questions: pd.DataFrame) -> str:
    if EVENT_TIMESTAMP in questions.columns:
        return EVENT_TIMESTAMP
    times = list(questions.select_dtypes(include=["datetime", "datetimetz"]).columns)
    if len(times) == 1:
        return str(times[0])
    raise TilesError(
        f"the questions have no column {EVENT_TIMESTAMP!r}, and {len(times)} datetime columns instead of one"
    )


def _column(values: Any) -> Any:
    """A feature as a column: of `last_k` the list of what there is, null where there is nothing."""
    if values.ndim == 1:
        return values
    return pd.Series([row[~np.isnan(row)].tolist() or None for row in values], dtype=object)


def _micros(column: pd.Series) -> Ints:
    """Microseconds since the epoch; a naive time is UTC, nanoseconds are cut off (a question knows no later event)."""
    kind = infer_dtype(column, skipna=True)
    if kind in (
        "integer",
        "floating",
        "mixed-integer-float",
        "boolean",
        "decimal",
    ):  # pandas takes seconds for nanoseconds
        raise TilesError(
            f"{column.name} of the questions is a number ({kind}), which does not say its unit; write "
            f"pandas.to_datetime(questions[{str(column.name)!r}], unit='s', utc=True), or the unit that it has"
        )
    try:
        times = pd.to_datetime(column, utc=True)
    except (ValueError, TypeError) as error:
        raise TilesError(f"{column.name} of the questions is no time ({error}); write datetimes") from error
    if times.isna().any():
        raise TilesError(f"{int(times.isna().sum())} questions have no {column.name!r}; every question needs its time")
    micros: Ints = times.dt.tz_localize(None).to_numpy().astype("datetime64[us]").astype(np.int64)
    return micros


def _keys(view: Any, questions: pd.DataFrame) -> pl.DataFrame:
    """The view's join keys as the questions name them (a projection may rename a join key)."""
    columns = {}
    for key in view_of(view).keys:
        name = view.projection.join_key_map.get(key, key)
        if name not in questions.columns:
            raise TilesError(f"view {view.name}: the questions have no column {name!r}; it is one of its join keys")
        columns[key] = _series(questions[name])
    return pl.DataFrame(columns)


def _series(column: pd.Series) -> pl.Series:
    try:
        keys = pl.Series(pa.array(column, from_pandas=True))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise TilesError(f"column {column.name!r} of the questions mixes types; make it text ({error})") from error
    if not is_key(keys.dtype):
        raise TilesError(
            f"column {column.name!r} of the questions is {keys.dtype}; a key is text, a number or a boolean"
        )
    return keys
