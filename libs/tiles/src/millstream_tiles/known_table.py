"""What a reader knows of the table of generations; each reply says whether it still holds."""

from __future__ import annotations

from typing import Any

from millstream_tiles.definition import View
from millstream_tiles.generation import Table, name_at
from millstream_tiles.generations import table_of


class KnownTable:
    """Begins without a table, which is right where there is none, and otherwise costs the first read a second one."""

    def __init__(self) -> None:
        self._table = Table()
        self._revision = b"0"

    def name_of(self, view: View) -> str | None:
        """What the tiles of `view` are called now; None: it has none of this definition."""
        generation = self._table.generation_of(view)
        return None if generation is None else name_at(view.name, generation)

    def holds(self, replies: list[Any]) -> bool:
        """Whether every shard knows this table. Takes the revisions off the replies."""
        return all([reply.pop() == self._revision for reply in replies])

    def learn(self, raw: Any) -> bool:
        """Take the table as it lies in the store; whether it is another one."""
        table, before = table_of(raw), self._table.revision
        self._table, self._revision = table, str(table.revision).encode()
        return table.revision != before
