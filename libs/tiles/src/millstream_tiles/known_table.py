"""What a reader knows of the table of generations; each reply says whether it still holds."""

from __future__ import annotations

from typing import Any

from millstream_tiles.definition import View
from millstream_tiles.errors import StoreUnavailable
from millstream_tiles.generation import Table
from millstream_tiles.generations import table_of

REMEMBERED = 4096
"""Views whose generation is kept; a registry's refresh makes new ones of all."""


class KnownTable:
    """Begins without a table, which is right where there is none, and otherwise costs the first read a second one."""

    def __init__(self) -> None:
        self._table = Table()
        self._revision = b"0"
        self._told = b"0"
        """The latest revision that a shard answered with."""
        self._stands_for: dict[View, View] = {}
        """Views that read the tiles of another one, whose layout they share."""
        self._found: dict[int, tuple[View, int | None]] = {}
        """What was found before, by the view's identity: to hash a view takes as long as to compute it."""

    def generation_of(self, view: View) -> int | None:
        """The one that `view` is read from now; None: there are no tiles of this definition."""
        known = self._found.get(id(view))
        if known is not None and known[0] is view:
            return known[1]
        generation = self._table.generation_of(self._stands_for.get(view, view))
        if len(self._found) >= REMEMBERED:
            self._found.clear()
        self._found[id(view)] = view, generation
        return generation

    def stands_in(self, view: View) -> bool:
        """Whether `view` reads the tiles of another one."""
        return view in self._stands_for

    def stand_in(self, view: View, original: View) -> None:
        """Give `view` the tiles of `original`."""
        self._stands_for[view] = original
        self._found.clear()

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
        self._found.clear()
        return table.revision != before
