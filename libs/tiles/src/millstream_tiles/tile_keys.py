"""The names of everything we keep in Valkey. Whoever shares a namespace shares these."""

from __future__ import annotations

from functools import lru_cache
from itertools import count

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from millstream_tiles.layout import Layout
from millstream_tiles.ports import Fence

SECOND = 1_000_000
MOST_SHARDS = 256
"""Every batch is one script call a shard."""


class TileKeys:
    """Key names of one namespace. All keys of a shard carry its hash tag, so that one script may touch them in a cluster."""

    def __init__(self, namespace: str, shards: int) -> None:
        if not namespace or set(namespace) & set("{}"):
            raise ValueError(f"namespace {namespace!r} must be a name without braces")
        if not 1 <= shards <= MOST_SHARDS:
            raise ValueError(f"shards is {shards}; write 1 to {MOST_SHARDS}")
        self.namespace = namespace
        self.shards = shards
        self._tags = _tags(namespace, shards)

    def family(self, view: str, slide: int, layout: Layout, shard: int) -> bytes:
        """What the keys of a family begin with; the entity's text follows."""
        step = f"{slide // SECOND}s" if slide % SECOND == 0 else f"{slide}us"
        return f"{self._tag(shard)}:tile:{view}:{step}:{layout.mark}:".encode()

    def fences(self, group: str, stream: str, shard: int) -> bytes:
        return f"{self._tag(shard)}:fence:{group}:{stream}".encode()

    def clock(self, stream: str, shard: int) -> bytes:
        return f"{self._tag(shard)}:clock:{stream}".encode()

    def course(self, stream: str, shard: int) -> bytes:
        """How the stream's time stood to the clock of the store (`held.Course`)."""
        return f"{self._tag(shard)}:course:{stream}".encode()

    def ids(self, stream: str, shard: int) -> bytes:
        """The index of id buckets; with ":<bucket>" behind it, a bucket."""
        return f"{self._tag(shard)}:ids:{stream}".encode()

    def shard_count(self) -> str:
        """The number of shards of the namespace, which never changes while it has data."""
        return f"{{{self.namespace}:shards}}"

    def generations(self) -> bytes:
        """The table of generations (`generation.Table` as JSON)."""
        return f"{self._tag(0)}:generations".encode()

    def revision(self, shard: int) -> bytes:
        """The table's revision, in each shard, where every script compares it."""
        return f"{self._tag(shard)}:revision".encode()

    def everything(self) -> str:
        """A SCAN pattern for all keys of the namespace."""
        return f"{{{self.namespace}:*"

    def _tag(self, shard: int) -> str:
        return self._tags[shard]


@lru_cache(maxsize=64)
def _tags(namespace: str, shards: int) -> tuple[str, ...]:
    """A hash tag for each shard, `{namespace:3}` or with a number more behind it.

    The slots of a new cluster lie in one equal range a master. So shard i takes the first tag whose slot is near the middle of
    the i-th of N equal ranges: N shards, or a multiple, are spread exactly evenly over N masters, where N names chosen
    blindly would leave some of them idle.
    """
    if shards == 1:
        return (f"{{{namespace}:0}}",)
    width = REDIS_CLUSTER_HASH_SLOTS / shards
    tags = []
    for shard in range(shards):
        names = (f"{namespace}:{shard}" + (f".{n}" if n else "") for n in count())
        tags.append(next(n for n in names if 0.25 <= key_slot(n.encode()) / width - shard < 0.75))
    return tuple(f"{{{tag}}}" for tag in tags)


def entity_bytes(entity: str) -> bytes:
    """An entity's text as it stands in a key; lone surrogates (JSON allows them) pass."""
    return entity.encode("utf-8", "surrogatepass")


def fence_of(stored: bytes) -> Fence:
    """A fence as `tiles.lua` wrote it."""
    offset, stream_time = map(int, stored.split())
    return Fence(offset=offset, stream_time=stream_time)
