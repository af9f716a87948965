"""Lets in as many questions at once as are answered soon, for as long as they may take; whoever is beyond hears so at once."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millstream.runtime import http
from millstream_serving.errors import Overloaded
from millstream_serving.metrics import ServingMetrics

AT_ONCE = 256
"""Questions under way before the next is told 503. At 4,000 answers a second the last of them waits 64 ms; a queue any longer
would make all who are answered wait, and answer no more of them. No client with a few connections ever meets it."""
LONGEST = 60_000
"""Milliseconds that a client may ask to wait: each holds a place."""
LOOK = 0.02
"""Seconds between two looks at who is late. A timer for each request would cost more than all else here: 4 µs of 6."""
HEADER = b"x-request-timeout-ms"
PARAMETER: dict[str, Any] = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "schema": {"type": "integer", "minimum": 1, "maximum": LONGEST},
    "description": "How long the answer may take once the body is there; the service has a deadline of its own",
}
"""For the documentation of every door behind the gate, as what it answers: 504."""
LATE = "No answer within the deadline; the question may be on record all the same"


class _Asked:
    """One request inside."""

    __slots__ = ("answering", "late", "task", "until")

    def __init__(self, until: float, task: asyncio.Task[object]) -> None:
        self.until = until
        self.task = task
        self.answering = False
        self.late = False


class Gate:
    """Stands before every door that is asked with a body. A place is taken once the body is there: who sends slowly, or
    nothing at all, holds none. From there on the deadline runs, over the wait for company, the online store and the model.
    """

    def __init__(self, metrics: ServingMetrics, *, patience: float, most: int = AT_ONCE) -> None:
        """`patience`: seconds for a request that names no deadline of its own."""
        self._metrics = metrics
        self._patience = patience
        self._most = most
        self._inside: set[_Asked] = set()
        self._looking = False

    async def __call__(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        said = next((value for name, value in scope["headers"] if name == HEADER), None)
        patience = self._patience if said is None else _seconds(said)
        if patience is None:
            text = (said or b"").decode("latin-1")
            what = f"X-Request-Timeout-Ms is {text!r:.40}; send whole milliseconds, 1 to {LONGEST}"
            await _refusal(scope, 400, "bad_timeout", what)(scope, receive, send)
            return
        asked: _Asked | None = None

        async def received() -> Message:
            nonlocal asked
            message = await receive()
            if asked is None and message["type"] == "http.request" and not message.get("more_body", False):
                asked = self._enter(patience)
            return message

        async def sent(message: Message) -> None:
            if asked is not None:
                asked.answering = True
                self._inside.discard(asked)  # who reads slowly keeps nobody else out
            await send(message)

        try:
            await app(scope, received, sent)
        except asyncio.CancelledError:
            if asked is None or not asked.late:
                raise
            asked.task.uncancel()
            self._metrics.shed.labels("deadline").inc()
            what = f"no answer within {patience * 1000:.0f} ms; the question may be on record all the same"
            await _refusal(scope, 504, "deadline", what)(scope, receive, send)
        finally:
            if asked is not None:
                self._inside.discard(asked)

    def _enter(self, patience: float) -> _Asked:
        """A place. Raises Overloaded."""
        if len(self._inside) >= self._most:
            self._metrics.shed.labels("overloaded").inc()
            raise Overloaded(f"{self._most} questions are being answered here; ask again, or another replica")
        task = asyncio.current_task()
        assert task is not None, "a server runs each request in a task"
        loop = asyncio.get_running_loop()
        asked = _Asked(loop.time() + patience, task)
        self._inside.add(asked)
        if not self._looking:
            self._looking = True
            loop.call_later(LOOK, self._look, loop)
        return asked

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for one in self._inside:
            if one.until <= now and not one.answering and not one.late:
                one.late = True
                one.task.cancel()
        self._looking = bool(self._inside)
        if self._looking:
            loop.call_later(LOOK, self._look, loop)


def _seconds(said: bytes) -> float | None:
    """None for what is no deadline."""
    if not said.isdigit() or len(said) > len(str(LONGEST)) or not 1 <= int(said) <= LONGEST:
        return None
    return int(said) / 1000.0


def _refusal(scope: Scope, status: int, code: str, message: str) -> Response:
    """In the words of the door that is asked: those of the Open Inference Protocol know one field."""
    if scope["path"].startswith("/v2/"):
        return http.answer(status, {"error": message})
    return http.refusal(status, code, message)
