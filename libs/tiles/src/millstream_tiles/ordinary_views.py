"""Views without aggregations, which Feast computes itself: which of its offline stores answers, and its answer row by row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from feast import FileSource, RepoConfig
from feast.data_source import DataSource
from feast.infra.offline_stores.dask import DaskOfflineStoreConfig
from feast.infra.offline_stores.offline_store import OfflineStore
from feast.infra.offline_stores.offline_utils import get_offline_store_from_config
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import get_offline_config_from_type

from millstream_tiles.errors import TilesError

Requested = dict[Any, list[str]]
"""Feast views and the features asked of each."""

_QUESTION = "millstream_question"
"""Our column among the questions that we send to one of Feast's stores; a letter first, for it becomes a name in SQL."""


def settings_of(section: Mapping[str, Any]) -> Any:
    """Feast's own configuration object for `ordinary:` of the offline store. Raises whatever that store raises."""
    return get_offline_config_from_type(section["type"])(**section)


def delegate(config: RepoConfig, source: DataSource) -> tuple[OfflineStore, RepoConfig]:
    """Feast's store for an ordinary view's source, and the same repo as that store wants to see it. Raises TilesError."""
    copy, section = config.model_copy(), config.offline_store.ordinary
    if isinstance(source, FileSource):
        copy._offline_store = DaskOfflineStoreConfig()
    elif section is None:
        raise TilesError(
            f"source {source.name}: a {type(source).__name__} is no file; write under offline_store in feature_store.yaml "
            "which of Feast's stores reads it, such as ordinary: {type: postgres, host: ...}"
        )
    else:
        copy._offline_store = settings_of(section)
    return get_offline_store_from_config(copy._offline_store), copy


def in_files(view: Any) -> bool:
    return isinstance(view.batch_source, FileSource)


def ordinary_features(
    config: RepoConfig,
    requested: Requested,
    questions: pd.DataFrame,
    time_column: str,
    registry: BaseRegistry,
    project: str,
    full: bool,
    kwargs: Mapping[str, Any],
) -> dict[str, Any]:
    """The features of `requested`, a value per question. Feast's stores sort and drop repeated questions; we undo both.

    Views in files are asked one by one: of several together, Feast's file store (0.67) loses a question of all of them
    when what one of them has is older than its ttl, and questions that differ only in the keys of a later view.
    """
    features: dict[str, Any] = {}
    groups: list[Requested] = [{view: names} for view, names in requested.items() if in_files(view)]
    groups.append({view: names for view, names in requested.items() if not in_files(view)})
    for group in filter(None, groups):
        names = {view.projection.join_key_map.get(c.name, c.name) for view in group for c in view.entity_columns}
        keys = [time_column, *sorted(names & set(questions.columns))]
        distinct = questions[keys].drop_duplicates(ignore_index=True)
        numbered = distinct.assign(**{_QUESTION: range(len(distinct))})
        number = questions[keys].merge(numbered, on=keys, how="left")[_QUESTION]
        refs = [f"{view.projection.name_to_use()}:{name}" for view, wanted in group.items() for name in wanted]
        store, seen = delegate(config, next(iter(group)).batch_source)
        job = store.get_historical_features(seen, list(group), refs, numbered, registry, project, full, **kwargs)
        found = job._to_df_internal().set_index(_QUESTION)
        for view, wanted in group.items():
            for name in (feature_column(view, name, full) for name in wanted):
                features[name] = found[name].reindex(number).to_numpy()
    return features


def feature_column(view: Any, name: str, full: bool) -> str:
    """What Feast calls the feature's column."""
    return f"{view.projection.name_to_use()}__{name}" if full else name
