"""The port between the tiles' arithmetic and where they live."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from millstream_tiles.partials import TileBatch


class Outcome(StrEnum):
    """What came of applying a batch."""

    APPLIED = "applied"
    ALREADY = "already"
    """The whole batch lies at or behind the fence; nothing changed."""
    OVERLAP = "overlap"
    """Its beginning was applied before; nothing changed. Cut it behind the fence and apply the rest."""
    BEHIND = "behind"
    """The store has not seen all that came before; nothing changed. Seek back to the fence + 1."""
    SEEN = "seen"
    """Some of its event ids were counted before; nothing changed. Drop those events and apply the rest."""
    STALE = "stale"
    """The writer knows another table of generations than the store; nothing changed. Read it anew (`LiveWriter` does)."""


@dataclass(frozen=True, kw_only=True)
class Applied:
    """The answer of `apply`."""

    outcome: Outcome
    fence: int
    """Last offset that the store has applied; -1: none, or not looked at."""
    seen: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Fence:
    """How far a consumer group has been applied on one partition: everything up to `offset`, known up to `stream_time`."""

    offset: int
    stream_time: int
    """Microseconds; the largest known-at applied. 0: no event yet."""


class TileStore(Protocol):
    """Where tiles live. Called by one worker per partition; may block the batch, never the loop."""

    @property
    def shards(self) -> int:
        """Into how many independently atomic parts entities are split; each keeps fences of its own."""

    async def apply(self, batch: TileBatch, *, group: str) -> Applied:
        """Merge `batch` into its shard, remember its event ids and move the shard's fence, together or not at all.

        Only Outcome.APPLIED changes anything, and it does so once: safe to call again after a crash, a timeout or from a
        zombie. Drops tiles below a family's cutoff in its own time. Raises StoreUnavailable (retry later; the batch may
        or may not have been applied, calling again finds out).
        """

    async def fence(self, group: str, stream: str, partition: int) -> Fence | None:
        """The fence that holds for every shard (the least), None if any shard has none. Raises StoreUnavailable."""

    async def check(self) -> None:
        """Whether the store answers. Raises StoreUnavailable."""

    async def close(self) -> None:
        """Let go of connections. Safe to call twice."""
