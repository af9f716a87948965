"""Front door of ingest: picks the adapters and wires the doorways. Importing does nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from fastapi import Security
from fastapi.security import APIKeyHeader, HTTPBearer

from millstream.contracts import times
from millstream.errors import BadSetup
from millstream.project import Stream, load_project
from millstream.project.loop import Loop
from millstream.project.versions import Versions, versions_of
from millstream.runtime.codecs import codecs_for
from millstream.runtime.service import Service
from millstream_ingest.adapters.kafka_backlog import KafkaBacklog
from millstream_ingest.adapters.kafka_dead_letters import KafkaDeadLetters
from millstream_ingest.adapters.kafka_log import KafkaLog
from millstream_ingest.api import Doorway
from millstream_ingest.api.dead_letters import dead_letters
from millstream_ingest.api.stream_pages import add_pages
from millstream_ingest.api.streams import known_streams
from millstream_ingest.domain.keyring import Keyring
from millstream_ingest.handlers import LagWatch, Porter, Quotas
from millstream_ingest.handlers.census import Census
from millstream_ingest.metrics import IngestMetrics
from millstream_ingest.ports import EventLog, SharedReplies, Tokens
from millstream_ingest.settings import JWT, KEYS, IngestSettings
from millstream_ingest.subscribers import hear_keys

logger = logging.getLogger(__name__)


def create_app(
    settings: IngestSettings,
    *,
    streams: Mapping[str, Stream] | None = None,
    loops: Mapping[str, Loop] | None = None,
    log: EventLog | None = None,
    keyring: Keyring | None = None,
    clock: Callable[[], int] = times.now,
) -> Service:
    """One ingest process. Raises BadProject, with every mistake, when the project cannot be read, and BadSetup."""
    ways = settings.ways()
    if streams is None:
        project = load_project(settings.project)
        streams, loops = project.streams, project.loops
        versions = versions_of(project.path, streams)
    else:
        versions = {name: Versions(stream=stream, kept={}) for name, stream in streams.items()}
    service = Service("ingest", settings, title="Millstream ingest")
    metrics = IngestMetrics(service.registry)
    porter = _porter(service, settings, metrics, ways, keyring, list(streams), clock)
    codecs = codecs_for(service, streams, settings)
    # Beside the doors: streams in JSON take events whatever becomes of the registry.
    service.keeps("registering schemas", codecs.register)
    doorway = Doorway(
        streams=streams,
        loops=loops or {},
        codecs=codecs,
        log=log or KafkaLog(service.publisher),
        shared=_shared(service, settings, metrics),
        porter=porter,
        settings=settings,
        metrics=metrics,
        clock=clock,
    )
    shown = _shown(ways)
    service.app.include_router(known_streams(versions), dependencies=shown)
    service.app.include_router(doorway.router, dependencies=shown)
    service.app.include_router(doorway.labels, dependencies=shown)
    service.app.include_router(dead_letters(Census(KafkaDeadLetters(service.kafka, streams), clock), porter))
    service.app.doors.update(doorway.doors)
    add_pages(service.app, streams)
    return service


def _shown(ways: frozenset[str]) -> list[Any]:
    """For the documentation and its Authorize button alone; the porter does the work."""
    key = APIKeyHeader(name="X-API-Key", auto_error=False, description="As `millstream keys create` showed it")
    token = HTTPBearer(auto_error=False, description="A token, or an API key")
    return [Security(scheme) for scheme in ([key] if KEYS in ways else []) + ([token] if ways else [])]


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


def _porter(
    service: Service,
    settings: IngestSettings,
    metrics: IngestMetrics,
    ways: frozenset[str],
    keyring: Keyring | None,
    streams: Sequence[str],
    clock: Callable[[], int],
) -> Porter:
    keys_read = asyncio.Event()
    if KEYS not in ways:
        keyring = None
    elif keyring is not None:
        keys_read.set()
    else:
        keyring = Keyring()
        keys_read = hear_keys(service, keyring)
    if not ways and not settings.on_loopback():
        service.keeps("saying that anybody may write", partial(_warn, settings.host))
    shared = None
    if settings.valkey is not None:
        from millstream_ingest.adapters.valkey_quotas import ValkeyQuotas

        shared = ValkeyQuotas(settings.valkey, metrics=metrics)
        service.at_stop(shared.close)
    quotas = Quotas(
        events=settings.quota_events,
        bytes=settings.quota_bytes,
        burst=settings.quota_burst,
        shared=shared,
        clock=lambda: time.monotonic_ns() // 1000,
    )
    if shared is not None:
        service.keeps("sharing quotas", quotas.run)
    return Porter(
        keys=keyring,
        keys_read=keys_read,
        tokens=_tokens(service, settings, metrics) if JWT in ways else None,
        quotas=quotas,
        lag=_lag(service, settings, metrics, streams),
        clock=clock,
    )


def _tokens(service: Service, settings: IngestSettings, metrics: IngestMetrics) -> Tokens:
    try:
        from millstream_ingest.adapters.jwks import Jwks
        from millstream_ingest.adapters.jwt_tokens import JwtTokens
    except ImportError as error:
        raise BadSetup(
            f"MILLSTREAM_AUTH has jwt; install what reads it: pip install 'millstream-ingest[jwt]' ({error})"
        ) from error

    if settings.jwt_jwks is None or settings.jwt_issuer is None or settings.jwt_audience is None:
        raise AssertionError("ways() has looked")
    jwks = Jwks(settings.jwt_jwks, settings.algorithms(), metrics)
    condition = "the issuer's keys"
    service.health.waiting_for(condition, f"{settings.jwt_jwks} is not read yet; check MILLSTREAM_JWT_JWKS")

    async def met() -> None:
        await jwks.read.wait()
        service.health.met(condition)

    service.keeps("reading the issuer's keys", jwks.run)
    service.keeps("waiting for the issuer's keys", met)
    service.at_stop(jwks.close)
    return JwtTokens(jwks, issuer=settings.jwt_issuer, audience=settings.jwt_audience, algorithms=settings.algorithms())


def _lag(service: Service, settings: IngestSettings, metrics: IngestMetrics, streams: Sequence[str]) -> LagWatch:
    if settings.max_downstream_lag is None:
        return LagWatch(None, None, metrics)
    backlog = KafkaBacklog(service.kafka, streams)
    watch = LagWatch(backlog, settings.max_downstream_lag, metrics)
    service.keeps("watching features", watch.run)
    service.at_stop(backlog.close)
    return watch


async def _warn(host: str) -> None:
    logger.warning(
        "MILLSTREAM_AUTH is off and MILLSTREAM_HOST is %s: anybody who reaches it may write every stream", host
    )
