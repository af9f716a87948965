"""Rebuilding: how many events of the lake a second become tiles of a new generation."""

from __future__ import annotations

import asyncio
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from workload import ENTITIES

from millstream.testing.valkey import EmbeddedValkey
from millstream_tiles import EventBatch, ValkeyTileStore
from millstream_tiles.definition import Aggregate, Function, View
from millstream_tiles.generations import Generations
from millstream_tiles.lake import Lake, LakeBatch
from millstream_tiles.lake_schema import table_schema
from millstream_tiles.live_writer import LiveWriter
from millstream_tiles.rebuild import Rebuild

MINUTE, HOUR = 60_000_000, 3_600_000_000
NOON = 1_370_088_000_000_000
APPEND = 100_000
"""Events of one commit of the lake: a busy stream's, or what `millstream lake compact` leaves."""
SCHEMA = {"properties": {name: {"type": "string"} for name in [*ENTITIES, "remark"]} | {"delay": {"type": "number"}}}


@dataclass(frozen=True, kw_only=True)
class Filled:
    """One rebuild of four views of one slide each (16, 3, 100 and 4,000 entities), all from the lake."""

    events: int
    events_per_second: float
    cpu_us: dict[str, float]
    """Microseconds of CPU an event, by process."""
    peak_mb: int
    """Of the rebuilding process, the making of the lake included."""


def views() -> list[View]:
    kinds = ((Function.MEAN, "delay"), (Function.COUNT, "*"))
    return [
        View(
            name=f"by_{key}",
            stream="departures",
            keys=(key,),
            time_field="at",
            lateness=HOUR,
            event_id=None,
            aggregates=tuple(
                Aggregate(name=f"{f}_1h", function=f, column=c, window=HOUR, slide=10 * MINUTE) for f, c in kinds
            ),
        )
        for key in ENTITIES
    ]


def fill(lake: Lake, events: int) -> None:
    """Ten minutes of departures in one partition, 300 bytes each as JSON would be."""
    schema, rng = table_schema(SCHEMA), np.random.default_rng(1)
    for first in range(0, events, APPEND):
        n = min(APPEND, events - first)
        at = pa.array(NOON + (first + np.arange(n)) * (10 * MINUTE // events)).cast(pa.timestamp("us", "UTC"))
        columns = {
            "_event_time": at,
            "_known_at": at,
            "_partition": pa.array(np.zeros(n, np.int32)),
            "_offset": pa.array(np.arange(first, first + n)),
            "_id": pa.nulls(n, pa.string()),
            "_date": at.cast(pa.date32()),
            "delay": pa.array(rng.normal(10, 30, n).round(1)),
            "remark": pa.array(["x" * 110] * n),
        }
        columns |= {key: pa.array([f"{key}{i}" for i in rng.integers(0, k, n)]) for key, k in ENTITIES.items()}
        rows = pa.Table.from_arrays([columns[field.name] for field in schema], schema=schema)
        lake.append("departures", [LakeBatch(partition=0, end=first + n - 1, rows=rows)], group="lake")


async def rebuild(events: int) -> Filled:
    """One rebuilding process and one Valkey on what the machine has."""
    with TemporaryDirectory(prefix="millstream-bench-") as name:
        valkey = EmbeddedValkey(Path(name) / "valkey", None, log_dir=Path(name) / "logs")
        lake = Lake(f"{name}/lake")
        fill(lake, events)
        with valkey.running():
            store = ValkeyTileStore(valkey.url, "bench")
            generations = Generations(store, "tiles")
            live = LiveWriter(generations, views())
            await live.write(_last(events), accept_gap=True)
            before = _spent(valkey)
            done = await Rebuild(generations=generations, views=views(), lake=lake, lake_group="lake").run()
            after = _spent(valkey)
            await store.close()
    return Filled(
        events=done.events,
        events_per_second=round(done.events / done.seconds),
        cpu_us={name: round((after[name] - before[name]) / done.events * 1e6, 2) for name in after},
        peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    )


def _spent(valkey: EmbeddedValkey) -> dict[str, float]:
    usage = valkey.processes[0].usage()
    return {"rebuild": time.process_time(), "valkey": usage.cpu_seconds if usage is not None else 0.0}


def _last(events: int) -> EventBatch:
    """What the live workers have applied last: the stream stands there."""
    at = np.array([NOON + 10 * MINUTE])
    columns = {key: [f"{key}0"] for key in ENTITIES} | {"delay": [1.0]}
    return EventBatch(
        stream="departures", partition=0, start=events - 1, end=events - 1, offsets=np.array([events - 1]),
        event_time=at, known_at=at, ids=None, columns=columns,
    )  # fmt: skip


if __name__ == "__main__":
    import sys

    print(asyncio.run(rebuild(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000)))
