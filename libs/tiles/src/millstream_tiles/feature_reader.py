"""Reads the features of a FeatureService for rows of entities, as arrays: what a scorer calls for every request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from feast import FeatureStore, OnDemandFeatureView
from feast.errors import FeatureServiceNotFoundException
from feast.feature_view import DUMMY_ENTITY_ID

from millstream_tiles.as_of_time import as_of as at
from millstream_tiles.connection import Command
from millstream_tiles.errors import BadRepo, RepoFault
from millstream_tiles.feast_views import columns_in, is_windowed, views_of
from millstream_tiles.layout import Ints
from millstream_tiles.online_store import reader_of
from millstream_tiles.ordinary_features import Features, OrdinaryFeatures, array_of
from millstream_tiles.ordinary_rows import RowsQuestion
from millstream_tiles.ports import Fence
from millstream_tiles.read_plan import Request
from millstream_tiles.windows import Values

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
        self._ordinary: list[OrdinaryFeatures] = []
        self._on_demand: dict[str, list[str]] = {}
        names: list[str] = []
        columns: dict[str, None] = {}
        self.views = views_of(store)
        every = {v.name: v for v in store.list_all_feature_views()}
        for projection in service.feature_view_projections:
            prefix, features = projection.name_to_use(), tuple(f.name for f in projection.features)
            names += columns_in(projection, self.views)
            view = every[projection.name]
            if is_windowed(view):
                renamed = projection.join_key_map or {}
                keys = {k: renamed.get(k, k) for k in self.views[projection.name].keys}
                columns |= dict.fromkeys(keys.values())
                self._windowed.append(_Windowed(view=projection.name, prefix=prefix, keys=keys, features=features))
            elif isinstance(view, OnDemandFeatureView):
                self._on_demand[prefix] = [f"{view.name}:{f}" for f in features]
                columns |= dict.fromkeys(_columns_of(view, every))
            else:
                self._ordinary.append(OrdinaryFeatures(view, projection, store.config))
                columns |= dict.fromkeys(self._ordinary[-1].columns)
        self.names: tuple[str, ...] = tuple(names)
        """The columns that `read` gives, in the order of the service."""
        self.entity_columns: tuple[str, ...] = tuple(columns)
        """The columns that `read` needs."""
        self.streams: dict[str, str] = {w.view: self.views[w.view].stream for w in self._windowed}
        """The windowed views of the service -> the stream whose events they aggregate."""
        self._reader = reader_of(store.config, self.views)

    def read(self, entities: Mapping[str, Sequence[Any]], as_of: int | Ints) -> Features:
        """The features of each row of `entities` (columns of equal length) as of `as_of` (microseconds; one, or one a row).

        A window that the store does not hold any more is NaN, and a count with one float64. One round trip; on-demand views,
        which Feast computes from views that it reads, are one more for each time asked for.
        Raises StoreUnavailable, and KeyError for an entity column that is missing.
        """
        asked = [one.question(entities) for one in self._ordinary]
        read = self._reader.read_along(self._requests(entities), as_of, _commands(asked))
        found = self._found(read.values, asked, read.replies)
        computed: dict[str, list[Any]] = {}
        for moment, numbers, prefix, references in self._still_to_compute(entities, as_of):
            with at(moment):
                response = self._store.get_online_features(references, _some(entities, numbers))
            _put(computed, numbers, prefix, response.to_dict())
        return self._in_order(found | {name: array_of(values) for name, values in computed.items()})

    async def read_async(self, entities: Mapping[str, Sequence[Any]], as_of: int | Ints) -> Features:
        """`read` for the event loop."""
        asked = [one.question(entities) for one in self._ordinary]
        read = await self._reader.read_along_async(self._requests(entities), as_of, _commands(asked))
        found = self._found(read.values, asked, read.replies)
        computed: dict[str, list[Any]] = {}
        for moment, numbers, prefix, references in self._still_to_compute(entities, as_of):
            with at(moment):
                response = await self._store.get_online_features_async(references, _some(entities, numbers))
            _put(computed, numbers, prefix, response.to_dict())
        return self._in_order(found | {name: array_of(values) for name, values in computed.items()})

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

    def _found(
        self, values: Sequence[Values], asked: Sequence[tuple[RowsQuestion, list[int]]], replies: Sequence[Any]
    ) -> Features:
        found: Features = {}
        for one, windows in zip(self._windowed, values, strict=True):
            found |= _columns(one, windows)
        first = 0
        for ordinary, (question, rows) in zip(self._ordinary, asked, strict=True):
            end = first + len(question.commands)
            found |= ordinary.answer(question, rows, replies[first:end])
            first = end
        return found

    def _in_order(self, found: Features) -> Features:
        return {name: found[name] for name in self.names}

    def _still_to_compute(
        self, entities: Mapping[str, Sequence[Any]], as_of: int | Ints
    ) -> Iterator[tuple[datetime, list[int], str, list[str]]]:
        """Each time that on-demand views are asked for, with the numbers of its rows, a view and what is asked of it.

        View by view, because Feast loses those in Python when it is asked for full names.
        """
        if not self._on_demand:
            return
        count = max(map(len, entities.values()), default=0)
        times = np.broadcast_to(np.asarray(as_of, dtype=np.int64), count)
        for moment in np.unique(times).tolist():
            numbers = np.flatnonzero(times == moment).tolist()
            for prefix, references in self._on_demand.items():
                yield _EPOCH + timedelta(microseconds=moment), numbers, prefix, references

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


def _commands(asked: Sequence[tuple[RowsQuestion, list[int]]]) -> list[Command]:
    return [command for question, _ in asked for command in question.commands]


def _columns_of(view: OnDemandFeatureView, every: Mapping[str, Any]) -> list[str]:
    """The columns that an on-demand view is computed from: join keys of its sources and what the request brings."""
    columns = []
    for projection in view.source_feature_view_projections.values():
        renamed = projection.join_key_map or {}
        columns += [renamed.get(k, k) for k in every[projection.name].join_keys if k != DUMMY_ENTITY_ID]
    return columns + [field.name for source in view.source_request_sources.values() for field in source.schema]


def _some(entities: Mapping[str, Sequence[Any]], numbers: Sequence[int]) -> dict[str, list[Any]]:
    return {name: [column[i] for i in numbers] for name, column in entities.items()}


def _put(
    computed: dict[str, list[Any]], numbers: Sequence[int], prefix: str, columns: Mapping[str, Sequence[Any]]
) -> None:
    """Add what was computed for the rows with these numbers; each row comes once."""
    for name, values in columns.items():
        column = computed.setdefault(f"{prefix}__{name}", [])
        column += [None] * (max(numbers) + 1 - len(column))
        for number, value in zip(numbers, values, strict=True):
            column[number] = value
