"""What an entity takes in the online store: whole windows of typical views, in a real Valkey."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from millstream.testing.valkey import EmbeddedValkey
from millstream_tiles import EventBatch, TileWriter, ValkeyTileStore
from millstream_tiles.connection import connect
from millstream_tiles.definition import Aggregate, Function, View

MINUTE, HOUR, DAY = 60_000_000, 3_600_000_000, 86_400_000_000
NOON = 1_370_088_000_000_000
ENTITIES = 50
"""They are all alike, but for what the server's allocator rounds."""
IDS = 20_000
FOUR = (Function.COUNT, Function.MEAN, Function.STD, Function.LAST)
VIEWS: dict[str, tuple[tuple[Function, ...], tuple[tuple[int, int], ...]]] = {
    "count, 1 h by 10 min": ((Function.COUNT,), ((HOUR, 10 * MINUTE),)),
    "count and mean, 1 h by 10 min": ((Function.COUNT, Function.MEAN), ((HOUR, 10 * MINUTE),)),
    "count, mean, std, last, 1 h by 10 min": (FOUR, ((HOUR, 10 * MINUTE),)),
    "the same four, 24 h by 1 h": (FOUR, ((24 * HOUR, HOUR),)),
    "12 features: the four over 1 h by 10 min, 24 h by 1 h, 7 d by 1 d": (
        FOUR,
        ((HOUR, 10 * MINUTE), (24 * HOUR, HOUR), (7 * DAY, DAY)),
    ),
}
TWELVE = next(name for name in VIEWS if name.startswith("12 "))


@dataclass(frozen=True, kw_only=True)
class Held:
    """What one entity of a view takes when there was an event in each of its tiles."""

    view: str
    tiles: float
    bytes_per_entity: int
    """As `MEMORY USAGE` says, of all its keys, their names included."""


async def memory(options: dict[str, str] | None = None) -> dict[str, Any]:
    """`memory` (a row a view), `bytes_per_entity` (12 features) and `bytes_per_id`; `options` are set on the server."""
    with TemporaryDirectory(prefix="millstream-bench-") as name:
        valkey = EmbeddedValkey(Path(name) / "valkey", None, log_dir=Path(name) / "logs")
        with valkey.running():
            client = connect(valkey.url, timeout=10)
            for option, value in (options or {}).items():
                client.config_set(option, value)
            rows = [
                await _held(valkey.url, client, name, functions, slides) for name, (functions, slides) in VIEWS.items()
            ]
            ids = await _ids(valkey.url, client)
            client.close()
    twelve = next(row.bytes_per_entity for row in rows if row.view == TWELVE)
    return {"bytes_per_entity": twelve, "bytes_per_id": ids, "memory": [asdict(row) for row in rows]}


async def _held(
    url: str, client: Any, name: str, functions: Iterable[Function], slides: Iterable[tuple[int, int]]
) -> Held:
    view = View(
        name="spend",
        stream="orders",
        keys=("customer",),
        time_field="at",
        lateness=HOUR,
        event_id=None,
        aggregates=tuple(
            Aggregate(name=f"{f}_{window}", function=f, column="amount", window=window, slide=slide)
            for window, slide in slides
            for f in functions
        ),
    )
    client.flushall()
    # An event each finest slide, for twice the longest window: each tile of every window has something in it, and those that
    # left the windows are dropped as they are by and by.
    step = min(slide for _, slide in slides)
    times = np.arange(NOON - 2 * max(window for window, _ in slides), NOON, step, dtype=np.int64)
    await _write(url, view, times, None)
    keys = list(client.scan_iter("{bench:0}:tile:*", count=10_000))
    return Held(
        view=name,
        tiles=sum(map(client.hlen, keys)) / ENTITIES,
        bytes_per_entity=round(sum(client.memory_usage(key, samples=0) for key in keys) / ENTITIES),
    )


async def _ids(url: str, client: Any) -> int:
    """What one remembered event id (a UUID's 36 characters) takes, in one shard."""
    view = View(
        name="spend",
        stream="orders",
        keys=("customer",),
        time_field="at",
        lateness=HOUR,
        event_id="order",
        aggregates=(Aggregate(name="n", function=Function.COUNT, column="*", window=HOUR, slide=HOUR),),
    )
    client.flushall()
    await _write(url, view, np.full(IDS // ENTITIES, NOON, dtype=np.int64), "3f2504e0-4f89-41d3-9a0c-{:012d}")
    buckets = client.scan_iter("{bench:0}:ids:orders:*", count=10_000)
    return round(sum(client.memory_usage(key, samples=0) for key in buckets) / IDS)


async def _write(url: str, view: View, times: Any, ids: str | None) -> None:
    """One event of each entity at each of `times`."""
    store = ValkeyTileStore(url, "bench")
    writer = TileWriter(store, [view], "bench")
    customers = [f"customer-{number:06d}" for number in range(ENTITIES)]
    for number, at in enumerate(times.tolist()):
        first = number * ENTITIES
        offsets = np.arange(first, first + ENTITIES)
        moments = np.full(ENTITIES, at, dtype=np.int64)
        await writer.write(
            EventBatch(
                stream="orders",
                partition=0,
                start=first,
                end=first + ENTITIES - 1,
                offsets=offsets,
                event_time=moments,
                known_at=moments,
                ids=None if ids is None else [ids.format(offset) for offset in offsets.tolist()],
                columns={"customer": customers, "amount": [1.5] * ENTITIES},
            )
        )
    await store.close()
