"""Kafka doorway of features: each stream is heard twice, once for the tiles and once for the lake; predictions for skew."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.contracts.topics import PREDICTIONS, TILES_GROUP
from millstream.runtime.codecs import Codecs
from millstream.runtime.delivery import Gulp
from millstream.runtime.service import Service
from millstream_features.handlers import ApplyToTiles, CheckSkew, KeepInLake, LookBack, TidyLake

TILES = TILES_GROUP
LAKE = "features-lake"
SKEW = "features-skew"

CATCH_UP = Gulp(most_bytes=8 * 1024 * 1024)
"""Behind, the tiles take thousands of events in one step of the store: twice as fast as in many small ones. 8 MiB are about
20,000 events, of each partition that this process has."""

GATHER = Gulp(min_bytes=256 * 1024, wait_ms=200)
"""The lake appends thousands of rows at once: it need not see each small batch the moment it comes."""


def hear(
    service: Service,
    codecs: Codecs,
    *,
    tiles_streams: Sequence[str],
    lake_streams: Sequence[str],
    tiles: ApplyToTiles,
    lake: KeepInLake,
    tidy: TidyLake | None,
) -> None:
    """Two groups, since a slow lake must not delay fresh features. Tiles: one consumer per stream that any view reads,
    so that a busy stream delays no other. Lake: one consumer for all streams, it gathers anyway. Streams that are not
    given are another process' part. Without `tidy` the tables are left to whoever runs `millstream lake`."""
    heard = [
        service.hears([name], group=TILES, handler=codecs.preparing(tiles), assigned=tiles.assigned, gulp=CATCH_UP)
        for name in tiles_streams
    ]
    if heard:
        service.keeps("looking back", LookBack(tiles.tiles, heard).keep_looking)
    if lake_streams:
        service.hears(lake_streams, group=LAKE, handler=codecs.preparing(lake), assigned=lake.assigned, gulp=GATHER)
        service.keeps("appending to the lake", lake.keep_flushing)
        service.at_stop(lake.flush)
        if tidy is not None:
            service.keeps("tidying the lake", tidy.keep_tidying)


def hear_predictions(service: Service, check: CheckSkew) -> None:
    """A third group, for a sample: it may be behind, and nobody waits for it."""
    service.hears([PREDICTIONS.name], group=SKEW, handler=check, gulp=GATHER)
    service.keeps("checking skew", check.keep_checking)
