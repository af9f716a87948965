"""The Open Inference Protocol (version 2) over HTTP: for the clients of KServe, Triton and MLServer as they are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope

from millstream.contracts.json_text import read_json
from millstream.errors import DeliveryUnknown, MillstreamError, Refusal, RetryLater
from millstream.runtime import http
from millstream.runtime.probes import Probes
from millstream.runtime.request_span import carried_on
from millstream.runtime.room import Held, Room
from millstream_serving.api.gate import LATE, PARAMETER
from millstream_serving.api.raw import Answered, Headers, framed, raw_door, read_small
from millstream_serving.api.shapes import INFERRED
from millstream_serving.domain.inference import InferRequest, TableRequest, TableResponse
from millstream_serving.domain.tensor_json import (
    PLAIN,
    Wanted,
    answer_of,
    metadata_of,
    request_of,
    table_answer_of,
    table_request_of,
)
from millstream_serving.domain.tensors import bad
from millstream_serving.errors import ModelFailed, NoModel, UnknownLoop
from millstream_serving.handlers import Inference

LARGEST_REQUEST = 16 * 1024 * 1024
"""Bytes. A thousand rows of two thousand numbers are half of it."""

REQUEST_SECONDS = 30.0
"""For a whole request of that size, over a bad line."""

ANY_METHOD = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]

HEADER = "inference-header-content-length"
OCTETS = "application/octet-stream"

ERRORS: tuple[tuple[type[Exception], int], ...] = (
    (UnknownLoop, 404),
    (NoModel, 503),
    (ModelFailed, 503),
    (DeliveryUnknown, 503),
    (RetryLater, 503),
)
"""The first that fits holds."""

STATUS = {
    "busy": 503,
    "known_at_not_trusted": 403,
    "body_timeout": 408,
    "body_too_large": 413,
    "media_type": 415,
    "content_encoding": 415,
}
"""Of refusals; all others are 400: the protocol knows no more."""

_SAID = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}},
    "additionalProperties": False,
}
_ERROR = {"content": {http.JSON: {"schema": _SAID}}}
_NOT_THERE: dict[int | str, Any] = {404: {"description": "No such loop, or this version of it is not loaded", **_ERROR}}
_LATER: dict[int | str, Any] = {503: {"description": "Not now; `error` says what it waits for", **_ERROR}}
_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string", "description": "A column of the model, or `features` for all of them"},
        "shape": {"type": "array", "items": {"type": "integer"}, "description": "[n] or [n, 1]; n rows, 1000 at most"},
        "datatype": {"type": "string", "description": "BOOL, INT8…INT64, UINT8…UINT64, FP16…FP64, or BYTES for texts"},
        "data": {"type": "array", "items": {}, "description": "Flat, or in rows; null is NaN, or an empty text"},
        "parameters": {"type": "object"},
    },
}
_BODY = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string", "description": "Said again in the answer"},
        "parameters": {"type": "object", "description": "`entity`: whom the rows are about, for a canary"},
        "inputs": {"type": "array", "items": _TENSOR},
        "outputs": {
            "type": "array",
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
            "description": "The model's own where left out; `prediction_id`, `version` and `variant` may be asked for",
        },
    },
}
_EXAMPLE = {
    "id": "1",
    "inputs": [
        {"name": "distance", "shape": [1], "datatype": "FP32", "data": [2475]},
        {"name": "carrier", "shape": [1], "datatype": "BYTES", "data": ["B6"]},
    ],
}
_INFER_DOCS: dict[str, Any] = {
    "responses": {
        200: {
            "description": "The answers, in the prediction log already; `parameters` name version, variant and prediction",
            "content": {
                http.JSON: {"schema": INFERRED},
                OCTETS: {"schema": {"type": "string", "format": "binary"}},
            },
        },
        400: {"description": "The request is wrong; `error` says where and what to send", **_ERROR},
        403: {"description": "`ce-knownat`, which this service does not trust", **_ERROR},
        **_NOT_THERE,
        408: {"description": "The body did not arrive in time", **_ERROR},
        413: {"description": f"The body has more than {LARGEST_REQUEST} bytes", **_ERROR},
        415: {"description": "Another content type, or a compressed body", **_ERROR},
        **_LATER,
        504: {"description": LATE, **_ERROR},
    },
    "openapi_extra": {
        "parameters": [{"name": HEADER, "in": "header", "schema": {"type": "integer", "minimum": 0}}, PARAMETER],
        "requestBody": {
            "required": True,
            "content": {
                http.JSON: {"schema": _BODY, "example": _EXAMPLE},
                OCTETS: {"schema": {"type": "string", "format": "binary"}},
            },
        },
    },
}
_encode = msgspec.json.Encoder().encode


class InferenceDoorway:
    """The protocol's routes. Everything that is refused is `{"error": "…"}`, as its clients expect."""

    def __init__(
        self, inference: Inference, probes: Probes, *, room: Room, version: str, trusts_known_at: bool
    ) -> None:
        """`room`: for the bodies of all doors together."""
        self._inference = inference
        self._probes = probes
        self._version = version
        self._trusts_known_at = trusts_known_at
        self._room = room
        self.router = APIRouter(prefix="/v2", tags=["open inference protocol"])
        self._get("", self.server, "What this server is")
        self._get("/health/live", self.live, "Is it getting on?", _LATER)
        self._get("/health/ready", self.ready, "May it be given work?", _LATER)
        ready = {**_NOT_THERE, **_LATER}
        one, versioned = "/models/{loop}", "/models/{loop}/versions/{version}"
        self._get(one, self.model, "How to ask a loop", ready)
        self._get(f"{one}/ready", self.model_ready, "Can it answer?", ready)
        self._get(versioned, self.model_version, "How to ask a version of a loop", ready)
        self._get(f"{versioned}/ready", self.model_version_ready, "Can this version answer?", ready)
        self._post(f"{one}/infer", self.infer, "Ask with the features given")
        self._post(f"{versioned}/infer", self.infer_version, "Ask this version with the features given")
        self.doors: dict[tuple[str, str], ASGIApp] = {
            ("POST", f"/v2/models/{name}/infer"): raw_door(partial(self._answer, name, "")) for name in inference.loops
        }
        # Last: what nothing above takes is refused in the protocol's words too, not in those of our other doors.
        self.router.add_api_route("/{path:path}", self.nothing, methods=ANY_METHOD, include_in_schema=False)

    def _get(
        self, path: str, door: Callable[..., Any], summary: str, responses: dict[int | str, Any] | None = None
    ) -> None:
        self.router.add_api_route(path, door, methods=["GET"], summary=summary, responses=responses)

    def _post(self, path: str, door: Callable[..., Any], summary: str) -> None:
        self.router.add_api_route(path, door, methods=["POST"], summary=summary, **_INFER_DOCS)

    async def nothing(self, request: Request) -> Response:
        """No door, or one that takes another method."""
        path = request.url.path
        doors = [one for one in self.router.routes[:-1] if isinstance(one, APIRoute) and one.path_regex.match(path)]
        allowed = ", ".join(sorted({method for one in doors for method in one.methods or ()}))
        if allowed:
            message = f"{path[:100]} does not take {request.method[:20]}, but {allowed}"
            return http.answer(405, {"error": message}, {"allow": allowed})
        return _error(404, f"nothing is at {path[:100]}; /docs shows what there is")

    async def server(self) -> Response:
        """Name, version, extensions."""
        return http.answer(200, {"name": "millstream", "version": self._version, "extensions": ["binary_tensor_data"]})

    async def live(self) -> Response:
        """What `/livez` says."""
        reasons = await self._probes.not_alive()
        return _error(503, "; ".join(reasons)) if reasons else http.answer(200, {"live": True})

    async def ready(self) -> Response:
        """What `/readyz` says."""
        missing = await self._probes.not_ready()
        if missing:
            return _error(503, "; ".join(f"{what}: {detail}" for what, detail in missing.items()))
        return http.answer(200, {"ready": True})

    async def model(self, loop: str) -> Response:
        """Its columns as inputs, its answer as output, the versions that are loaded."""
        return await self.model_version(loop, "")

    async def model_version(self, loop: str, version: str) -> Response:
        """As without a version, of this one."""
        try:
            return http.answer(200, metadata_of(self._inference.metadata(loop, version)))
        except MillstreamError as error:
            return _refused(error)

    async def model_ready(self, loop: str) -> Response:
        """200 where it can answer."""
        return await self.model_version_ready(loop, "")

    async def model_version_ready(self, loop: str, version: str) -> Response:
        """200 where it is loaded."""
        try:
            self._inference.metadata(loop, version)
            return http.answer(200, {"name": loop, "ready": True})
        except MillstreamError as error:
            return _refused(error)

    async def infer(self, request: Request, loop: str) -> Response:
        """One tensor a column, or all numbers in one tensor `features`; nothing is looked up.

        A 200 means that every row's answer is in the prediction log, and milliseconds later in `millstream-predictions`.
        """
        return await framed(self._answer(loop, "", request.scope, request.receive))

    async def infer_version(self, request: Request, loop: str, version: str) -> Response:
        """The same, answered by the champion if this is its version, in a canary too."""
        return await framed(self._answer(loop, version, request.scope, request.receive))

    async def _answer(self, loop: str, version: str, scope: Scope, receive: Receive) -> Answered:
        headers, held = dict(scope["headers"]), Held(self._room)
        try:
            self._inference.exists(loop)  # before its body is read: what is wrong there is no matter without a model
            # Not kept by a name: the parsed JSON is many times its bytes, and the answer waits for Kafka.
            asked, wanted = await _asked(scope, headers, receive, held, tables=not version)
            at = http.known_at(Request(scope), self._trusts_known_at) if b"ce-knownat" in headers else None
            trace = carried_on(headers)
            if isinstance(asked, TableRequest):
                found = await self._inference.infer_table(loop, asked, transport="http", asked_at=at, trace=trace)
            else:
                found = await self._inference.infer(loop, version, asked, transport="http", asked_at=at, trace=trace)
        except MillstreamError as error:
            return _refused(error)
        finally:
            held.leave()
        if isinstance(found, TableResponse):
            return _encode(table_answer_of(found))
        said, parts = answer_of(found, wanted)
        head = _encode(said)
        if not parts:
            return head
        return Response(b"".join([head, *parts]), headers={HEADER: str(len(head))}, media_type=OCTETS)


async def _asked(
    scope: Scope, headers: Headers, receive: Receive, held: Held, *, tables: bool
) -> tuple[InferRequest | TableRequest, Wanted]:
    """`tables`: one that is no more than a table may stay one. Raises Refusal."""
    if b"content-encoding" in headers or headers.get(b"content-type") != b"application/json":
        request = Request(scope)
        if b"content-type" in headers:  # Triton's client sends none with JSON
            http.media_type(request, (http.JSON, OCTETS))
        elif request.headers.get("content-encoding", "identity").lower() != "identity":
            raise Refusal("content_encoding", "compressed bodies are not taken; send it plain")
    whole = await read_small(scope, headers, receive, LARGEST_REQUEST, REQUEST_SECONDS, held)
    if HEADER.encode() not in headers:
        table = table_request_of(whole) if tables else None
        return request_of(read_json(whole), b"") if table is None else (table, PLAIN)
    said, raw = headers[HEADER.encode()].decode("latin-1"), memoryview(whole)
    size = len(raw)
    if not (said.isascii() and said.isdecimal() and len(said) < 10 and int(said) <= size):
        raise bad(f"{HEADER} is {said[:40]!r}; send the bytes of the JSON, at most the {size} that came")
    size = int(said)
    return request_of(read_json(bytes(raw[:size])), raw[size:])


def _refused(error: MillstreamError) -> Response:
    if isinstance(error, Refusal):
        return _error(STATUS.get(error.code, 400), str(error))
    for kind, status in ERRORS:
        if isinstance(error, kind):
            return _error(status, str(error))
    raise error


def _error(status: int, message: str) -> Response:
    return http.answer(status, {"error": message}, {"retry-after": "1"} if status == 503 else None)
