"""HTTP doorway of ingest: streams and their events, and the one table from refusals to status codes."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from millstream.codecs.codec import Codec
from millstream.errors import DeliveryUnknown, Refusal
from millstream.project import Stream
from millstream.runtime import http
from millstream.runtime.http import JSON, answer
from millstream.runtime.tracing import current_traceparent, span
from millstream_ingest.domain.bodies import cut_array, cut_lines
from millstream_ingest.domain.gate import Gate
from millstream_ingest.domain.result import Result
from millstream_ingest.errors import LogAway
from millstream_ingest.handlers import Arrival, accept
from millstream_ingest.metrics import IngestMetrics
from millstream_ingest.ports import EventLog
from millstream_ingest.settings import IngestSettings

STATUS: Mapping[str, int] = {
    **http.STATUS,
    **http.KNOWN_AT_STATUS,
    # of a request
    "empty_batch": 400,
    "unknown_stream": 404,
    "too_many_events": 413,
    "too_many_values": 413,
    "busy": 503,
    "unavailable": 503,
    "unknown": 503,
    # of an event, and so of a request with one event
    "too_large": 413,
    "not_an_object": 422,
    "schema": 422,
    "invalid_time": 422,
    "missing_field": 422,
    "too_early": 422,
}
"""Every refusal's code and its HTTP status: the closed set that metrics are labelled with."""

RETRY_AFTER = {"busy": "1", "unavailable": "5", "unknown": "5"}
"""Seconds. A full gate empties in milliseconds; a Kafka broker takes seconds to come back."""
OUTCOME = {"busy": "not_accepted", "unavailable": "not_accepted", "unknown": "unknown"}
"""What a producer has to know before it tries again."""

NDJSON = "application/x-ndjson"
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

Cut = Callable[[bytes], Sequence[bytes]]


def refused(refusal: Refusal) -> Response:
    """The answer to a request of which nothing was taken."""
    code, more, headers = refusal.code, refusal.more, {}
    if code in OUTCOME:
        more, headers = more | {"outcome": OUTCOME[code]}, {"retry-after": RETRY_AFTER[code]}
    return http.refusal(STATUS[code], code, str(refusal), headers=headers, **more)


def one_answer(result: Result) -> Response:
    """The answer to a request with one event."""
    if result.error is None:
        return answer(202, {"id": result.id, "status": "accepted"})
    body = msgspec.to_builtins(result.error)
    return answer(STATUS[result.error.code], {"error": body.pop("code")} | body)


def batch_answer(results: Sequence[Result]) -> Response:
    """The answer to a batch: 202 all accepted, 422 all rejected, 207 mixed."""
    accepted = sum(result.error is None for result in results)
    rejected = len(results) - accepted
    status = 202 if not rejected else 207 if accepted else 422
    return answer(status, {"accepted": accepted, "rejected": rejected, "results": results})


_DEPARTED = {"flight_id": "2013-01-01-UA-1545-EWR", "tailnum": "N14228", "departed_at": "2013-01-01T10:17:00Z"}
_REJECTED = {
    "message": '"two" is not of type "number"',
    "pointer": "/dep_delay",
    "expected": "type: number",
    "got": '"two"',
}
_RESULTS = [
    {"index": 0, "status": "accepted", "id": "2013-01-01-UA-1545-EWR"},
    {"index": 1, "status": "rejected", "error": {"code": "schema"} | _REJECTED},
]


def _docs(accepted: dict[int, Any], bodies: dict[str, Any]) -> dict[str, Any]:
    """What OpenAPI cannot see, because the hot routes read raw bodies."""
    refusals = {
        400: "The body is no JSON, or no UTF-8",
        403: "ce-knownat without MILLSTREAM_TRUST_KNOWN_AT=true",
        404: "No such stream; the answer names those there are",
        408: "The body did not arrive in time",
        413: "The body, the batch or an event is too large",
        415: "Another content type, or a compressed body",
        422: "Nothing fits the stream; the answer points at the value",
        503: "Kafka is away (outcome not_accepted) or did not confirm in time (outcome unknown); try again after Retry-After",
    }
    known_at = {
        "name": "ce-knownat",
        "in": "header",
        "description": "When the events became known (RFC 3339); only where ingest trusts it, for a replay or a backfill",
        "schema": {"type": "string", "format": "date-time"},
    }
    answers = {
        code: {
            "description": "Every in-sync replica of Kafka has what is called accepted",
            "content": {JSON: {"example": example}},
        }
        for code, example in accepted.items()
    }
    return {
        "status_code": 202,
        "responses": answers | {code: {"description": text} for code, text in refusals.items()},
        "openapi_extra": {
            "parameters": [known_at],
            "requestBody": {"required": True, "content": {kind: {"example": body} for kind, body in bodies.items()}},
        },
    }


EVENT_DOCS = _docs({202: {"id": _DEPARTED["flight_id"], "status": "accepted"}}, {JSON: _DEPARTED})
BATCH_DOCS = _docs(
    {
        202: {"accepted": 1, "rejected": 0, "results": _RESULTS[:1]},
        207: {"accepted": 1, "rejected": 1, "results": _RESULTS},
    },
    {JSON: [_DEPARTED], NDJSON: json.dumps(_DEPARTED) + "\n"},
)


class Doorway:
    """The routes, with what they need at hand."""

    def __init__(
        self,
        *,
        streams: Mapping[str, Stream],
        codecs: Mapping[str, Codec],
        log: EventLog,
        settings: IngestSettings,
        metrics: IngestMetrics,
        clock: Callable[[], int],
    ) -> None:
        self._streams = streams
        self._codecs = codecs
        self._log = log
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._gate = Gate(requests=settings.max_requests, bytes=settings.max_bytes)
        metrics.in_flight.set_function(lambda: self._gate.requests)
        self.router = APIRouter(prefix="/v1/streams", tags=["streams"])
        self.router.add_api_route("", self.list_streams, methods=["GET"], summary="Which streams take events")
        self.router.add_api_route("/{stream}/schema", self.schema, methods=["GET"], summary="What events look like")
        self.router.add_api_route(
            "/{stream}/events", self.events, methods=["POST"], summary="Send one event", **EVENT_DOCS
        )
        self.router.add_api_route(
            "/{stream}/batch", self.batch, methods=["POST"], summary="Send many events", **BATCH_DOCS
        )

    async def list_streams(self) -> Response:
        """Every stream that takes events, with its key, id and time fields."""
        streams = [
            {
                "stream": s.name,
                "description": s.description,
                "key": s.key,
                "id": s.id,
                "time": s.time,
                "format": s.format,
            }
            for s in self._streams.values()
        ]
        return answer(200, {"streams": streams})

    async def schema(self, stream: str) -> Response:
        """The JSON Schema that the stream's events have to fit."""

        async def work() -> Response:
            return answer(200, self._stream(stream).event_schema, media_type="application/schema+json")

        return await self._guarded(work)

    async def events(self, stream: str, request: Request) -> Response:
        """Accept one event. 202 means that every in-sync replica of Kafka has it."""

        async def work() -> Response:
            cuts: dict[str, Cut] = {JSON: lambda body: [body]}
            results = await self._accept("events", stream, request, self._settings.max_body_bytes, cuts)
            return one_answer(results[0])

        return await self._guarded(work)

    async def batch(self, stream: str, request: Request) -> Response:
        """Accept many events: good ones are taken although others are not, and each gets its own answer."""

        async def work() -> Response:
            cuts: dict[str, Cut] = {JSON: cut_array, NDJSON: cut_lines}
            return batch_answer(await self._accept("batch", stream, request, self._settings.max_batch_bytes, cuts))

        return await self._guarded(work)

    async def _guarded(self, work: Callable[[], Awaitable[Response]]) -> Response:
        """Turn what can go wrong with a whole request into its answer."""
        try:
            return await work()
        except Refusal as error:
            refusal = error
        except LogAway as error:
            refusal = Refusal("unavailable", str(error))
        except DeliveryUnknown as error:
            refusal = Refusal("unknown", f"{error}; send it again, the event id makes that harmless")
        self._metrics.refused.labels(refusal.code).inc()
        return refused(refusal)

    async def _accept(
        self, route: str, name: str, request: Request, limit: int, cuts: Mapping[str, Cut]
    ) -> Sequence[Result]:
        stream = self._stream(name)
        cut = cuts[http.media_type(request, cuts)]
        known_at = http.known_at(request, self._settings.trust_known_at)
        with self._gate.enter() as load:
            body = await http.read_body(request, limit, self._settings.body_timeout, load.add)
            with self._metrics.request_seconds.labels(route).time(), span(f"accept {name}", traceparent(request)):
                arrival = Arrival(
                    now=self._clock(),
                    known_at=known_at,
                    traceparent=current_traceparent() or traceparent(request),
                    max_event_bytes=self._settings.max_event_bytes,
                )
                results = await accept(stream, cut(body), arrival, self._log, self._codecs[name])
        self._count(name, results)
        return results

    def _count(self, stream: str, results: Sequence[Result]) -> None:
        accepted = 0
        for result in results:
            if result.error is None:
                accepted += 1
            else:
                self._metrics.rejected.labels(stream, result.error.code).inc()
        self._metrics.accepted.labels(stream).inc(accepted)

    def _stream(self, name: str) -> Stream:
        stream = self._streams.get(name)
        if stream is None:
            known = sorted(self._streams)
            raise Refusal("unknown_stream", f"no stream {name[:100]!r}; known: {', '.join(known)}", known=known)
        return stream


def traceparent(request: Request) -> str | None:
    """The request's W3C traceparent, where it is one."""
    said = request.headers.get("traceparent", "")
    return said if _TRACEPARENT.fullmatch(said) else None
