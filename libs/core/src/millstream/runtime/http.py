"""What the HTTP of every service has in common: one body for all that is refused, one way to read what is sent."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Generic, TypeVar

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from millstream.contracts.json_text import pointer, read_json
from millstream.contracts.times import MINUTE, from_rfc3339, now, to_rfc3339
from millstream.errors import Refusal, RetryLater
from millstream.runtime.request_span import request_span
from millstream.runtime.room import Held
from millstream.runtime.tracing import tracing

JSON = "application/json"

LARGEST_BODY = 1024 * 1024
"""Bytes. What is asked in JSON has a few hundred, and Kafka's own limit for an event is the same."""

BODY_SECONDS = 10.0
"""For the whole body: a megabyte over a bad line. A client that trickles would hold memory for as long as it likes."""

MOST_FAULTS = 20
"""Named in one answer: whoever has more to mend begins with these."""

STATUS: Mapping[str, int] = {
    "bad_json": 400,
    "invalid_utf8": 400,
    "client_gone": 400,
    "body_timeout": 408,
    "body_too_large": 413,
    "media_type": 415,
    "content_encoding": 415,
    "bad_body": 422,
    "too_deep": 422,
}
"""Every code by which a body is refused, the same at every door; what else a door refuses is in its own table."""

KNOWN_AT_STATUS: Mapping[str, int] = {"invalid_known_at": 400, "known_at_not_trusted": 403}
"""Of the doors that `known_at` has."""

REFUSED: dict[str, Any] = {"content": {JSON: {"schema": {"$ref": "#/components/schemas/Refused"}}}}
"""For the documentation of every refusal: `http_app` puts that schema into each document."""


def refusing(said: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """The responses of a door that refuses with these, for its documentation."""
    return {status: {"description": text, **REFUSED} for status, text in said.items()}


BODY_DOCS: Mapping[int | str, dict[str, Any]] = refusing(
    {
        400: "The body is no JSON, or no UTF-8",
        408: "The body did not arrive in time",
        413: f"The body has more than {LARGEST_BODY} bytes",
        415: "Another content type, or a compressed body",
        422: "The body does not fit; `faults` point at what is wrong",
    }
)

_ENCODER = msgspec.json.Encoder()
_CHARSET = re.compile(r"charset\s*=\s*\"?([^\s\";]*)", re.IGNORECASE)

B = TypeVar("B", bound=BaseModel)


Gate = Callable[[ASGIApp, Scope, Receive, Send], Awaitable[None]]


class FrontedApp(FastAPI):
    """An app with doors in front: what asks for exactly such a path goes past routing, middleware and request objects.

    Those cost more than the work of a door that is asked thousands of times a second. A door answers everything itself, and
    stands in the documentation through the route behind it.
    """

    def __init__(self, **settings: Any) -> None:
        # The frame's own spans are of every look at a probe, and of no door that stands in front of it.
        super().__init__(telemetry={"tracing": False, "metrics": False, "logs": False}, **settings)
        self.doors: dict[tuple[str, str], ASGIApp] = {}
        """By method and path."""
        self.gate: Gate | None = None
        """What every POST passes first; None: nothing stands there."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        door = self.doors.get((scope["method"], scope["path"]))
        app = door or super().__call__
        if (
            tracing() and scope["method"] == "POST"
        ):  # what is only looked at changes nothing, and probes look all the time
            with request_span(scope, send, None if door is None else scope["path"]) as seen:
                await self._pass(app, scope, receive, seen)
        else:
            await self._pass(app, scope, receive, send)

    async def _pass(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        if self.gate is not None and scope["method"] == "POST":
            await self.gate(app, scope, receive, send)
        else:
            await app(scope, receive, send)


class Refused(BaseModel):
    """The body of every refusal; some have more fields."""

    error: str = Field(description="A short code for programs, from a closed set.")
    message: str = Field(description="For people: what was wrong, where, and what to write instead.")


def http_app(*, title: str, version: str = "0.1.0", lifespan: Lifespan[FastAPI] | None = None) -> FrontedApp:
    """An app that never answers in the framework's own words: unknown paths, bad bodies and bugs look like any refusal.

    These are handlers of exceptions, no middleware: a request that goes well does not pass them.
    """
    app = FrontedApp(
        title=title,
        version=version,
        lifespan=lifespan,
        # In place of the framework's own 422, which no door of ours has.
        responses={"default": {"model": Refused, "description": "Any refusal"}},
    )

    @app.exception_handler(Refusal)
    async def refuse(request: Request, error: Refusal) -> Response:
        return refused(error)

    @app.exception_handler(RetryLater)
    async def later(request: Request, error: RetryLater) -> Response:
        return refusal(503, "unavailable", str(error))

    @app.exception_handler(HTTPException)
    async def no_such_door(request: Request, error: HTTPException) -> Response:
        status, path, headers = HTTPStatus(error.status_code), request.url.path[:100], error.headers or {}
        message = str(error.detail)
        if status == HTTPStatus.NOT_FOUND:
            message = f"nothing is at {path}; /docs shows what there is"
        elif status == HTTPStatus.METHOD_NOT_ALLOWED:
            message = f"{path} does not take {request.method[:20]}, but {headers.get('Allow')}"
        return refusal(status, status.name.lower(), message, headers=headers)

    @app.exception_handler(RequestValidationError)
    async def unfit(request: Request, error: RequestValidationError) -> Response:
        # Of parameters, and of a body that a door left to the framework to read.
        errors = error.errors()
        if errors[0]["type"] == "json_invalid":
            return refusal(STATUS["bad_json"], "bad_json", f"not JSON: {errors[0]['ctx']['error']}")
        faults = _faults(errors)
        return refusal(422, "bad_request", _sentence(faults), faults=faults)

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        # Starlette raises it again behind the answer, so the log has it with its traceback.
        return internal()

    return app


def answer(status: int, body: Any, headers: Mapping[str, str] | None = None, media_type: str = JSON) -> Response:
    return Response(_ENCODER.encode(body), status, headers, media_type)


def refusal(status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    """A refusal in the one shape that all have. A 503 says when to try again."""
    if status == 503:
        headers = {"retry-after": "1"} | dict(headers or {})
    return answer(status, {"error": code, "message": message} | more, headers)


def internal() -> Response:
    """The answer to a request that met a bug."""
    return refusal(500, "internal", "this is a fault of the service, not of the request; its log says more")


def refused(error: Refusal, status: Mapping[str, int] = STATUS) -> Response:
    """The answer to a request that was refused; `status` is the table of the door."""
    return refusal(status[error.code], error.code, str(error), **error.more)


def media_type(request: Request, allowed: Collection[str] = (JSON,), encodings: Collection[str] = ()) -> str:
    """The body's media type, one of `allowed`; `encodings` may pack it. Raises Refusal(`media_type`, `content_encoding`)."""
    if (packed := request.headers.get("content-encoding", "identity").lower()) not in ("identity", *encodings):
        if encodings:
            raise Refusal(
                "content_encoding", f"content-encoding {packed[:40]!r}; send {' or '.join(encodings)}, or plain"
            )
        raise Refusal("content_encoding", "compressed bodies are not taken; send it plain")
    said = request.headers.get("content-type", "")
    if said in allowed:
        return said
    kind, _, parameters = said.partition(";")
    charset = _CHARSET.search(parameters)
    kind = kind.strip().lower()
    if kind not in allowed or (charset and charset[1].lower() not in ("utf-8", "utf8")):
        raise Refusal("media_type", f"content-type {said[:100]!r}; send {' or '.join(allowed)}, in UTF-8")
    return kind


async def read_body(request: Request, limit: int, seconds: float, held: Held | None = None) -> bytes:
    """The whole body, counted while it streams in: a chunked one does not say its size beforehand.

    `held`: what the request holds of a room that it shares. Raises Refusal(`body_too_large`, `body_timeout`,
    `client_gone`), with `held` `busy` too.
    """
    too_large = Refusal("body_too_large", f"the body is larger than {limit} bytes; send that many at most")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large
    chunks, size = [], 0
    try:
        async with asyncio.timeout(seconds) if held is None else held.coming(seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise too_large
                if held is not None:
                    held.add(len(chunk))
                chunks.append(chunk)
    except TimeoutError as error:
        raise Refusal(
            "body_timeout", f"the body did not arrive within {seconds:g} s; send all that content-length says"
        ) from error
    except ClientDisconnect as error:
        raise Refusal("client_gone", "the client left before its body was complete") from error
    return b"".join(chunks)


def known_at(request: Request, trusted: bool) -> int | None:
    """What the header `ce-knownat` says (µs); None without it. Raises Refusal(`known_at_not_trusted`, `invalid_known_at`)."""
    return known_at_of(request.headers.get("ce-knownat"), trusted)


def known_at_of(said: str | None, trusted: bool) -> int | None:
    """The same of the value alone, for a doorway that is not HTTP."""
    if said is None:
        return None
    if not trusted:
        what = (
            "the header ce-knownat is for replays and backfills; start the service with MILLSTREAM_TRUST_KNOWN_AT=true"
        )
        raise Refusal("known_at_not_trusted", f"{what}, or leave it out")
    try:
        known = from_rfc3339(said)
    except ValueError as error:
        raise Refusal("invalid_known_at", f"ce-knownat: {error}") from error
    if known > now() + 5 * MINUTE:
        raise Refusal("invalid_known_at", f"ce-knownat: {said} is more than 5 minutes ahead of {to_rfc3339(now())}")
    return known


class JsonBody(Generic[B]):
    """What a door takes: JSON that fits a model, within the limits of all doors, which the framework does not know.

    The door gives `docs` to its route, because OpenAPI cannot see what it reads by itself.
    """

    def __init__(self, model: type[B], example: Mapping[str, Any], refusals: Mapping[int, str]) -> None:
        """`refusals`: what else the door answers, by status, for the documentation."""
        self._model = model
        self._example = _ENCODER.encode(example).decode()
        content = {JSON: {"schema": model.model_json_schema(), "example": example}}
        self.docs: dict[str, Any] = {
            "responses": {**BODY_DOCS, **refusing(refusals)},
            "openapi_extra": {"requestBody": {"required": True, "content": content}},
        }

    async def read(self, request: Request) -> B:
        """The checked body. Raises Refusal with a code of `STATUS`."""
        media_type(request)
        value: Any = read_json(await read_body(request, LARGEST_BODY, BODY_SECONDS))
        try:
            return self._model.model_validate(value)
        except ValidationError as error:
            faults = _faults(error.errors(include_url=False, include_context=False, include_input=False))
            message = f"{_sentence(faults)}; send it like {self._example}"
            raise Refusal("bad_body", message, faults=faults) from error


def _faults(errors: Sequence[Any]) -> list[dict[str, str]]:
    return [
        {"pointer": pointer(error["loc"]), "message": error["msg"].removeprefix("Value error, ")[:500]}
        for error in errors[:MOST_FAULTS]
    ]


def _sentence(faults: Sequence[Mapping[str, str]]) -> str:
    return "; ".join(f"{fault['pointer'] or 'the body'}: {fault['message']}" for fault in faults)
