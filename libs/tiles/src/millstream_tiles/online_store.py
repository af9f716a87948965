"""The Feast online store: windowed views from tiles, every other view through Feast's own Redis store on the same server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from feast import Entity, FeatureView, RepoConfig, utils
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import DoubleList, Value
from feast.repo_config import FeastConfigBaseModel
from numpy.typing import NDArray
from pydantic import StrictInt, StrictStr, field_validator

from millstream_tiles.as_of_time import asked_time
from millstream_tiles.connection import Address
from millstream_tiles.definition import View
from millstream_tiles.errors import BadAddress, TilesError
from millstream_tiles.feast_views import is_windowed, view_of
from millstream_tiles.reader import WindowReader
from millstream_tiles.tile_keys import TileKeys
from millstream_tiles.tile_store import ValkeyTileStore
from millstream_tiles.windows import Values

Rows = list[tuple[datetime | None, dict[str, Value] | None]]


class MillstreamOnlineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]
    """`online_store:` in feature_store.yaml."""

    type: StrictStr = "millstream_tiles.online_store.MillstreamOnlineStore"
    url: StrictStr = "redis://localhost:6379/0"
    """One server, or a cluster by any of its nodes: redis+cluster://host:6379,host:6379 (with TLS: rediss://, rediss+cluster://)."""
    namespace: StrictStr | None = None
    """What all keys begin with; default: the Feast project's name."""
    shards: StrictInt | None = None
    """Parts into which entities are split, each atomic by itself; the same for all who share the namespace, and never changed
    while it has data. Default: 1 on one server, 12 on a cluster."""

    @field_validator("url")
    @classmethod
    def _says_where(cls, url: str) -> str:
        try:
            Address.of(url)
        except BadAddress as error:
            raise ValueError(str(error)) from error
        return url


def namespace_of(config: RepoConfig) -> str:
    return str(config.online_store.namespace or config.project)


def reader_of(config: RepoConfig, views: dict[str, View]) -> WindowReader:
    """A WindowReader on the server that the repo's feature_store.yaml names."""
    online = config.online_store
    return WindowReader(online.url, namespace_of(config), views, shards=online.shards)


def tile_store_of(config: RepoConfig) -> ValkeyTileStore:
    """The store for a writer of the views of the repo: same server, namespace and shards as its readers."""
    online = config.online_store
    return ValkeyTileStore(online.url, namespace_of(config), online.shards)


class MillstreamOnlineStore(OnlineStore):  # type: ignore[misc]
    """Answers `get_online_features` as of now, or of `with as_of(...)`.

    Feast calls `_read_features_per_fv` for a whole request (0.67), so all windowed views of one request are one round trip.
    """

    def __init__(self) -> None:
        self._ordinary = RedisOnlineStore()
        self._views: dict[str, View] = {}
        self._reader: WindowReader | None = None

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        return SupportedAsyncMethods(read=True, write=True)

    def _read_features_per_fv(self, config: RepoConfig, grouped_refs: list[Any], *args: Any) -> None:
        windowed = [(t, f) for t, f in grouped_refs if is_windowed(t)]
        ordinary = [(t, f) for t, f in grouped_refs if not is_windowed(t)]
        if windowed:
            questions = [_unique(t, *args[:2]) for t, _ in windowed]
            requests = [(t.name, _columns(q[0])) for (t, _), q in zip(windowed, questions, strict=True)]
            moment = asked_time()
            values = self._reading(config, [t for t, _ in windowed]).read(requests, moment)
            _respond(windowed, questions, values, moment, *args[2:])
        if ordinary:
            self._ordinary._read_features_per_fv(_redis(config), ordinary, *args)

    async def _read_features_per_fv_async(self, config: RepoConfig, grouped_refs: list[Any], *args: Any) -> None:
        windowed = [(t, f) for t, f in grouped_refs if is_windowed(t)]
        ordinary = [(t, f) for t, f in grouped_refs if not is_windowed(t)]
        if windowed:
            questions = [_unique(t, *args[:2]) for t, _ in windowed]
            requests = [(t.name, _columns(q[0])) for (t, _), q in zip(windowed, questions, strict=True)]
            moment = asked_time()
            values = await self._reading(config, [t for t, _ in windowed]).read_async(requests, moment)
            _respond(windowed, questions, values, moment, *args[2:])
        if ordinary:
            await self._ordinary._read_features_per_fv_async(_redis(config), ordinary, *args)

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> Rows:
        if not is_windowed(table):
            return list(self._ordinary.online_read(_redis(config), table, entity_keys, requested_features))
        moment = asked_time()
        rows = [dict(zip(k.join_keys, k.entity_values, strict=True)) for k in entity_keys]
        requests = [(table.name, _columns(rows))]
        [values] = self._reading(config, [table]).read(requests, moment)
        return _rows(values, requested_features, len(entity_keys), moment)

    async def online_read_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> Rows:
        if not is_windowed(table):
            return list(await self._ordinary.online_read_async(_redis(config), table, entity_keys, requested_features))
        moment = asked_time()
        rows = [dict(zip(k.join_keys, k.entity_values, strict=True)) for k in entity_keys]
        requests = [(table.name, _columns(rows))]
        [values] = await self._reading(config, [table]).read_async(requests, moment)
        return _rows(values, requested_features, len(entity_keys), moment)

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: list[Any], progress: Callable[[int], Any] | None
    ) -> None:
        _refuse_windowed(table)
        self._ordinary.online_write_batch(_redis(config), table, data, progress)

    async def online_write_batch_async(
        self, config: RepoConfig, table: FeatureView, data: list[Any], progress: Callable[[int], Any] | None
    ) -> None:
        _refuse_windowed(table)
        await self._ordinary.online_write_batch_async(_redis(config), table, data, progress)

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Deletes the rows of ordinary views; the tiles of a windowed one expire by themselves."""
        gone = [t for t in tables_to_delete if not is_windowed(t)]
        kept = [t for t in tables_to_keep if not is_windowed(t)]
        self._ordinary.update(_redis(config), gone, kept, entities_to_delete, entities_to_keep, partial)

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Deletes everything in the namespace, fences included, and the rows of ordinary views."""
        redis_config = _redis(config)
        client = self._ordinary._get_client(redis_config.online_store)
        for key in client.scan_iter(TileKeys(namespace_of(config), 1).everything(), count=1000):
            client.unlink(key)
        self._ordinary.teardown(redis_config, [t for t in tables if not is_windowed(t)], entities)

    async def close(self) -> None:
        """Close all connections; `await store.close()` calls it."""
        if self._reader is not None:
            await self._reader.aclose()
            self._reader = None
        # Feast's Redis store closes nothing by itself.
        if self._ordinary._client is not None:
            self._ordinary._client.close()
            self._ordinary._client = None
        if self._ordinary._client_async is not None:
            await self._ordinary._client_async.aclose()
            self._ordinary._client_async = None

    def _reading(self, config: RepoConfig, tables: Sequence[Any]) -> WindowReader:
        if self._reader is None:
            self._reader = reader_of(config, self._views)
        for table in tables:
            # Rebuilt every time: a registry refresh may have brought a new definition under the old name.
            self._views[table.name] = view_of(table)
        return self._reader


def _redis(config: RepoConfig) -> RepoConfig:
    """The same repo as Feast's Redis store wants to see it."""
    address = Address.of(config.online_store.url)
    url = urlsplit(address.url)
    parts = [f"{host}:{port}" for host, port in address.nodes]
    if not address.cluster:
        parts.append(f"db={url.path.strip('/') or 0}")
    if url.username:
        parts.append(f"username={unquote(url.username)}")
    if url.password:
        parts.append(f"password={unquote(url.password)}")
    if url.scheme == "rediss":
        parts.append("ssl=true")
    kind = "redis_cluster" if address.cluster else "redis"
    copy = config.model_copy()
    copy._online_store = RedisOnlineStoreConfig(redis_type=kind, connection_string=",".join(parts))
    return copy


def _refuse_windowed(table: FeatureView) -> None:
    if is_windowed(table):
        raise TilesError(
            f"{table.name}: a windowed view is filled from its stream; push and materialize cannot write it"
        )


def _unique(table: FeatureView, join_key_values: dict[str, Any], key_map: dict[str, str]) -> tuple[Any, Any, int]:
    entities, indexes, length = utils._get_unique_entities(table, join_key_values, key_map)
    return entities, indexes, length


def _columns(entities: Sequence[dict[str, Value]]) -> dict[str, list[Any]]:
    """Feast's entity rows as columns of plain values."""
    names = entities[0].keys() if entities else ()
    return {name: [_plain(row[name]) for row in entities] for name in names}


def _plain(value: Value) -> Any:
    kind = value.WhichOneof("val")
    return None if kind is None else getattr(value, kind)


def _rows(values: Values, requested: Sequence[str] | None, length: int, moment: int) -> Rows:
    """Windows as Feast's rows: counts int64, `last_k` lists, others double, NaN null; the row's time is the one asked for."""
    when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment)
    columns = {}
    for name in requested if requested is not None else values:
        column = values[name]
        if column.ndim == 2:
            columns[name] = [_latest(row) for row in column]
        elif column.dtype == np.int64:
            columns[name] = [Value(int64_val=v) for v in column.tolist()]
        else:
            columns[name] = [Value() if v != v else Value(double_val=v) for v in column.tolist()]
    return [(when, {name: column[i] for name, column in columns.items()}) for i in range(length)]


def _latest(values: NDArray[np.float64]) -> Value:
    """A `last_k`: what there is of its k values; null where there is none."""
    there = values[~np.isnan(values)].tolist()
    return Value(double_list_val=DoubleList(val=there)) if there else Value()


def _respond(
    windowed: list[Any], questions: list[Any], values: list[Values], moment: int, response: Any, *flags: bool
) -> None:
    full_names, with_versions = flags
    for (table, requested), (_, indexes, length), found in zip(windowed, questions, values, strict=True):
        rows = _rows(found, requested, len(indexes), moment)
        utils._populate_response_from_feature_data(
            requested, rows, indexes, response, full_names, table, length, with_versions
        )
