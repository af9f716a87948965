"""Records of one partition as the workers of tiles and lake take them: what several stories of this library tell alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from millstream_tiles import EventBatch
from millstream_tiles.lake import LakeBatch
from millstream_tiles.lake_schema import events_table
from millstream_tiles.recount import Event


def told(stream: str, events: Sequence[Event], *, id: str) -> EventBatch:
    """`events` for the tiles; column `id` of them is the event id."""
    return EventBatch(
        stream=stream,
        partition=events[0].partition,
        start=events[0].offset,
        end=events[-1].offset,
        offsets=np.array([e.offset for e in events]),
        event_time=np.array([e.event_time for e in events]),
        known_at=np.array([e.known_at for e in events]),
        ids=[e.columns[id] for e in events],
        columns={name: [e.columns[name] for e in events] for name in events[0].columns if name != id},
    )


def kept(schema: pa.Schema, events: Sequence[Event], *, id: str) -> LakeBatch:
    """The same for the lake."""
    rows = events_table(
        schema,
        partition=events[0].partition,
        offsets=[e.offset for e in events],
        event_times=[e.event_time for e in events],
        known_at=[e.known_at for e in events],
        ids=[e.columns[id] for e in events],
        events=[e.columns for e in events],
    )
    return LakeBatch(partition=events[0].partition, end=events[-1].offset, rows=rows)
