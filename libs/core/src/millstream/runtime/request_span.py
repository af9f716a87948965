"""The span of one HTTP request: in the caller's trace, named by its route, with its status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from starlette.types import Message, Scope, Send

from millstream.runtime.tracing import current_traceparent, span, valid_traceparent


def carried_on(headers: Mapping[bytes, bytes]) -> str | None:
    """What goes into records that come of a request: its span's traceparent, or the caller's where tracing is off here."""
    return current_traceparent() or valid_traceparent(headers.get(b"traceparent"))


@contextmanager
def request_span(scope: Scope, send: Send, path: str | None) -> Iterator[Send]:
    """`path`: of a door that is known by it. Other paths are a stranger's text, so the route that was found gives the name.

    Gives the `send` that sees the status.
    """
    about = trace.get_current_span()

    async def seen(message: Message) -> None:
        if message["type"] == "http.response.start":
            about.set_attribute("http.response.status_code", message["status"])
            if message["status"] >= 500:
                about.set_status(Status(StatusCode.ERROR))
        await send(message)

    method: str = scope["method"]
    said = next((value for name, value in scope["headers"] if name == b"traceparent"), None)
    more = {"http.request.method": method} | ({"http.route": path} if path else {})
    with span(f"{method} {path}" if path else method, valid_traceparent(said), kind=SpanKind.SERVER, about=more):
        about = trace.get_current_span()
        yield seen
        route = getattr(scope.get("route"), "path", None)
        if path is None and route is not None:
            about.update_name(f"{method} {route}")
            about.set_attribute("http.route", route)
