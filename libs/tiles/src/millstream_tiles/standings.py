"""How each view stands, for a person: which generation is read, how many keys it has and what they weigh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from millstream_tiles.connection import answering
from millstream_tiles.definition import View
from millstream_tiles.digest import digest
from millstream_tiles.generation import FIRST, Table
from millstream_tiles.generations import Generations
from millstream_tiles.sweep import tiles_of

SAMPLE = 200
"""Entities whose memory is measured; the others are taken to weigh as much on average."""


@dataclass(frozen=True, kw_only=True)
class ViewState:
    """One view."""

    view: str
    state: str
    """ "read", "needs a rebuild", "unknown to features" or "not defined here"."""
    remedy: str
    """What to type where it is not as it should be."""
    generation: int
    """0: none is read."""
    coming: int
    """The one that a rebuild is filling; 0: none."""
    keys: int
    """In the store, of every generation: one for each entity and family of tiles."""
    bytes: int
    """Of them, from a sample."""
    stream_time: int
    """Newest known-at applied (microseconds); 0: nothing yet."""


async def states_of(generations: Generations, defined: Mapping[str, View]) -> list[ViewState]:
    """Every view that is defined or has a place in the table, by name. Looks at every key once. Raises StoreUnavailable."""
    table = await generations.read()
    found = []
    for name in sorted({*defined, *table.views}):
        view, standing = defined.get(name), table.views.get(name)
        stream = standing.stream if standing is not None else defined[name].stream
        live = standing.live if standing is not None else 0 if table.revision else FIRST
        state, remedy = _state(table, name, view)
        keys, weight = await _weight(generations, name)
        times = [f.stream_time for shard in await generations.fences(stream, live or FIRST) for f in shard.values()]
        found.append(
            ViewState(
                view=name,
                state=state,
                remedy=remedy,
                generation=live,
                coming=standing.coming if standing is not None else 0,
                keys=keys,
                bytes=weight,
                stream_time=max(times, default=0),
            )
        )
    return found


def _state(table: Table, name: str, view: View | None) -> tuple[str, str]:
    standing = table.views.get(name)
    if view is None:
        return "not defined here", f"millstream features forget {name}"
    if table.generation_of(view) is not None:
        return "read", ""
    if standing is None or standing.digest != digest(view):
        return "unknown to features", "start features again with these definitions"
    return "needs a rebuild", f"millstream features rebuild --view {name}"


async def _weight(generations: Generations, name: str) -> tuple[int, int]:
    count, sampled, weight = 0, 0, 0
    async for keys in tiles_of(generations, name):
        count += len(keys)
        mine = keys[: max(0, SAMPLE - sampled)]
        with answering():
            weights = [await generations.store.client.memory_usage(key) for key in mine]
        sampled, weight = sampled + len(mine), weight + sum(w or 0 for w in weights)
    return count, round(weight / sampled * count) if sampled else 0
