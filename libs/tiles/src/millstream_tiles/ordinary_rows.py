"""The rows of ordinary views: kept as Feast's own Redis store keeps them, read by commands that go along with others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from feast import FeatureView, RepoConfig
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from millstream_tiles.connection import Address, Command

Row = tuple[datetime | None, dict[str, Value] | None]
"""Its event time and its features; both None where there is none."""
Rows = list[Row]

Written = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
"""A row as Feast hands it over: key, features, event time and when it was made."""

NOBODY = EntityKey(join_keys=[DUMMY_ENTITY_ID], entity_values=[Value(string_val=DUMMY_ENTITY_VAL)])
"""The entity of a view without one."""

TIMEOUT = 10
"""Seconds that a write may take, the longest of which (`feast materialize`, 10,000 rows) takes one."""


class RowsQuestion(NamedTuple):
    """Rows of one view to read."""

    view: str
    """As it is called in the store: its name, and with versions on also which one."""
    features: list[str]
    commands: list[Command]
    """One an entity."""


class OrdinaryRows(RedisOnlineStore):  # type: ignore[misc]
    """Feast's Redis store on the same server, and what of it a read in common needs."""

    def question(
        self, config: RepoConfig, table: FeatureView, features: Sequence[str] | None, entities: Sequence[EntityKey]
    ) -> RowsQuestion:
        """What asks for `features` (None: all) of `table`."""
        view = compute_versioned_name(table, config.registry.enable_online_feature_view_versioning)
        # Feast's method appends the time to the list that it is given.
        names, fields = self._generate_hset_keys_for_features(
            table, list(features) if features is not None else None, fv_name_override=view
        )
        project, version = namespace_of(config).encode(), config.entity_key_serialization_version
        keys = [serialize_entity_key(e, entity_key_serialization_version=version) + project for e in entities]
        return RowsQuestion(view, names, [("HMGET", key, *fields) for key in keys])

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: list[Written], progress: Callable[[int], Any] | None
    ) -> None:
        super().online_write_batch(config, table, _with_keys(data), progress)

    async def online_write_batch_async(
        self, config: RepoConfig, table: FeatureView, data: list[Written], progress: Callable[[int], Any] | None
    ) -> None:
        await super().online_write_batch_async(config, table, _with_keys(data), progress)

    def rows(self, question: RowsQuestion, replies: Sequence[Sequence[bytes | None]]) -> Rows:
        """The rows that were asked for, from the replies to the question's commands."""
        return list(self._convert_redis_values_to_protobuf(replies, question.view, question.features))

    def _get_features_for_entity(
        self, values: Sequence[bytes | None], feature_view: str, requested_features: list[str]
    ) -> Row:
        # Feast calls what is not there present and null, of 1970; other stores of Feast, and its protocol, say not found.
        if not values[-1]:
            return None, None
        when, row = super()._get_features_for_entity(values, feature_view, requested_features)
        return when, row


def _with_keys(data: list[Written]) -> list[Written]:
    """A view without entity has one row; Feast reads it by a key that it does not write when rows are pushed."""
    return [(key, *rest) if key.join_keys else (NOBODY, *rest) for key, *rest in data]  # type: ignore[misc]


def as_redis(config: RepoConfig) -> RepoConfig:
    """The same repo as Feast's Redis store wants to see it. Its keys end with our namespace."""
    online = config.online_store
    address = Address.of(online.url)
    url = urlsplit(address.url)
    parts = [f"{host}:{port}" for host, port in address.nodes]
    if not address.cluster:
        parts.append(f"db={url.path.strip('/') or 0}")
    parts += [f"socket_timeout={TIMEOUT}", f"socket_connect_timeout={TIMEOUT}"]
    if url.username:
        parts.append(f"username={unquote(url.username)}")
    if url.password:
        parts.append(f"password={unquote(url.password)}")
    if url.scheme == "rediss":
        parts.append("ssl=true")
    copy = config.model_copy(update={"project": namespace_of(config)})
    copy._online_store = RedisOnlineStoreConfig(
        redis_type="redis_cluster" if address.cluster else "redis",
        connection_string=",".join(parts),
        key_ttl_seconds=online.key_ttl_seconds,
    )
    return copy


def namespace_of(config: RepoConfig) -> str:
    """What all keys begin (tiles) or end with (rows)."""
    return str(config.online_store.namespace or config.project)
