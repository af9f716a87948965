"""Reads the features of a FeatureService for rows of entities, as arrays: what a scorer calls for every request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from feast import FeatureStore
from feast.errors import FeatureServiceNotFoundException
from numpy.typing import NDArray

from millstream_tiles.errors import BadRepo, RepoFault
from millstream_tiles.feast_views import columns_in, is_windowed, views_of
from millstream_tiles.layout import Ints
from millstream_tiles.online_store import reader_of
from millstream_tiles.ports import Fence
from millstream_tiles.reader import Request
from millstream_tiles.windows import Values

Features = dict[str, NDArray[Any]]
""" "view__feature" -> one value a row: int64 counts, float64 with NaN for null (a `last_k` is k columns, see
`Aggregate.columns`); features of ordinary views as Feast has them (an object array with None where one is missing, numbers
else)."""


@dataclass(frozen=True, kw_only=True)
class _Windowed:
    """One windowed view of the service."""

    view: str
    prefix: str
    """What its features are called by: the view's name, or the alias that the service gives it."""
    keys: dict[str, str]
    """Join key of the view -> column of the entities."""
    features: tuple[str, ...]


class FeatureReader:
    """The features of one FeatureService. What to read is resolved once, here; reading asks the registry no more.

    Raises BadRepo when the store has no such service.
    """

    def __init__(self, store: FeatureStore, service_name: str) -> None:
        try:
            service = store.get_feature_service(service_name)
        except FeatureServiceNotFoundException:
            found = ", ".join(sorted(s.name for s in store.list_feature_services())) or "none"
            fault = RepoFault(message=f"no FeatureService {service_name!r}", remedy=f"found: {found}")
            raise BadRepo(store.repo_path, [fault]) from None
        self._store = store
        self._windowed: list[_Windowed] = []
        self._ordinary: list[str] = []
        names: list[str] = []
        columns: dict[str, None] = {}
        self.views = views_of(store)
        every = {v.name: v for v in store.list_all_feature_views()}
        for projection in service.feature_view_projections:
            prefix, features = projection.name_to_use(), tuple(f.name for f in projection.features)
            names += columns_in(projection, self.views)
            if is_windowed(every[projection.name]):
                renamed = projection.join_key_map or {}
                keys = {k: renamed.get(k, k) for k in self.views[projection.name].keys}
                columns |= dict.fromkeys(keys.values())
                self._windowed.append(_Windowed(view=projection.name, prefix=prefix, keys=keys, features=features))
            else:
                self._ordinary += [f"{prefix}:{f}" for f in features]
                columns |= dict.fromkeys(getattr(every[projection.name], "join_keys", ()))
        self.names: tuple[str, ...] = tuple(names)
        """The columns that `read` gives, in the order of the service."""
        self.entity_columns: tuple[str, ...] = tuple(columns)
        """The columns that `read` needs."""
        self.streams: dict[str, str] = {w.view: self.views[w.view].stream for w in self._windowed}
        """The windowed views of the service -> the stream whose events they aggregate."""
        self._reader = reader_of(store.config, self.views)

    def read(self, entities: Mapping[str, Sequence[Any]], as_of: int | Ints) -> Features:
        """The features of each row of `entities` (columns of equal length) as of `as_of` (microseconds; one, or one a row).

        Raises StoreUnavailable, and KeyError for an entity column that is missing.
        """
        found: Features = {}
        for one, values in zip(self._windowed, self._reader.read(self._requests(entities), as_of), strict=True):
            found |= _columns(one, values)
        if self._ordinary:
            response = self._store.get_online_features(self._ordinary, _rows(entities), full_feature_names=True)
            found |= _arrays(response.to_dict())
        return {name: found[name] for name in self.names}

    async def read_async(self, entities: Mapping[str, Sequence[Any]], as_of: int | Ints) -> Features:
        """`read` for the event loop."""
        found: Features = {}
        windows = await self._reader.read_async(self._requests(entities), as_of)
        for one, values in zip(self._windowed, windows, strict=True):
            found |= _columns(one, values)
        if self._ordinary:
            response = await self._store.get_online_features_async(
                self._ordinary, _rows(entities), full_feature_names=True
            )
            found |= _arrays(response.to_dict())
        return {name: found[name] for name in self.names}

    def stream_times(self) -> dict[str, int]:
        """Windowed view -> the newest known-at applied to it (microseconds; 0: nothing yet). Raises StoreUnavailable."""
        return self._newest(self._reader.stream_times())

    async def stream_times_async(self) -> dict[str, int]:
        """`stream_times` for the event loop."""
        return self._newest(await self._reader.stream_times_async())

    async def fences_async(self, group: str) -> dict[str, dict[int, Fence]]:
        """Stream of the service's windowed views -> partition -> how far `group` has applied it. Raises StoreUnavailable."""
        fences = await self._reader.fences_async(group)
        return {stream: fences[stream] for stream in sorted(set(self.streams.values()))}

    async def aclose(self) -> None:
        """Close the connections."""
        await self._reader.aclose()

    def _newest(self, clocks: dict[str, dict[int, int]]) -> dict[str, int]:
        used = {w.view for w in self._windowed}
        return {v: max(clocks[self.views[v].stream].values(), default=0) for v in sorted(used)}

    def _requests(self, entities: Mapping[str, Sequence[Any]]) -> list[Request]:
        return [(w.view, {key: entities[column] for key, column in w.keys.items()}) for w in self._windowed]


def _columns(one: _Windowed, values: Values) -> Features:
    found: Features = {}
    for feature in one.features:
        column, name = values[feature], f"{one.prefix}__{feature}"
        if column.ndim == 1:
            found[name] = column
        else:
            found |= {f"{name}__{place}": column[:, place - 1] for place in range(1, column.shape[1] + 1)}
    return found


def _rows(entities: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(entities, row, strict=True)) for row in zip(*entities.values(), strict=True)]


def _arrays(columns: dict[str, list[Any]]) -> Features:
    return {name: np.array(values, dtype=None if None not in values else object) for name, values in columns.items()}
