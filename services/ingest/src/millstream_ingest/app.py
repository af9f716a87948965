"""Front door of ingest: picks the adapters and wires the doorways. Importing does nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from millstream.contracts import times
from millstream.project import Stream, load_project
from millstream.project.loop import Loop
from millstream.project.versions import Versions, versions_of
from millstream.runtime.codecs import codecs_for
from millstream.runtime.service import Service
from millstream_ingest.adapters.kafka_dead_letters import KafkaDeadLetters
from millstream_ingest.adapters.kafka_log import KafkaLog
from millstream_ingest.api import Doorway
from millstream_ingest.api.dead_letters import dead_letters
from millstream_ingest.api.stream_pages import add_pages
from millstream_ingest.api.streams import known_streams
from millstream_ingest.handlers.census import Census
from millstream_ingest.metrics import IngestMetrics
from millstream_ingest.ports import EventLog, SharedReplies
from millstream_ingest.settings import IngestSettings


def create_app(
    settings: IngestSettings,
    *,
    streams: Mapping[str, Stream] | None = None,
    loops: Mapping[str, Loop] | None = None,
    log: EventLog | None = None,
    clock: Callable[[], int] = times.now,
) -> Service:
    """One ingest process. Raises BadProject, with every mistake, when the project cannot be read."""
    if streams is None:
        project = load_project(settings.project)
        streams, loops = project.streams, project.loops
        versions = versions_of(project.path, streams)
    else:
        versions = {name: Versions(stream=stream, kept={}) for name, stream in streams.items()}
    service = Service("ingest", settings, title="Millstream ingest")
    metrics = IngestMetrics(service.registry)
    codecs = codecs_for(service, streams, settings)
    # Beside the doors: streams in JSON take events whatever becomes of the registry.
    service.keeps("registering schemas", codecs.register)
    doorway = Doorway(
        streams=streams,
        loops=loops or {},
        codecs=codecs,
        log=log or KafkaLog(service.publisher),
        shared=_shared(service, settings, metrics),
        settings=settings,
        metrics=metrics,
        clock=clock,
    )
    service.app.include_router(known_streams(versions))
    service.app.include_router(doorway.router)
    service.app.include_router(doorway.labels)
    service.app.include_router(dead_letters(Census(KafkaDeadLetters(settings.kafka, streams), clock)))
    service.app.doors.update(doorway.doors)
    add_pages(service.app, streams)
    return service


def _shared(service: Service, settings: IngestSettings, metrics: IngestMetrics) -> SharedReplies | None:
    if settings.valkey is None:
        return None
    # Imported only when asked for: it is a third of ingest's start.
    from millstream_ingest.adapters.valkey_replies import ValkeyReplies

    replies = ValkeyReplies(
        settings.valkey, window=settings.dedupe_window, claim_for=2 * settings.publish_timeout, metrics=metrics
    )
    service.at_stop(replies.close)
    return replies
