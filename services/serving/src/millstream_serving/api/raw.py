"""Requests and answers without the frame's own objects, which cost more than the scoring: for the doors that are hot."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from fastapi import Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millstream.runtime import http

Headers = dict[bytes, bytes]
Hold = Callable[[int], None]
Answered = bytes | Response
"""The body of a 200 in JSON, or an answer of any other kind."""


def raw_door(work: Callable[[Scope, Receive], Awaitable[Answered]]) -> ASGIApp:
    """A door that stands in front of the frame's routes (`FrontedApp.doors`). A bug is told as the frame tells it."""
    return partial(_serve, work)


async def framed(work: Awaitable[Answered]) -> Response:
    """The same answer for a route of the frame: an app without doors in front has it, and the documentation."""
    found = await work
    return found if isinstance(found, Response) else Response(found, media_type=http.JSON)


async def read_small(
    scope: Scope, headers: Headers, receive: Receive, limit: int, seconds: float, hold: Hold | None = None
) -> bytes:
    """`http.read_body` for bodies most of which come in one message. Raises Refusal as it does."""
    said = headers.get(b"content-length")
    if said is None or not said.isdigit() or len(said) > 12 or int(said) > limit:
        return await http.read_body(Request(scope, receive), limit, seconds, hold or _free)
    try:
        async with asyncio.timeout(seconds):
            first = await receive()
    except TimeoutError:
        first = {"type": "http.request", "body": b"", "more_body": True}
        seconds = 0.0  # `read_body` says it, in its words
    body: bytes = first.get("body", b"")
    if first["type"] == "http.request" and not first.get("more_body", False) and len(body) <= limit:
        if hold is not None:
            hold(len(body))
        return body
    waiting = [first]

    async def rest() -> Message:
        return waiting.pop() if waiting else await receive()

    return await http.read_body(Request(scope, rest), limit, seconds, hold or _free)


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


def _free(size: int) -> None:
    """Nothing is counted."""
