"""Front door of features: picks the adapters and wires the doorways. Importing does nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from millstream.codecs.codec import JSON
from millstream.contracts.topics import LABELS, PREDICTIONS
from millstream.errors import BadSetup
from millstream.project import Project, Stream, load_project
from millstream.project.told import TOLD
from millstream.runtime.codecs import codecs_for
from millstream.runtime.health import Health
from millstream.runtime.kafka_security import Kafka
from millstream.runtime.service import Service
from millstream.runtime.topic_admin import topic_exists
from millstream.runtime.topic_bounds import TopicBounds
from millstream.runtime.waiting_records import WaitingRecords
from millstream_features.api import Reader, Rows, add_routes
from millstream_features.handlers import ApplyToTiles, CheckSkew, KeepInLake, TidyLake
from millstream_features.metrics import FeatureMetrics
from millstream_features.ports import Door, History, Recompute, Tiles, ViewTimes
from millstream_features.settings import Settings
from millstream_features.subscribers import LAKE, TILES, hear, hear_predictions
from millstream_tiles.event_names import EventNames

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from millstream_tiles.definition import View


@dataclass(frozen=True, kw_only=True)
class Stores:
    """What is opened before the first record."""

    reader: Reader
    rows: Rows
    tiles: Tiles
    history: History
    times: ViewTimes
    views: Mapping[str, Sequence[View]]
    """Stream → the views that read it; streams that none reads are not there."""
    recompute: Recompute | None = None
    """None: skew is not checked."""
    grpc: Door | None = None
    """None: gRPC is not spoken."""


def create_app(settings: Settings, stores: Stores | None = None) -> Service:
    """The features service. `stores` replaces the real ones in unit tests.

    Raises BadProject: the message names every mistake with file and line.
    """
    project = load_project(settings.project)
    service = Service("features", settings, title="Millstream features")
    metrics = FeatureMetrics(service.registry)
    codecs = codecs_for(service, project.streams, settings)
    opened: list[Stores] = [] if stores is None else [stores]
    add_routes(
        service.app,
        lambda: opened[0].reader if opened else None,
        lambda: opened[0].rows if opened else None,
        lambda: opened[0].times if opened else None,
    )

    told: dict[str, Stream] = {}
    """What the lake keeps beside the project's streams."""

    async def find_labels() -> None:
        if await topic_exists(service.kafka, LABELS.name):
            told[TOLD.name] = TOLD
        else:
            log.warning(
                "no model learns from labels by prediction id: there is no topic %s; create it (millstream topics) and restart",
                LABELS.name,
            )

    async def open_stores() -> None:
        # Reading the definitions imports Feast, which takes seconds: off the event loop, so that probes answer meanwhile.
        if not opened:
            opened.append(await asyncio.to_thread(_open, settings, project, metrics, service.health, service.kafka))
        found = opened[0]
        service.at_stop(found.tiles.close)
        service.at_stop(found.times.close)
        names = {name: _names(stream, found.views.get(name, ())) for name, stream in project.streams.items()}
        tiles = ApplyToTiles(
            streams=project.streams,
            names=names,
            views={stream: [view.name for view in views] for stream, views in found.views.items()},
            tiles=found.tiles,
            publisher=service.publisher,
            metrics=metrics,
            codecs=codecs,
        )
        kept = {**project.streams, **told}
        lake = KeepInLake(
            streams=kept,
            names={**names, **{name: _names(stream, ()) for name, stream in told.items()}},
            history=found.history,
            metrics=metrics,
            codecs={**codecs, **dict.fromkeys(told, JSON)},
            rows=settings.lake_rows,
            age=settings.lake_age,
            quiet=settings.lake_quiet,
            buffer_rows=settings.lake_buffer_rows,
            clock=time.monotonic,
        )
        tidy = TidyLake(
            history=found.history, metrics=metrics, streams=lake.leads, every=settings.lake_tidy_every
        )  # fmt: skip
        hear(
            service,
            codecs,
            tiles_streams=sorted(found.views) if settings.part in ("all", "tiles") else [],
            lake_streams=list(kept) if settings.part in ("all", "lake") else [],
            tiles=tiles,
            lake=lake,
            tidy=tidy if settings.lake_tidy_every else None,
        )
        if found.recompute is not None and settings.part in ("all", "skew"):
            await _watch_skew(service, settings, project, found.recompute, metrics)

    async def open_grpc() -> None:
        door, port = opened[0].grpc, settings.grpc_port
        if door is not None and port is not None:
            service.at_stop(door.close)
            await door.open(settings.host, port)

    if project.loops and settings.part in ("all", "lake"):
        service.before_hearing("labels by prediction id", find_labels)
    service.before_hearing("feature definitions", open_stores)
    service.before_hearing("grpc", open_grpc)
    if settings.part in ("all", "tiles"):  # the others have nothing to do with Valkey, and do not wait for it
        service.before_hearing("valkey", lambda: opened[0].tiles.check())
    return service


def _names(stream: Stream, views: Sequence[View]) -> EventNames:
    return EventNames.of(views, stream.id, stream.types_of)


async def _watch_skew(
    service: Service, settings: Settings, project: Project, recompute: Recompute, metrics: FeatureMetrics
) -> None:
    """Check a sample of the predictions of every loop that asks for it. A mill without predictions goes without."""
    watched = {name: loop.drift.skew for name, loop in project.loops.items() if loop.drift.skew.sample}
    if not watched:
        log.info("no loop asks for a skew check (drift.skew.sample)")
        return
    if not await topic_exists(service.kafka, PREDICTIONS.name):
        log.warning(
            "skew is not checked: there is no topic %s; create it (millstream topics) and restart", PREDICTIONS.name
        )
        return
    check = CheckSkew(
        samples={name: skew.sample for name, skew in watched.items()},
        bounds={name: skew.bound for name, skew in watched.items()},
        every=settings.skew_every,
        recompute=recompute,
        speaker=service.publisher,
        metrics=metrics,
    )
    hear_predictions(service, check)
    service.at_stop(recompute.close)


def _open(settings: Settings, project: Project, metrics: FeatureMetrics, health: Health, kafka: Kafka) -> Stores:
    from millstream_features.adapters.delta_history import DeltaHistory
    from millstream_features.adapters.feast_reader import FeastReader
    from millstream_features.adapters.lake_recompute import LakeRecompute
    from millstream_features.adapters.valkey_tiles import ValkeyTiles
    from millstream_features.adapters.view_times import FencedViewTimes
    from millstream_tiles.errors import LakeRefused
    from millstream_tiles.lake import Lake
    from millstream_tiles.reader import WindowReader

    try:
        lake = Lake(settings.lake)
    except LakeRefused as error:
        raise BadSetup(f"MILLSTREAM_LAKE: {error}") from error
    reader = FeastReader(
        repo=settings.project / "features",
        registry=settings.data / "registry.db",
        valkey=settings.valkey,
        namespace=settings.namespace,
        shards=settings.shards,
        lake=settings.lake,
    )
    grpc: Door | None = None
    if settings.grpc_port is not None:
        from millstream_features.adapters.grpc_door import GrpcDoor

        grpc = GrpcDoor(reader, health)
    # Now that the definitions are read: a view of a field that no stream has would be null for ever.
    load_project(settings.project, reader.catalogue)
    store = reader.tile_store()
    streams = project.streams
    return Stores(
        reader=reader,
        rows=reader.rows,
        tiles=ValkeyTiles(store=store, streams=streams, views=reader.views, group=TILES, metrics=metrics),
        history=DeltaHistory(
            lake=lake,
            streams={**streams, TOLD.name: TOLD},
            group=LAKE,
            tidy_bytes=settings.lake_tidy_mb * 1024 * 1024,
            keep=timedelta(days=settings.lake_keep_days) if settings.lake_keep_days else None,
        ),
        times=FencedViewTimes(
            reader=WindowReader(
                settings.valkey,
                settings.namespace,
                {view.name: view for view in reader.views},
                shards=settings.shards,
            ),
            waiting=WaitingRecords(kafka),
            views=reader.views,
            group=TILES,
        ),
        views={s: [v for v in reader.views if v.stream == s] for s in {v.stream for v in reader.views}},
        recompute=LakeRecompute(
            lake=lake,
            group=LAKE,
            views={name: reader.service_views(loop.predict.features) for name, loop in project.loops.items()},
            tolerances={name: loop.drift.skew.tolerance for name, loop in project.loops.items()},
            bounds=TopicBounds(kafka),
            patience=settings.skew_patience,
        ),
        grpc=grpc,
    )
