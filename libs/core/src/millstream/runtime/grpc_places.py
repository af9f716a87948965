"""Places at a gRPC door: a call takes one with its headers; while all are taken, who is silent longest gives way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import grpc

PATIENCE = 30.0
"""Seconds for a whole message of the largest size over a bad line, as over HTTP."""

LOOK = 1.0
"""Seconds between two looks at who is late: a timer for each call would cost more than all else here."""

WATCHERS = 256
"""Calls that are answered on and on, as one who watches the health of the service has it: each client has one at most, and
takes no place of those who ask."""

FULL = grpc.StatusCode.RESOURCE_EXHAUSTED, "all places here are taken; ask again, or another replica"
LATE = grpc.StatusCode.DEADLINE_EXCEEDED, "the request did not arrive in time; send it at once"
NOTHING = grpc.StatusCode.INVALID_ARGUMENT, "the call ended without a request; send one message"

Call = Callable[[Any, Any], Awaitable[Any]]


class Places(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Stands before every method of a server. What has arrived of the messages of all is bounded by the places, and so is
    what is being answered; a client whose message follows its headers is never the one who has been silent longest.

    grpc's own `maximum_concurrent_rpcs` counts from the headers on and has no end to its patience.
    """

    def __init__(self, most: int) -> None:
        self._asking = _Room(most)
        self._watching = _Room(WATCHERS)
        self._behind: dict[str, Any] = {}
        """The handlers of methods that were asked; of those alone that there are."""

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        known = self._behind.get(details.method)
        if known is not None:
            return known
        found = await continuation(details)
        if found is None or found.request_streaming:
            return found
        # To the client there is no difference; here the message is read in the handler instead of before it.
        said = {"request_deserializer": found.request_deserializer, "response_serializer": found.response_serializer}
        if found.response_streaming:
            handler = grpc.stream_stream_rpc_method_handler(self._watching.behind(found.unary_stream), **said)
        else:
            handler = grpc.stream_unary_rpc_method_handler(self._asking.behind(found.unary_unary), **said)
        self._behind[details.method] = handler
        return handler


class _Room:
    """So many calls at a time, of whom those still silent may be sent away."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._silent: dict[Any, float] = {}
        """Calls whose message is not there → when their headers were; the longest first."""
        self._answered = 0
        """Calls whose message is there."""
        self._looking = False
        self._leaving: set[asyncio.Task[None]] = set()

    def behind(self, call: Call) -> Call:
        async def heard(messages: Any, context: Any) -> Any:
            request = await self._message(context)
            self._answered += 1
            try:
                return await call(request, context)
            finally:
                self._answered -= 1

        return heard

    async def _message(self, context: Any) -> Any:
        if len(self._silent) + self._answered >= self._most:
            if not self._silent:
                await context.abort(*FULL)
            self._send_away(next(iter(self._silent)), *FULL)
        loop = asyncio.get_running_loop()
        self._silent[context] = loop.time()
        if not self._looking:
            self._looking = True
            loop.call_later(LOOK, self._look, loop)
        try:
            message = await context.read()
        finally:
            self._silent.pop(context, None)
        if message is grpc.aio.EOF:
            await context.abort(*NOTHING)
        return message

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        since = loop.time() - PATIENCE
        for context in [one for one, at in self._silent.items() if at <= since]:
            self._send_away(context, *LATE)
        self._looking = bool(self._silent)
        if self._looking:
            loop.call_later(LOOK, self._look, loop)

    def _send_away(self, context: Any, code: grpc.StatusCode, why: str) -> None:
        """Its reading ends with the call: cancelled instead, it would leave to grpc what had arrived."""
        del self._silent[context]

        async def told() -> None:
            with suppress(grpc.aio.BaseError):  # that it is aborted, or was gone before
                await context.abort(code, why)

        task = asyncio.create_task(told())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
