"""The table of generations in the online store: read, claimed by workers, changed by rebuilds.

A change is one compare-and-set. Afterwards every shard is told the new revision, and from then on refuses each batch of a
writer that does not know it: so no worker can leave a generation out that it has not heard of.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec

from millstream_tiles.connection import answering
from millstream_tiles.definition import View
from millstream_tiles.digest import digest
from millstream_tiles.errors import RebuildRefused, StoreUnavailable
from millstream_tiles.generation import FIRST, Standing, Table, name_at
from millstream_tiles.ports import Fence
from millstream_tiles.tile_store import ValkeyTileStore

ATTEMPTS = 20
"""Changes of others that one change gives way to: all workers of a deployment may start at once."""

_CHANGE = """
-- KEYS: the table, the first shard's revision, fences that must not be there. ARGV: the table before, after, its revision
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
for i = 3, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then return 0 end
end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('SET', KEYS[2], ARGV[3])
return 1
"""

_TELL = """
if tonumber(redis.call('GET', KEYS[1]) or '0') < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
return 1
"""

Change = tuple[Table, Sequence[bytes]]
"""The table as it shall be, and keys of the first shard that must not exist by then."""


class Generations:
    """The table of one namespace, for the workers of consumer group `group`. Every call may raise StoreUnavailable."""

    def __init__(self, store: ValkeyTileStore, group: str) -> None:
        self.store = store
        self.group = group

    async def read(self) -> Table:
        """The table as it is now."""
        return table_of(await self._raw())

    async def claim(self, views: Iterable[View]) -> Table:
        """What a worker does before its first batch: put views that nobody knew into the table.

        On a stream that was never applied they are read at once. On one that was, they have missed what came before:
        they wait for a rebuild, as do views whose definition has changed.
        """
        mine = {view.name: view for view in views}

        async def look(table: Table) -> Change | None:
            changed: dict[str, Standing] = retired(table, mine)
            absent: list[bytes] = []
            begun = table.revision or await self._told()
            for view in mine.values():
                standing = table.views.get(view.name)
                if standing is not None and standing.digest == digest(view):
                    continue
                fresh = not any(await self.fences(view.stream, FIRST))
                if fresh:
                    absent.append(self.store.keys.fences(self.group, view.stream, 0))
                # Without a table, whatever tiles there are were written by a worker with these views.
                live = FIRST if fresh or not begun else 0
                changed[view.name] = Standing(stream=view.stream, digest=digest(view), live=live)
            return (table.with_(changed), absent) if changed else None

        return await self.change(look)

    async def refresh(self, views: Iterable[View]) -> Table:
        """What a worker does when the store refused its table: read it anew.

        A view that is read, but that this worker does not write, is not whole from now on: it loses its generation.
        """
        mine = {view.name: view for view in views}

        async def look(table: Table) -> Change | None:
            changed = retired(table, mine)
            return (table.with_(changed), ()) if changed else None

        return await self.change(look)

    async def begin(self, views: Sequence[View], *, since: int | None, anew: bool = False) -> tuple[int, int | None]:
        """The generation that a rebuild of `views` (all of one stream) fills, and the event time from which.

        The one that an earlier rebuild of the same views began, unless `anew`. Raises RebuildRefused.
        """
        names = {view.name for view in views}

        async def look(table: Table) -> Change | None:
            standings = [_known(table, view) for view in views]
            coming = {standing.coming for standing in standings}
            if not anew and coming != {0}:
                one = max(coming)
                if coming == {one} and names == _coming(table, views[0].stream, one):
                    return None
                others = sorted(_coming(table, views[0].stream, one))
                raise RebuildRefused(
                    f"a rebuild of {', '.join(others)} together is under way; finish that one, or begin anew with --fresh"
                )
            new = table.last + 1
            changed = {
                view.name: msgspec.structs.replace(standing, coming=new, since=since)
                for view, standing in zip(views, standings, strict=True)
            }
            return table.with_(changed, last=new), ()

        standing = (await self.change(look)).views[views[0].name]
        return standing.coming, standing.since

    async def touch(self) -> Table:
        """A new revision and nothing else: every batch that is under way is refused, and applied with what is known now."""

        async def look(table: Table) -> Change | None:
            return table, ()

        return await self.change(look)

    async def switch(self, views: Sequence[View], generation: int) -> Table:
        """From now on `views` are read from `generation`. Safe to call twice. Raises RebuildRefused."""

        async def look(table: Table) -> Change | None:
            changed = {}
            for view in views:
                standing = _known(table, view)
                if standing.coming != generation and standing.live != generation:
                    raise RebuildRefused(
                        f"{view.name}: another rebuild has taken over; there is nothing left to do here"
                    )
                if standing.coming == generation:
                    changed[view.name] = msgspec.structs.replace(standing, live=generation, coming=0, since=None)
            return (table.with_(changed), ()) if changed else None

        return await self.change(look)

    async def forget(self, name: str) -> Table:
        """Take a view out of the table: nobody reads or writes it any more."""

        async def look(table: Table) -> Change | None:
            return (table.with_({}, without=[name]), ()) if name in table.views else None

        return await self.change(look)

    async def fences(self, stream: str, generation: int) -> list[dict[int, Fence]]:
        """For each shard: partition -> how far `generation` has been applied there."""
        names = [self.store.keys.fences(self.group, name_at(stream, generation), s) for s in range(self.store.shards)]
        with answering():
            await self.store.client.initialize()
            held = [await self.store.client.hgetall(name) for name in names]
        found = []
        for one in held:
            pairs = {int(p): said.split() for p, said in one.items()}
            found.append({p: Fence(offset=int(o), stream_time=int(t)) for p, (o, t) in pairs.items()})
        return found

    async def change(self, look: Callable[[Table], Awaitable[Change | None]]) -> Table:
        """Make the table what `look` makes of it (None: leave it), and tell every shard; the table as it then is."""
        for _ in range(ATTEMPTS):
            told = await self._told()  # before the table: a shard is never told of one that is not there yet
            raw = await self._raw()
            table = table_of(raw)
            taken_back = 0 < table.revision < told
            if taken_back:
                table = doubted(table)
            wanted = await look(table) or ((table, ()) if taken_back else None)
            if wanted is None:
                await self._tell(table.revision)
                return table
            after, absent = wanted
            # By the clock, so that a table which was lost and made anew is a later one.
            revision = max(table.revision + 1, told + 1, time.time_ns() // 1000)
            after = msgspec.structs.replace(after, revision=revision)
            keys = [self.store.keys.generations(), self.store.keys.revision(0), *absent]
            with answering():
                done = await self.store.client.eval(
                    _CHANGE, len(keys), *keys, raw, msgspec.json.encode(after), str(revision)
                )
            if done:
                await self._tell(revision)
                return after
        raise StoreUnavailable(f"the table of generations changed {ATTEMPTS} times under us; try again")

    async def _raw(self) -> bytes:
        with answering():
            await self.store.client.initialize()
            return await self.store.client.get(self.store.keys.generations()) or b""

    async def _tell(self, revision: int) -> None:
        with answering():
            for shard in range(self.store.shards) if revision else ():
                await self.store.client.eval(_TELL, 1, self.store.keys.revision(shard), str(revision))

    async def _told(self) -> int:
        """The latest revision that any shard has been told of. Above the table's: the first shard has lost data."""
        with answering():
            await self.store.client.initialize()
            keys = [self.store.keys.revision(shard) for shard in range(self.store.shards)]
            return max([int(await self.store.client.get(key) or 0) for key in keys])


def table_of(raw: bytes | None) -> Table:
    """The table as it lies in the store."""
    return msgspec.json.decode(raw, type=Table) if raw else Table()


def doubted(table: Table) -> Table:
    """A table that a failover took back to an earlier state: no view is known to be whole, and no rebuild to be under way."""
    views = {name: msgspec.structs.replace(one, live=0, coming=0) for name, one in table.views.items()}
    return msgspec.structs.replace(table, views=views)


def retired(table: Table, mine: dict[str, View]) -> dict[str, Standing]:
    """Views that a worker with views `mine` makes incomplete: they are read, and it writes their stream without them."""
    streams = {view.stream for view in mine.values()}
    return {
        name: msgspec.structs.replace(one, live=0)
        for name, one in table.views.items()
        if one.live and one.stream in streams and (name not in mine or digest(mine[name]) != one.digest)
    }


def _known(table: Table, view: View) -> Standing:
    standing = table.views.get(view.name)
    if standing is None or standing.digest != digest(view):
        raise RebuildRefused(
            f"{view.name}: features does not write this definition of it; start features again with these definitions first"
        )
    return standing


def _coming(table: Table, stream: str, generation: int) -> set[str]:
    return {name for name, one in table.views.items() if one.stream == stream and one.coming == generation}
