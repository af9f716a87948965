"""The names of everything we keep in Valkey. Whoever shares a namespace shares these."""

from __future__ import annotations

from millstream_tiles.layout import Layout

SECOND = 1_000_000


class TileKeys:
    """Key names of one namespace. All keys of a shard carry its hash tag, so that one script may touch them in a cluster."""

    def __init__(self, namespace: str, shards: int) -> None:
        if shards < 1 or not namespace or set(namespace) & set("{}"):
            raise ValueError(f"namespace {namespace!r} must have no braces, shards {shards} must be at least 1")
        self.namespace = namespace
        self.shards = shards

    def family(self, view: str, slide: int, layout: Layout, shard: int) -> bytes:
        """What the keys of a family begin with; the entity's text follows."""
        step = f"{slide // SECOND}s" if slide % SECOND == 0 else f"{slide}us"
        return f"{self._tag(shard)}:tile:{view}:{step}:{layout.mark}:".encode()

    def fences(self, group: str, stream: str, shard: int) -> bytes:
        return f"{self._tag(shard)}:fence:{group}:{stream}".encode()

    def clock(self, stream: str, shard: int) -> bytes:
        return f"{self._tag(shard)}:clock:{stream}".encode()

    def ids(self, stream: str, shard: int) -> bytes:
        """The index of id buckets; with ":<bucket>" behind it, a bucket."""
        return f"{self._tag(shard)}:ids:{stream}".encode()

    def everything(self) -> str:
        """A SCAN pattern for all keys of the namespace."""
        return f"{{{self.namespace}:*"

    def _tag(self, shard: int) -> str:
        return f"{{{self.namespace}:{shard}}}"


def entity_bytes(entity: str) -> bytes:
    """An entity's text as it stands in a key; lone surrogates (JSON allows them) pass."""
    return entity.encode("utf-8", "surrogatepass")
