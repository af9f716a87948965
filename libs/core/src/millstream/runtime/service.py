"""The frame of every service process: HTTP with probes and metrics, Kafka in and out, a clean start and a clean stop."""

from __future__ import annotations

import argparse
import asyncio
import errno
import gc
import logging
import random
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar

import uvicorn
from aiokafka.errors import KafkaConnectionError, KafkaError
from fastapi import FastAPI, Request, Response
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import ValidationError

from millstream.errors import BadSetup, MillstreamError, RetryLater
from millstream.runtime.connection import Connection
from millstream.runtime.crew import CrewSettings, Seat, lead, place_of
from millstream.runtime.delivery import AT_ONCE, PATIENT, Assigned, Gulp, Handler, Retry, Subscription
from millstream.runtime.health import Health
from millstream.runtime.http import answer, http_app
from millstream.runtime.kafka_clients import explained, faststream_security
from millstream.runtime.kafka_security import complaints
from millstream.runtime.logs import configure_logs
from millstream.runtime.metrics import RuntimeMetrics
from millstream.runtime.probes import Probes
from millstream.runtime.publisher import Publisher
from millstream.runtime.settings import ServiceSettings
from millstream.runtime.topic_bounds import TopicBounds
from millstream.runtime.tracing import configure_tracing
from millstream.runtime.whole_group import Share

log = logging.getLogger(__name__)

Work = Callable[[], Awaitable[None]]

S = TypeVar("S", bound=ServiceSettings)

STARTING, RUNNING = (50_000, 50, 50), (10_000, 10, 10)
"""When the garbage collector looks. A start makes a million objects that stay: looked at every 700 they cost a third of it.
Afterwards nearly all that a request makes goes by its count; what goes in circles may be some megabytes before it is found."""


class Service:
    """Parts of one process. `create_app` of each service makes one, adds its doorways, and returns `service.app`."""

    def __init__(self, name: str, settings: ServiceSettings, *, title: str, version: str = "0.1.0") -> None:
        self.name = name
        self.settings = settings
        self.kafka = settings.at(settings.kafka)
        """What a client of this process is made with."""
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.metrics = RuntimeMetrics(self.registry)
        self.health = Health(settings.stall_after)
        self.probes = Probes(self.health, self.registry, place_of(settings))
        self.publisher = Publisher(
            bootstrap=self.kafka,
            source=f"millstream/{name}/{settings.instance}",
            timeout=settings.publish_timeout,
            metrics=self.metrics,
        )
        self.health.waiting_for("kafka", f"Kafka at {settings.kafka} is not connected yet; check MILLSTREAM_KAFKA")
        self._subscriptions: list[Subscription] = []
        self._before: list[tuple[str, Work]] = []
        self._loops: list[tuple[str, Work]] = []
        self._after: list[Work] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._broker: KafkaBroker | None = None
        self.on_fatal: Callable[[], None] = lambda: None
        """Set by `serve`: ends the process."""
        self.owns_process = False
        """Set by `serve`: the garbage collector of the process is ours to set."""
        self.app = http_app(title=title, version=version, lifespan=self._lifespan)
        self._add_probes()

    def hears(
        self,
        topics: Sequence[str],
        *,
        group: str,
        handler: Handler,
        retry: Retry = PATIENT,
        assigned: Assigned | None = None,
        gulp: Gulp = AT_ONCE,
        share: Share | None = None,
    ) -> Subscription:
        """Deliver `topics` to `handler` as consumer group `group`, one batch of one partition at a time. With a `share` one
        member has the whole group, and `assigned` is told of no partitions as well: they are another's."""
        subscription = Subscription(
            topics=topics,
            group=group,
            handler=handler,
            publisher=self.publisher,
            metrics=self.metrics,
            health=self.health,
            stop_process=self.fail,
            retry=retry,
            assigned=assigned,
            gulp=gulp,
            share=share,
        )
        self._subscriptions.append(subscription)
        return subscription

    def before_hearing(self, what: str, work: Work) -> None:
        """Do `work` once before the first record, again and again while it raises RetryLater; un-ready until done."""
        self.health.waiting_for(what, f"{what} is not done yet")
        self._before.append((what, work))

    def keeps(self, what: str, work: Work) -> None:
        """Run `work` beside everything else until the service stops. If it ends with an error, the process ends."""
        self._loops.append((what, work))

    def at_stop(self, work: Work) -> None:
        """Do `work` after the last record, before Kafka is left."""
        self._after.append(work)

    def fail(self, error: BaseException) -> None:
        """End the process, loudly: an error that nobody expected must not be skipped."""
        if self.health.fatal is None:
            self.health.fatal = error
            # What a person has to mend reads best without our stack.
            log.critical("stopping: %s: %s", type(error).__name__, error, exc_info=_unexpected(error))
            self.on_fatal()

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        self._tasks = [asyncio.create_task(self._guard("start", self._start))]
        try:
            yield
        finally:
            await self._stop()

    async def _start(self) -> None:
        """Connect what there is to connect; whatever is away is waited for, and /readyz names it meanwhile."""
        await self._until_there("kafka", self._connect_publisher)
        for what, work in self._before:
            await self._until_there(what, work)
        # `before_hearing` work may still declare what is heard and kept.
        for what, work in self._loops:
            self._tasks.append(asyncio.create_task(self._guard(what, work)))
        if self._subscriptions:
            await self._until_there("kafka", self._connect_broker)
        # A million objects of Feast and its kin live as long as the process: a full collection that walks them stops
        # everything for 0.2 s, and finds nothing.
        if self.owns_process:
            gc.collect()
            gc.freeze()
            gc.set_threshold(*RUNNING)
        log.info("started", extra={"hears": sorted({t for s in self._subscriptions for t in s.topics})})

    async def _until_there(self, what: str, work: Work) -> None:
        attempt = 0
        while True:
            try:
                await work()
                self.health.met(what)
                return
            except (RetryLater, KafkaError, OSError) as error:
                self.health.waiting_for(what, f"{type(error).__name__}: {error}")
                log.warning("%s is not there yet: %s", what, error)
                await asyncio.sleep(min(5.0, 0.2 * 2.0 ** min(attempt, 10)) * random.uniform(0.5, 1.0))
                attempt += 1

    async def _connect_publisher(self) -> None:
        if not self.publisher.started:
            await self.publisher.start()

    async def _connect_broker(self) -> None:
        broker = KafkaBroker(
            [server.strip() for server in self.kafka.bootstrap.split(",")],
            security=faststream_security(self.kafka),
            client_id=self.settings.instance,
            consumer_only=True,
            allow_auto_create_topics=False,
            ack_policy=AckPolicy.MANUAL,
            graceful_timeout=self.settings.drain_timeout,
            apply_types=False,
            logger=logging.getLogger("faststream"),
            log_level=logging.DEBUG,
        )
        for subscription in self._subscriptions:
            subscription.attach(broker, self.settings, TopicBounds(self.kafka))
        try:
            await broker.start()
        except KafkaConnectionError as error:
            await broker.stop()
            raise await explained(self.kafka, error) from error
        except BaseException:
            await broker.stop()
            raise
        self._broker = broker

    async def _guard(self, what: str, work: Work) -> None:
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # nothing that runs beside may die unseen
            first = _first(error)
            log.critical("%s ended", what, exc_info=_unexpected(first))
            self.fail(first)

    async def _stop(self) -> None:
        """In this order: no new records, finish the batch in hand, last work, leave Kafka."""
        within = self.settings.drain_timeout
        await asyncio.gather(*(subscription.drain(within) for subscription in self._subscriptions))
        if self._broker is not None:
            try:
                await self._broker.stop()
            except (
                Exception
            ) as error:  # a consumer that had broken down says so once more; the other parts still want to stop
                log.error("while stopping: %s", error, exc_info=error)
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        for work in self._after:
            try:
                await work()
            except Exception as error:  # the other parts still want to stop
                log.error("while stopping: %s", error, exc_info=error)
        with suppress(KafkaError):
            await self.publisher.stop()
        log.info("stopped")

    def _add_probes(self) -> None:
        app = self.app

        stuck: dict[int | str, Any] = {503: {"description": "No; `reasons` say why"}}
        waiting: dict[int | str, Any] = {503: {"description": "Not yet; `missing` says what it waits for"}}

        @app.get("/livez", tags=["operations"], summary="Is it getting on?", responses=stuck)
        async def livez(request: Request) -> Response:
            reasons = await self.probes.not_alive(request.scope)
            return answer(503 if reasons else 200, {"alive": not reasons, "reasons": reasons})

        @app.get("/readyz", tags=["operations"], summary="May it be given work?", responses=waiting)
        async def readyz(request: Request) -> Response:
            missing = await self.probes.not_ready(request.scope)
            return answer(503 if missing else 200, {"ready": not missing, "missing": missing})

        @app.get("/metrics", tags=["operations"], summary="Prometheus metrics")
        async def metrics(request: Request) -> Response:
            return Response(await self.probes.metrics(request.scope), media_type=CONTENT_TYPE_LATEST)


class _Server(uvicorn.Server):
    """Stops as asked and returns. uvicorn itself raises the signal again, and the process ends as if it had been killed."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def serve(create: Callable[[], Service], settings: ServiceSettings, name: str = "millstream") -> int:
    """Run a service until it is told to stop. Returns the process' exit code. `name`: of one that leads workers, in its log.

    0: stopped as asked · 1: an unexpected error · 2: cannot start as configured (the message says what to change).
    """
    place = place_of(settings)
    if place is not None:
        seat = Seat(place)
        return _serve_on(seat.sockets(), create, settings, seat)
    try:
        with _bind(settings) as listener:
            if isinstance(settings, CrewSettings) and (workers := settings.crew()) > 1:
                configure_logs(name, settings.log_level)
                return lead(listener, settings, workers)
            return _serve_on([listener], create, settings)
    except MillstreamError as error:
        print(f"millstream: {error}", file=sys.stderr)
        return 2


def _serve_on(
    listeners: list[socket.socket], create: Callable[[], Service], settings: ServiceSettings, seat: Seat | None = None
) -> int:
    gc.set_threshold(*STARTING)
    try:
        service = create()
    except MillstreamError as error:
        print(f"millstream: {error}", file=sys.stderr)
        return 2
    service.owns_process = True
    configure_logs(service.name, settings.log_level, seat.number if seat is not None else None)
    configure_tracing(service.name, settings.instance, settings.otlp_endpoint)
    config = uvicorn.Config(
        service.app,
        log_config=None,
        # Kafka's client is all small reads and writes: half of their cost is the event loop's.
        loop="uvloop",
        http=Connection,
        # Nobody here asks who calls, or by which scheme: a look at each request's headers for nothing.
        proxy_headers=False,
        access_log=False,
        # Room for the batch in hand; Kubernetes' own limit is 30 s.
        timeout_graceful_shutdown=int(settings.drain_timeout),
    )
    server = _Server(config)

    def stop() -> None:
        server.should_exit = True

    service.on_fatal = stop
    if seat is not None:
        seat.when_alone(stop)
    host, port = listeners[0].getsockname()[:2]
    log.info("listening", extra={"address": f"http://{host}:{port}"})
    with suppress(KeyboardInterrupt):
        server.run(sockets=listeners)
    fatal = service.health.fatal
    return 0 if fatal is None else 1 if _unexpected(fatal) else 2


def _first(error: Exception) -> Exception:
    """What ended a group of tasks: before all others what a person has to mend."""
    while isinstance(error, ExceptionGroup):
        error = (error.subgroup(BadSetup) or error).exceptions[0]
    return error


def _unexpected(error: BaseException) -> BaseException | None:
    return None if isinstance(error, BadSetup) else error


def _bind(settings: ServiceSettings) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise MillstreamError(
                f"port {settings.port} on {settings.host} is taken; set MILLSTREAM_PORT to a free one (0 picks one)"
            ) from error
        raise MillstreamError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from error
    return listener


def main(name: str, description: str, create: Callable[[S], Service], kind: type[S]) -> int:
    """What `python -m millstream_<name>` does. Returns the exit code; see `serve`."""
    parser = argparse.ArgumentParser(prog=f"python -m millstream_{name}", description=description)
    parser.epilog = f"Settings come from the environment as MILLSTREAM_NAME; services/{name}/README.md lists them."
    parser.parse_args()
    try:
        settings = kind()
    except ValidationError as error:
        for said in complaints(error):
            print(f"millstream: {said}", file=sys.stderr)
        return 2
    return serve(lambda: create(settings), settings, name)
