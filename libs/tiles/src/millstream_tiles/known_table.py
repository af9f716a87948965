"""What a reader knows of the table of generations; each reply says whether it still holds."""

from __future__ import annotations

from typing import Any

from millstream_tiles.definition import View
from millstream_tiles.errors import StoreUnavailable
from millstream_tiles.generation import Table, name_at
from millstream_tiles.generations import table_of


class KnownTable:
    """Begins without a table, which is right where there is none, and otherwise costs the first read a second one."""

    def __init__(self) -> None:
        self._table = Table()
        self._revision = b"0"
        self._told = b"0"
        """The latest revision that a shard answered with."""
        self.stands_for: dict[View, View] = {}
        """Views that read the tiles of another one, whose layout they share."""

    def name_of(self, view: View) -> str | None:
        """What the tiles of `view` are called now; None: it has none of this definition."""
        generation = self._table.generation_of(self.stands_for.get(view, view))
        return None if generation is None else name_at(view.name, generation)

    def holds(self, replies: list[Any]) -> bool:
        """Whether every shard knows this table. Takes the revisions off the replies."""
        said = [reply.pop() for reply in replies]
        self._told = max(said, key=int, default=b"0")
        return all([revision == self._revision for revision in said])

    def check(self) -> None:
        """Raises StoreUnavailable where a shard knows of a later table than the store has: a failover took the table back."""
        if int(self._told) > int(self._revision):
            raise StoreUnavailable(
                "the online store lost its table of generations; features mends it with its next batch"
            )

    def learn(self, raw: Any) -> bool:
        """Take the table as it lies in the store; whether it is another one."""
        table, before = table_of(raw), self._table.revision
        self._table, self._revision = table, str(table.revision).encode()
        return table.revision != before
