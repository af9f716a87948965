"""The Feast offline store: windowed views joined from the lake, every other view through Feast's own file store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from feast import FeatureView, OnDemandFeatureView, RepoConfig
from feast.data_source import DataSource
from feast.feature_logging import LoggingConfig, LoggingSource
from feast.infra.offline_stores.dask import DaskOfflineStore, DaskOfflineStoreConfig
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel
from feast.utils import _get_requested_feature_views_to_features_dict, _get_requested_on_demand_feature_views
from pydantic import Field, StrictStr

from millstream_tiles.errors import TilesError
from millstream_tiles.feast_views import is_windowed, view_of
from millstream_tiles.history import Asked, history
from millstream_tiles.join_forest import Ints
from millstream_tiles.lake import Lake

EVENT_TIMESTAMP = "event_timestamp"
"""The column of a question's time, unless the frame has exactly one datetime column of another name (Feast's rule)."""

Requested = dict[Any, list[str]]
"""Feast views and the features asked of each."""


class MillstreamOfflineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]
    """`offline_store:` in feature_store.yaml."""

    type: StrictStr = "millstream_tiles.offline_store.MillstreamOfflineStore"
    lake: StrictStr = "data/lake"
    """Folder (relative: to feature_store.yaml) or URI of the Delta tables."""
    storage_options: dict[StrictStr, StrictStr] = Field(default_factory=dict)
    """Credentials and endpoint of object storage, as delta-rs names them."""


class MillstreamRetrievalJob(RetrievalJob):  # type: ignore[misc]
    """Computes when it is asked for the result; rows come in the order of the questions."""

    def __init__(
        self,
        compute: Callable[[], pd.DataFrame],
        *,
        full_feature_names: bool,
        on_demand: list[OnDemandFeatureView],
        metadata: RetrievalMetadata,
    ) -> None:
        self._compute = compute
        self._full_feature_names = full_feature_names
        self._on_demand = on_demand
        self._metadata = metadata

    @property
    def full_feature_names(self) -> bool:
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata:
        return self._metadata

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._compute()

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return pa.Table.from_pandas(self._compute(), preserve_index=False)


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
        """Raises TilesError for questions that are no DataFrame and BadView; the job raises LakeUnavailable."""
        requested, _ = _get_requested_feature_views_to_features_dict(
            feature_refs, feature_views, _get_requested_on_demand_feature_views(feature_refs, project, registry)
        )
        windowed: Requested = {v: names for v, names in requested.items() if is_windowed(v)}
        ordinary: Requested = {v: names for v, names in requested.items() if not is_windowed(v)}
        if not windowed:
            return DaskOfflineStore.get_historical_features(
                _file_config(config),
                feature_views,
                feature_refs,
                entity_df,
                registry,
                project,
                full_feature_names,
                **kwargs,
            )
        if not isinstance(entity_df, pd.DataFrame):
            raise TilesError(
                f"{next(iter(windowed)).name}: a windowed view has a value for a key and a time; "
                "give entity_df=DataFrame with the join keys and event_timestamp"
            )
        column = _time_column(entity_df)
        t = _micros(entity_df[column])
        lake = _lake(config)
        asked = [Asked(view=view_of(v), keys=_keys(v, entity_df)) for v in windowed]

        def compute() -> pd.DataFrame:
            answers = history(lake, asked, t)
            features: dict[str, Any] = {}
            for (view, names), values in zip(windowed.items(), answers, strict=True):
                for name in names:
                    features[_feature(view, name, full_feature_names)] = _column(values[name])
            if ordinary:
                features |= _ordinary(
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
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig, data_source: DataSource, *args: Any, **kwargs: Any
    ) -> RetrievalJob:
        _refuse_lake(data_source)
        return DaskOfflineStore.pull_latest_from_table_or_query(_file_config(config), data_source, *args, **kwargs)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig, data_source: DataSource, *args: Any, **kwargs: Any
    ) -> RetrievalJob:
        _refuse_lake(data_source)
        return DaskOfflineStore.pull_all_from_table_or_query(_file_config(config), data_source, *args, **kwargs)

    @staticmethod
    def write_logged_features(
        config: RepoConfig,
        data: pa.Table | Path,
        source: LoggingSource,
        logging_config: LoggingConfig,
        registry: BaseRegistry,
    ) -> None:
        DaskOfflineStore.write_logged_features(_file_config(config), data, source, logging_config, registry)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig, feature_view: FeatureView, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        if is_windowed(feature_view):
            _refuse_lake(feature_view.batch_source)
        DaskOfflineStore.offline_write_batch(_file_config(config), feature_view, table, progress)


def _lake(config: RepoConfig) -> Lake:
    uri = config.offline_store.lake
    if "://" not in uri:
        uri = str((Path(config.repo_path or ".") / uri).resolve())
    return Lake(uri, config.offline_store.storage_options)


def _file_config(config: RepoConfig) -> RepoConfig:
    """The same repo as Feast's file store wants to see it."""
    copy = config.model_copy()
    copy._offline_store = DaskOfflineStoreConfig()
    return copy


def _refuse_lake(source: DataSource) -> None:
    # `stream_source` names the batch source of a stream so.
    if source.name.endswith("-lake"):
        stream = source.name.removesuffix("-lake")
        raise TilesError(
            f"stream {stream}: its lake is written and its windows are kept by the features service; "
            "materialize, push and pull are for views without aggregations"
        )


def _feature(view: Any, name: str, full: bool) -> str:
    return f"{view.projection.name_to_use()}__{name}" if full else name


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
    times = pd.to_datetime(column, utc=True)
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
        return pl.Series(pa.array(column, from_pandas=True))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise TilesError(f"column {column.name!r} of the questions mixes types; make it text ({error})") from error


def _ordinary(
    config: RepoConfig,
    requested: Requested,
    questions: pd.DataFrame,
    time_column: str,
    registry: BaseRegistry,
    project: str,
    full: bool,
    kwargs: dict[str, Any],
) -> dict[str, Any]:
    """Features of views that Feast computes itself. Its file store sorts and drops repeated questions; we undo both."""
    names = {view.projection.join_key_map.get(c.name, c.name) for view in requested for c in view.entity_columns}
    keys = [time_column, *sorted(names & set(questions.columns))]
    distinct = questions[keys].drop_duplicates(ignore_index=True)
    number = questions[keys].merge(distinct.assign(_question=range(len(distinct))), on=keys, how="left")["_question"]
    refs = [f"{view.projection.name_to_use()}:{name}" for view, features in requested.items() for name in features]
    job = DaskOfflineStore.get_historical_features(
        _file_config(config),
        list(requested),
        refs,
        distinct.assign(_question=range(len(distinct))),
        registry,
        project,
        full,
        **kwargs,
    )
    found = job._to_df_internal().set_index("_question")
    wanted = [_feature(view, name, full) for view, features in requested.items() for name in features]
    return {name: found[name].reindex(number).to_numpy() for name in wanted}
