"""Where the online store is, and the one place that makes clients of it: one server or a cluster, by the URL alone.

`redis://host:6379/0` (`rediss://` with TLS) is one server; `redis+cluster://host:6379,host:6379` (`rediss+cluster://`) is a
Redis Cluster or Valkey Cluster, found by any one of the nodes that are named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.cluster
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry

from millstream_tiles.errors import BadAddress, StoreUnavailable

CLUSTER_SHARDS = 12
"""Shards on a cluster unless the user says otherwise: spread evenly over 1, 2, 3, 4, 6 or 12 masters, and almost so over 5."""

RETRIES = 1
"""At once, for a pooled connection that the server closed meanwhile (a restart); on a cluster with its slots looked up again.
More would keep a question waiting for a server that hangs; who calls us has patience of its own."""

_EXAMPLE = "write redis://host:6379/0, or redis+cluster://host:6379,host:6379 for a cluster"


Command = tuple[Any, ...]
"""A command and its arguments. A script's are (script, number of keys, keys…); of any other the first is its only key."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """A URL of the online store, taken apart."""

    url: str
    """As redis-py understands it; of a cluster the first node's."""
    cluster: bool
    nodes: tuple[tuple[str, int], ...]
    """Host and port of each node that was named; empty for a Unix socket."""

    @classmethod
    def of(cls, url: str) -> Address:
        """Raises BadAddress, saying what to write."""
        scheme, found, rest = url.partition("://")
        plain = scheme.removesuffix("+cluster")
        if not found or plain not in ("redis", "rediss", "unix") or scheme == "unix+cluster":
            raise BadAddress(f"{_hidden(url)!r} is no address of an online store; {_EXAMPLE}")
        if plain == "unix":
            return cls(url=url, cluster=False, nodes=())
        place, slash, path = rest.partition("/")
        login, at, hosts = place.rpartition("@")
        try:
            nodes = tuple(_node(host) for host in hosts.split(","))
        except ValueError:
            raise BadAddress(f"{_hidden(url)!r}: {hosts!r} is no host:port; {_EXAMPLE}") from None
        if scheme == plain:
            if len(nodes) > 1:
                raise BadAddress(f"{_hidden(url)!r} names several hosts; {plain}+cluster:// is a cluster")
            return cls(url=url, cluster=False, nodes=nodes)
        if path.partition("?")[0] not in ("", "0"):
            raise BadAddress(f"{_hidden(url)!r}: a cluster has no databases but 0; leave /{path} out")
        first = hosts.split(",")[0]
        return cls(url=f"{plain}://{login}{at}{first}{slash}{path}", cluster=True, nodes=nodes)


def shards_of(url: str, shards: int | None) -> int:
    """`shards` if said, else 1 on one server and 12 on a cluster. Raises BadAddress."""
    if shards is not None:
        return shards
    return CLUSTER_SHARDS if Address.of(url).cluster else 1


def connect(url: str, *, timeout: float) -> Any:
    """A client for threads; of a cluster it connects at once (call it `answering`). `timeout` in seconds, of each answer."""
    address, options = Address.of(url), _options(timeout)
    if not address.cluster:
        return redis.Redis.from_url(address.url, retry=Retry(NoBackoff(), RETRIES), **options)
    others: list[Any] = [redis.cluster.ClusterNode(*node) for node in address.nodes[1:]]  # type: ignore[no-untyped-call]
    return redis.cluster.RedisCluster.from_url(
        address.url, startup_nodes=others, retry=Retry(NoBackoff(), RETRIES), **options, **_PATCHED
    )


def connect_async(url: str, *, timeout: float) -> Any:
    """A client for the event loop. Await its `initialize()` before commands: until then redis-py may send them anywhere."""
    address, options = Address.of(url), _options(timeout)
    if not address.cluster:
        return redis.asyncio.Redis.from_url(address.url, retry=AsyncRetry(NoBackoff(), RETRIES), **options)
    others = [redis.asyncio.cluster.ClusterNode(*node) for node in address.nodes[1:]]
    return redis.asyncio.cluster.RedisCluster.from_url(
        address.url, startup_nodes=others, retry=AsyncRetry(NoBackoff(), RETRIES), **options, **_PATCHED
    )


@contextmanager
def answering() -> Iterator[None]:
    """Around every use of a client: whatever keeps it from an answer becomes StoreUnavailable."""
    try:
        yield
    except (RedisError, RedisClusterException, OSError) as error:  # a cluster's own errors are no RedisError
        raise StoreUnavailable(f"the online store did not answer: {error}") from error
    except AttributeError as error:
        # A connection that redis-py closed under a task which was just opening it.
        if not _from_redis(error.__traceback__):
            raise
        raise StoreUnavailable("the online store did not answer: the cluster is changing") from error


def ask(client: Any, commands: Sequence[Command]) -> list[Any]:
    """The answers to `commands`, from all servers that it takes at once."""
    for last in (isinstance(client, redis.Redis), True):
        with client.pipeline(transaction=False) as pipe:
            try:
                return list(_aimed(pipe, client, commands).execute())
            except RedisConnectionError:  # a node died; where its slots are was looked up meanwhile
                if last:
                    raise
    raise AssertionError("the last try returns or raises")


async def ask_async(client: Any, commands: Sequence[Command]) -> list[Any]:
    """`ask` for the event loop."""
    for last in (isinstance(client, redis.asyncio.Redis), True):
        async with client.pipeline(transaction=False) as pipe:
            try:
                return list(await _aimed(pipe, client, commands).execute())
            except RedisConnectionError:
                if last:
                    raise
    raise AssertionError("the last try returns or raises")


def _aimed(pipe: Any, client: Any, commands: Sequence[Command]) -> Any:
    """Each command is for the node of its first key. Left to itself the client would ask a server where the keys of a script
    stand, and work out the slot of each of thousands."""
    for command in commands:
        key = command[3] if command[0] in ("EVALSHA", "EVAL") else command[1]
        pipe.execute_command(*command, **_aim(client, key))
    return pipe


def _aim(client: Any, key: bytes) -> dict[str, Any]:
    if isinstance(client, (redis.Redis, redis.asyncio.Redis)):
        return {}
    try:
        return {"target_nodes": client.get_node_from_key(key)}
    except RedisClusterException:  # nobody has this slot as far as we know: the client looks again before it gives up
        return {}


def _from_redis(place: TracebackType | None) -> bool:
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place is not None and str(place.tb_frame.f_globals.get("__name__")).startswith("redis.")


_PATCHED: dict[str, Any] = {"reinitialize_steps": 0}
"""A slot that moved is noted, and all else stays; redis-py's other way closes every connection after the fifth that moved."""


def _options(timeout: float) -> dict[str, Any]:
    return {"socket_timeout": timeout, "socket_connect_timeout": timeout}


def _node(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError(text)
    return parts.hostname, parts.port or 6379


def _hidden(url: str) -> str:
    """The URL without its password, for messages."""
    head, at, tail = url.rpartition("@")
    return f"{head.partition('://')[0]}://…@{tail}" if at else url
