"""Requests and answers without the frame's own objects, which cost more than the scoring: for the doors that are hot."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any

from fastapi import Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millstream.errors import Refusal
from millstream.runtime import http
from millstream.runtime.room import Held

MOST_HELD = 256 * 1024 * 1024
"""Bytes of all bodies under way: sixteen of the largest, so that a flood is told "later" instead of filling the memory."""

Headers = dict[bytes, bytes]
Answered = bytes | Response
"""The body of a 200 in JSON, or an answer of any other kind."""


def raw_door(work: Callable[[Scope, Receive], Awaitable[Answered]]) -> ASGIApp:
    """A door that stands in front of the frame's routes (`FrontedApp.doors`). A bug is told as the frame tells it."""
    return partial(_serve, work)


async def framed(work: Awaitable[Answered]) -> Response:
    """The same answer for a route of the frame: an app without doors in front has it, and the documentation."""
    found = await work
    return found if isinstance(found, Response) else Response(found, media_type=http.JSON)


async def read_small(scope: Scope, headers: Headers, receive: Receive, limit: int, seconds: float, held: Held) -> bytes:
    """`http.read_body` for bodies most of which come in one message. Raises Refusal as it does."""
    said = headers.get(b"content-length")
    if said is None or not said.isdigit() or len(said) > 12 or int(said) > limit:
        return await http.read_body(Request(scope, receive), limit, seconds, held)
    coming = receive()
    try:
        pending = coming.send(None)  # type: ignore[attr-defined]  # a coroutine, of every server that there is
    except StopIteration as there:
        first: Message = there.value
    else:
        # Only now a clock: it costs more than all the rest of this, and nearly every body has come with its head.
        try:
            async with asyncio.timeout(seconds):
                first = await _Begun(coming, pending)
        except TimeoutError as error:
            raise Refusal(
                "body_timeout", f"the body did not arrive within {seconds:g} s; send all that content-length says"
            ) from error
    body: bytes = first.get("body", b"")
    if first["type"] == "http.request" and not first.get("more_body", False) and len(body) <= limit:
        held.add(len(body))
        return body
    waiting = [first]

    async def rest() -> Message:
        return waiting.pop() if waiting else await receive()

    return await http.read_body(Request(scope, rest), limit, seconds, held)


async def _serve(
    work: Callable[[Scope, Receive], Awaitable[Answered]], scope: Scope, receive: Receive, send: Send
) -> None:
    try:
        found = await work(scope, receive)
    except Exception:
        await http.internal()(scope, receive, send)
        raise  # the server's log has it with its traceback
    if isinstance(found, Response):
        await found(scope, receive, send)
        return
    size = b"%d" % len(found)
    headers = [(b"content-type", b"application/json"), (b"content-length", size)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": found})


class _Begun:
    """A coroutine that has taken its first step: awaits what that waits for, and goes on with it."""

    def __init__(self, coming: Any, pending: Any) -> None:
        self._coming = coming
        self._pending = pending

    def __await__(self) -> Generator[Any, Any, Any]:
        pending = self._pending
        while True:
            try:
                said = yield pending
            except BaseException as error:  # noqa: BLE001  (a cancellation, which is for the coroutine)
                step = partial(self._coming.throw, error)
            else:
                step = partial(self._coming.send, said)
            try:
                pending = step()
            except StopIteration as done:
                return done.value
