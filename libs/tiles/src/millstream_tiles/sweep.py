"""Removes what nobody reads or writes any more: the tiles, fences and ids of generations that were replaced."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from millstream_tiles.connection import answering
from millstream_tiles.errors import RebuildRefused
from millstream_tiles.generation import FIRST, Table, name_at
from millstream_tiles.generations import Generations
from millstream_tiles.tile_keys import TileKeys

STEP = 1_000
"""Keys looked at, or unlinked, in one command: a millisecond of the server's time, since their memory is freed beside it."""


async def forget_view(generations: Generations, name: str) -> int:
    """Remove a view that no worker writes any more, with all that is kept for it; how many tiles that were.

    Safe to call twice. Raises RebuildRefused for a name that is not known, StoreUnavailable.
    """
    table = await generations.read()
    standing = table.views.get(name)
    if standing is not None:
        await generations.forget(name)
    removed = await sweep_view(generations, name)
    if standing is None and not removed:
        there = ", ".join(sorted(table.views)) or "none"
        raise RebuildRefused(f"no view {name!r} has tiles here; there are {there}")
    for stream in {standing.stream} if standing is not None else {one.stream for one in table.views.values()}:
        await sweep_stream(generations, stream)
    return removed


async def sweep_view(generations: Generations, name: str) -> int:
    """Remove the tiles of view `name` from all generations but those that the table says are read or coming; how many.

    For a view that is not in the table: all of them. Safe to call twice and while events are applied. Raises
    StoreUnavailable.
    """
    removed = 0
    table = await generations.read()
    standing = table.views.get(name)
    kept = {name_at(name, n) for n in (standing.live, standing.coming) if n} if standing else set()
    async for keys in tiles_of(generations, name):
        gone = [key for key in keys if view_in(generations.store.keys, key) not in kept]
        for first in range(0, len(gone), STEP):
            with answering():
                async with generations.store.client.pipeline(transaction=False) as pipe:
                    for key in gone[first : first + STEP]:
                        # Not pipe.unlink: of a cluster's pipeline that is a coroutine, and nobody would wait for it.
                        pipe.execute_command("UNLINK", key)
                    removed += sum(await pipe.execute())
    return removed


async def sweep_stream(generations: Generations, stream: str) -> None:
    """Remove fences, clock and ids of the generations of `stream` that nobody reads or fills. Raises StoreUnavailable."""
    table, names, client = await generations.read(), generations.store.keys, generations.store.client
    used = set(table.generations(stream))
    for generation in range(FIRST, table.last + 1):
        called = name_at(stream, generation)
        for shard in range(generations.store.shards):
            with answering():
                if not _has_views(table, stream, generation):
                    ids = names.ids(called, shard)
                    for bucket in await client.smembers(ids):
                        await client.unlink(ids + b":" + bucket)
                    await client.unlink(ids)
                if generation not in used:  # generation 1 keeps its fence, by which everybody tells how far a stream is
                    await client.unlink(names.fences(generations.group, called, shard))
                    await client.unlink(names.clock(called, shard))
                    await client.unlink(names.course(called, shard))


async def tiles_of(generations: Generations, name: str) -> AsyncIterator[list[bytes]]:
    """The keys of all tiles of view `name`, of every generation, some at a time. Raises StoreUnavailable."""
    pattern = f"{{{_escaped(generations.store.keys.namespace)}:*:tile:{_escaped(name)}[#:]*"
    found: list[bytes] = []
    with answering():
        async for key in generations.store.client.scan_iter(pattern, count=STEP):
            found.append(key)
            if len(found) >= STEP:
                yield found
                found = []
    yield found


def view_in(names: TileKeys, key: bytes) -> str:
    """The view, as its generation is called, whose tiles are under `key`."""
    head = re.match(rb"\{.*?\}:tile:([^:]*):", key)
    return head[1].decode() if head else ""


def _has_views(table: Table, stream: str, generation: int) -> bool:
    return bool(table.members(stream, generation))


def _escaped(text: str) -> str:
    """As SCAN's patterns take it literally."""
    return re.sub(r"([*?\[\]\\^])", r"\\\1", text)
