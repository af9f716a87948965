"""What the gRPC of every service has in common: one port with a service and its health, and a stop that lets calls end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from millstream.errors import BadSetup
from millstream.runtime.grpc_places import Places
from millstream.runtime.health import Health

log = logging.getLogger(__name__)

GRACE = 5.0
"""Seconds that calls under way have to end when the service stops: the longest wait for the online store, twice."""

LOOK = 0.25
"""Seconds between two looks at whether the replica is ready: four times as often as a kubelet looks at its fastest."""

MOST_OPEN = 1024
"""Calls of any kind, those among them whose answer waits for a client that does not read it: nothing but the end of its
connection frees those. One more is told RESOURCE_EXHAUSTED by grpc itself."""

AGE_MS, LEAVE_MS = 60_000, 30_000
"""A connection's, and how long its last calls may take from then on: so long at most does an answer lie that nobody reads, as
over HTTP. A client that does read connects again, and loses no call."""


class GrpcServer:
    """One of our services and the standard health service, without TLS, as the HTTP doorways are."""

    def __init__(
        self,
        service: str,
        register: Callable[[Any], None],
        *,
        largest: int,
        most_at_once: int,
        replica: Health | None = None,
    ) -> None:
        """The health service says NOT_SERVING while `replica` is not ready; None: it is ready once it listens.

        `register` adds `service` (its full name) to a server. `largest`: bytes of a message. `most_at_once`: calls that are
        answered or whose message arrives; one more is told RESOURCE_EXHAUSTED at once, and asks another replica."""
        self._service = service
        self._register = register
        self._largest = largest
        self._most_at_once = most_at_once
        self._health = health.HealthServicer()
        self._ready_when = replica
        self._looking: asyncio.Task[None] | None = None
        self._server: Any = None

    async def open(self, host: str, port: int, *, shared: bool = False) -> int:
        """Listen; the port (0 picks one). `shared`: with the other workers of this service. Raises BadSetup where that is not
        possible."""
        options = [
            ("grpc.max_receive_message_length", self._largest),
            ("grpc.so_reuseport", int(shared)),  # or two services would share the port without a word
            # Who is gone loses the connection.
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.max_connection_age_ms", AGE_MS),
            ("grpc.max_connection_age_grace_ms", LEAVE_MS),
        ]
        places = Places(self._most_at_once)
        server = grpc.aio.server(options=options, interceptors=[places], maximum_concurrent_rpcs=MOST_OPEN)
        self._register(server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        try:
            bound: int = server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except RuntimeError as error:
            what = f"cannot listen on {host}:{port} for gRPC"
            raise BadSetup(f"{what}; set MILLSTREAM_GRPC_PORT to a free port (unset: no gRPC)") from error
        await server.start()
        self._server = server
        said = await self._say()
        if self._ready_when is not None:
            self._looking = asyncio.create_task(self._look(said))
        log.info("listening", extra={"address": f"grpc://{host}:{bound}"})
        return bound

    async def close(self) -> None:
        """No new calls; those under way may end. Safe to call twice."""
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking
            self._looking = None
        if self._server is not None:
            await self._health.enter_graceful_shutdown()
            await self._server.stop(GRACE)

    def _serves(self) -> bool:
        return self._ready_when is None or not self._ready_when.not_ready()

    async def _look(self, said: bool) -> None:
        while True:
            await asyncio.sleep(LOOK)
            if self._serves() != said:
                said = await self._say()

    async def _say(self) -> bool:
        serves = self._serves()
        status = health_pb2.HealthCheckResponse.SERVING if serves else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", self._service):
            await self._health.set(name, status)
        return serves
