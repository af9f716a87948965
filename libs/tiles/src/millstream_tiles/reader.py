"""Reads windows from Valkey: many views, entities and times in one round trip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from millstream_tiles.connection import Command
from millstream_tiles.definition import View
from millstream_tiles.held import Gone
from millstream_tiles.known_table import KnownTable
from millstream_tiles.layout import Ints
from millstream_tiles.ports import Fence
from millstream_tiles.read_plan import Planner, Request, tile_keys
from millstream_tiles.read_values import values_of
from millstream_tiles.tile_client import TileClient
from millstream_tiles.windows import Values


class Found(NamedTuple):
    """What a read brought."""

    values: list[Values]
    """One a request."""
    gone: list[Gone]
    """One a request: which of its nulls are windows that the store does not hold any more."""
    replies: list[Any]
    """Those to the other commands."""


class WindowReader:
    """Window values of `views` as of a time.

    An as-of may lie behind the newest event applied by `partials.slack_of(view)`; it then sees those newer events in its
    newest tile (online state has no memory of when it learned what). Of windows further back tiles may have been dropped:
    these are null (`held`), counts too, whose column is float64 then.
    Connections are made on first use; sync and async reads have each their own.
    """

    def __init__(
        self, url: str, namespace: str, views: Mapping[str, View], *, shards: int | None = None, timeout: float = 2.0
    ) -> None:
        self.views = views
        # `timeout` (seconds): a read takes about 2 ms; one that takes a thousand times as long will not be waited for.
        self.client = TileClient(url, namespace, shards, timeout=timeout)
        self._keys = self.client.keys
        self._known = KnownTable()
        self._planner = Planner(views, self._keys, self._known)

    def read(self, requests: Sequence[Request], as_of: int | Ints) -> list[Values]:
        """For each request the view's features: arrays with one value a row.

        `as_of` is microseconds, one for all or one a row. A null key has empty windows. Raises StoreUnavailable,
        ShardsDiffer, ViewNotReady, and KeyError for a view or a join key that is not there.
        """
        return self.read_along(requests, as_of, ()).values

    async def read_async(self, requests: Sequence[Request], as_of: int | Ints) -> list[Values]:
        """`read` for the event loop."""
        return (await self.read_along_async(requests, as_of, ())).values

    def read_along(self, requests: Sequence[Request], as_of: int | Ints, others: Sequence[Command]) -> Found:
        """`read`, and in the same round trip the replies to other commands."""
        plan = self._planner.plan(requests, as_of)
        replies, rest = self.client.fetch(plan.calls(), others)
        while not self._known.holds(replies) or plan.missing:
            if not self._known.learn(self.client.table()):
                self._known.check()
                break
            plan = self._planner.plan(requests, as_of)
            replies, rest = self.client.fetch(plan.calls(), others)
        return Found(*values_of(plan.whole(), as_of, replies), rest)

    async def read_along_async(
        self, requests: Sequence[Request], as_of: int | Ints, others: Sequence[Command]
    ) -> Found:
        """`read_along` for the event loop."""
        plan = self._planner.plan(requests, as_of)
        replies, rest = await self.client.fetch_async(plan.calls(), others)
        while not self._known.holds(replies) or plan.missing:
            if not self._known.learn(await self.client.table_async()):
                self._known.check()
                break
            plan = self._planner.plan(requests, as_of)
            replies, rest = await self.client.fetch_async(plan.calls(), others)
        return Found(*values_of(plan.whole(), as_of, replies), rest)

    def stand_in(self, view: View, original: View) -> None:
        """Read the tiles of `original` by `view`, which has its name and the same layout but other windows.

        They are read as they lie: where some have been dropped, the others still count.
        """
        self._known.stand_in(view, original)

    def has_tiles(self, name: str, columns: Mapping[str, Sequence[Any]]) -> bool:
        """Whether the store holds a tile of any of these entities of view `name`, of whatever time.

        Raises StoreUnavailable, ViewNotReady.
        """
        self._known.learn(self.client.table())
        plan = self._planner.plan([(name, columns)], 0).whole()
        return any(self.client.holds_any(tile_keys(families)) for families in plan.shards)

    def stream_times(self) -> dict[str, dict[int, int]]:
        """Stream -> partition -> the largest known-at applied (microseconds). Raises StoreUnavailable, ShardsDiffer."""
        return self.client.clocks(self._streams())

    async def stream_times_async(self) -> dict[str, dict[int, int]]:
        """`stream_times` for the event loop."""
        return await self.client.clocks_async(self._streams())

    async def filled_async(self) -> dict[str, bool]:
        """View -> whether it has tiles of this definition and can be read. Raises StoreUnavailable."""
        self._known.learn(await self.client.table_async())
        return {name: self._known.generation_of(view) is not None for name, view in self.views.items()}

    async def fences_async(self, group: str) -> dict[str, dict[int, Fence]]:
        """Stream -> partition -> how far `group` has applied it in every shard. Raises StoreUnavailable, ShardsDiffer."""
        return await self.client.fences_async(self._streams(), group)

    def close(self) -> None:
        """Close the connections of the sync reads."""
        self.client.close()

    async def aclose(self) -> None:
        """Close all connections."""
        await self.client.aclose()

    def _streams(self) -> list[str]:
        return sorted({view.stream for view in self.views.values()})
