"""What stands where: each view's tiles belong to a generation, and one table says which one is read and which one is coming.

A generation is a view under another name on a stream under another name ("spend#2" on "orders#2"). So it has tiles, fences,
event ids and a clock of its own, written by the same writer and the same script as any other, and is exactly-once by itself.
Generation 1 keeps the plain names. Its fence always moves last: what it has reached, every live view has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache

import msgspec

from millstream_tiles.definition import View
from millstream_tiles.digest import digest
from millstream_tiles.events import EventBatch

FIRST = 1
"""The generation that a stream's fences begin with."""


class Standing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where one view stands."""

    stream: str
    digest: str
    """Of the definition that its tiles follow, or, where it has none, that the workers know."""
    live: int = 0
    """The generation that is read; 0: none, the view must be rebuilt before it can be read."""
    coming: int = 0
    """The generation that a rebuild is filling; 0: none."""
    since: int | None = None
    """Event time (microseconds) from which the coming one is filled; None: from the first event."""


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """All views of a namespace. Whoever knows another revision than the store is refused, and reads the table anew."""

    revision: int = 0
    """0: nobody made a table here; then every view is in generation 1 (a single writer without rebuilds needs no more)."""
    last: int = FIRST
    """The highest generation ever begun."""
    views: dict[str, Standing] = {}

    def with_(
        self, changed: Mapping[str, Standing], *, without: Collection[str] = (), last: int | None = None
    ) -> Table:
        """The same table with some standings changed or taken away; the revision is the store's business."""
        views = {name: one for name, one in {**self.views, **changed}.items() if name not in without}
        return msgspec.structs.replace(self, views=views, last=self.last if last is None else last)

    def generation_of(self, view: View) -> int | None:
        """The generation to read `view` from; None when it has no tiles of this definition."""
        if not self.revision:
            return FIRST
        standing = self.views.get(view.name)
        return standing.live if standing and standing.live and standing.digest == digest(view) else None

    def members(self, stream: str, generation: int) -> list[str]:
        """Names of the views of `stream` that a generation is read or filled for."""
        return [
            name
            for name, one in self.views.items()
            if one.stream == stream and generation and generation in (one.live, one.coming)
        ]

    def generations(self, stream: str) -> list[int]:
        """Every generation of `stream` that somebody reads or fills, the newest first, and generation 1 as the last."""
        found = {n for one in self.views.values() if one.stream == stream for n in (one.live, one.coming) if n > FIRST}
        return [*sorted(found, reverse=True), FIRST]

    def written(self, views: Iterable[View], stream: str, generation: int) -> list[View]:
        """Those of `views` whose tiles of `generation` a worker writes, by their names there."""
        names = set(self.members(stream, generation))
        mine = [v for v in views if v.name in names and self.views[v.name].digest == digest(v)]
        return [view_at(view, generation) for view in mine]

    def is_read(self, stream: str, generation: int) -> bool:
        """Whether some view of `stream` is read from `generation`."""
        return any(one.stream == stream and one.live == generation for one in self.views.values())


@lru_cache(maxsize=4096)
def view_at(view: View, generation: int) -> View:
    """`view` as its tiles of `generation` are called."""
    if generation == FIRST:
        return view
    return replace(view, name=name_at(view.name, generation), stream=name_at(view.stream, generation))


def batch_at(batch: EventBatch, generation: int) -> EventBatch:
    """`batch` as the writer of `generation` takes it."""
    return batch if generation == FIRST else replace(batch, stream=name_at(batch.stream, generation))


def name_at(name: str, generation: int) -> str:
    """The name of a view or a stream in `generation`. Kafka allows no "#" in a topic's name."""
    return name if generation == FIRST else f"{name}#{generation}"
