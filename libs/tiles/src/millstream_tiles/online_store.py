"""The Feast online store: windowed views from tiles, every other view through Feast's own Redis store on the same server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from feast import Entity, FeatureView, RepoConfig
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.repo_config import FeastConfigBaseModel
from pydantic import StrictInt, StrictStr, field_validator
from redis.exceptions import RedisError

from millstream_tiles.as_of_time import asked_time
from millstream_tiles.connection import Address
from millstream_tiles.definition import View
from millstream_tiles.errors import BadAddress, StoreUnavailable, TilesError
from millstream_tiles.feast_views import is_windowed, view_of
from millstream_tiles.online_question import OnlineQuestion, columns_of, windows_as_rows
from millstream_tiles.ordinary_rows import OrdinaryRows, Rows, as_redis, namespace_of
from millstream_tiles.reader import WindowReader
from millstream_tiles.tile_keys import TileKeys
from millstream_tiles.tile_store import ValkeyTileStore


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

    key_ttl_seconds: StrictInt | None = None
    """Seconds after its last write when an entity's row of ordinary views is forgotten: Feast's own setting."""

    @field_validator("url")
    @classmethod
    def _says_where(cls, url: str) -> str:
        try:
            Address.of(url)
        except BadAddress as error:
            raise ValueError(str(error)) from error
        return url


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

    Feast calls `_read_features_per_fv` for a whole request (0.67), so all views of a request, windowed or not, are one round
    trip.
    """

    def __init__(self) -> None:
        self._ordinary = OrdinaryRows()
        self._views: dict[str, View] = {}
        self._tables: dict[str, Any] = {}
        """What `_views` were made of."""
        self._reader: WindowReader | None = None

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        return SupportedAsyncMethods(read=True, write=True)

    def _read_features_per_fv(self, config: RepoConfig, grouped_refs: list[Any], *args: Any) -> None:
        asked = OnlineQuestion(config, self._ordinary, grouped_refs, *args[:2])
        reader = self._reading(config, asked.windowed)
        asked.answer(reader.read_along(asked.requests, asked.moment, asked.commands), *args[2:])

    async def _read_features_per_fv_async(self, config: RepoConfig, grouped_refs: list[Any], *args: Any) -> None:
        asked = OnlineQuestion(config, self._ordinary, grouped_refs, *args[:2])
        reader = self._reading(config, asked.windowed)
        asked.answer(await reader.read_along_async(asked.requests, asked.moment, asked.commands), *args[2:])

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> Rows:
        if not is_windowed(table):
            question = self._ordinary.question(config, table, requested_features, entity_keys)
            read = self._reading(config, []).read_along([], 0, question.commands)
            return self._ordinary.rows(question, read.replies)
        moment = asked_time()
        rows = [dict(zip(k.join_keys, k.entity_values, strict=True)) for k in entity_keys]
        requests = [(table.name, columns_of(rows))]
        [values] = self._reading(config, [table]).read(requests, moment)
        return windows_as_rows(values, requested_features, len(entity_keys), moment)

    async def online_read_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> Rows:
        if not is_windowed(table):
            question = self._ordinary.question(config, table, requested_features, entity_keys)
            read = await self._reading(config, []).read_along_async([], 0, question.commands)
            return self._ordinary.rows(question, read.replies)
        moment = asked_time()
        rows = [dict(zip(k.join_keys, k.entity_values, strict=True)) for k in entity_keys]
        requests = [(table.name, columns_of(rows))]
        [values] = await self._reading(config, [table]).read_async(requests, moment)
        return windows_as_rows(values, requested_features, len(entity_keys), moment)

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: list[Any], progress: Callable[[int], Any] | None
    ) -> None:
        _refuse_windowed(table)
        with _reaching():
            self._ordinary.online_write_batch(as_redis(config), table, data, progress)

    async def online_write_batch_async(
        self, config: RepoConfig, table: FeatureView, data: list[Any], progress: Callable[[int], Any] | None
    ) -> None:
        _refuse_windowed(table)
        with _reaching():
            await self._ordinary.online_write_batch_async(as_redis(config), table, data, progress)

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
        with _reaching():
            self._ordinary.update(as_redis(config), gone, kept, entities_to_delete, entities_to_keep, partial)

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Deletes everything in the namespace, fences included, and the rows of ordinary views."""
        redis_config = as_redis(config)
        with _reaching():
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
            # Feast hands out the same object until a registry refresh, which may bring a new definition under the old name.
            if self._tables.get(table.name) is not table:
                self._views[table.name], self._tables[table.name] = view_of(table), table
        return self._reader


def _refuse_windowed(table: FeatureView) -> None:
    if is_windowed(table):
        raise TilesError(
            f"{table.name}: a windowed view is filled from its stream; push and materialize cannot write it"
        )


@contextmanager
def _reaching() -> Iterator[None]:
    """What keeps Feast's Redis store from the server, as our own error."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise StoreUnavailable(f"the online store did not answer: {error}") from error
