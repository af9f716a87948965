"""What OpenAPI cannot see of the doors that take events, because they read raw bodies."""

from __future__ import annotations

import json
from typing import Any

from millstream.runtime.http import JSON, refusing
from millstream_ingest.domain.cloudevents import BATCHED, STRUCTURED

NDJSON = "application/x-ndjson"

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


_CLOUDEVENT = {"specversion": "1.0", "id": "7f3a", "source": "/gates/ewr", "type": "departure", "data": _DEPARTED}
_LINES = [_RESULTS[0], {"accepted": 1, "rejected": 0, "not_accepted": 0, "unknown": 0}]
_PARAMETERS = [
    {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Of a retry, the key of its first try: it is answered as that was, and nothing is written twice",
        "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
    },
    {
        "name": "ce-knownat",
        "in": "header",
        "description": "When the events became known (RFC 3339); only where ingest trusts it, for a replay or a backfill",
        "schema": {"type": "string", "format": "date-time"},
    },
]
_RESULTS_OF = {
    "name": "results",
    "in": "query",
    "description": "Of a stream: `rejected` leaves out the accepted ones, for clients that cannot read while they send",
    "schema": {"type": "string", "enum": ["all", "rejected"], "default": "all"},
}


_TEXT = {"type": "string"}
_STATUS = {"enum": ["accepted", "rejected", "not_accepted", "unknown"]}
_ERROR = {
    "type": "object",
    "required": ["code", "message", "pointer"],
    "properties": {"code": _TEXT, "message": _TEXT, "pointer": _TEXT, "expected": _TEXT, "got": _TEXT},
}
_RESULT = {
    "type": "object",
    "required": ["index", "status"],
    "properties": {"index": {"type": "integer", "minimum": 0}, "status": _STATUS, "id": _TEXT, "error": _ERROR},
}
_COUNT = {"type": "integer", "minimum": 0}
_ONE_SHAPE = {"type": "object", "required": ["id", "status"], "properties": {"id": _TEXT, "status": _STATUS}}
_MANY_SHAPE = {
    "type": "object",
    "required": ["accepted", "rejected", "results"],
    "properties": {"accepted": _COUNT, "rejected": _COUNT, "results": {"type": "array", "items": _RESULT}},
}
_TOLD = {"anyOf": [_ONE_SHAPE, _MANY_SHAPE]}
"""One event is told its id; several, as CloudEvents and labels may be, have a result each."""
_NOTHING_FITS = {"anyOf": [{"$ref": "#/components/schemas/Refused"}, _MANY_SHAPE]}


def _docs(accepted: dict[int, Any], bodies: dict[str, Any], *more: dict[str, Any]) -> dict[str, Any]:
    """What OpenAPI cannot see, because the hot routes read raw bodies."""
    refusals = {
        400: "The body is no JSON, no UTF-8, or not packed as content-encoding says",
        401: "No credential, or none that is good",
        403: "The credential is not for this stream. Or ce-knownat without MILLSTREAM_TRUST_KNOWN_AT=true",
        404: "No such stream; the answer names those there are",
        408: "The body did not arrive in time",
        413: "The body, the batch or an event is too large, packed or not",
        415: "Another content type, or a packing other than gzip and zstd",
        422: "Nothing fits the stream; the answer points at the value. Or the Idempotency-Key came with another body",
        429: "The producer has used up its quota, or features is behind; nothing was taken, try again after Retry-After",
        503: "Kafka is away (outcome not_accepted) or did not confirm in time (outcome unknown); try again after Retry-After",
    }
    answers: dict[int | str, Any] = {
        code: {
            "description": "Every in-sync replica of Kafka has what is called accepted",
            "content": {JSON: {"schema": _TOLD, "example": example}},
        }
        for code, example in accepted.items()
    }
    answers |= refusing(refusals)
    answers[422]["content"] = {JSON: {"schema": _NOTHING_FITS}}
    return {
        "status_code": 202,
        "responses": answers,
        "openapi_extra": {
            "parameters": [*_PARAMETERS, *more],
            "requestBody": {"required": True, "content": {kind: {"example": body} for kind, body in bodies.items()}},
        },
    }


_ONE = {"id": _DEPARTED["flight_id"], "status": "accepted"}
_LINE = json.dumps(_DEPARTED) + "\n"

EVENT = _docs(
    {202: _ONE}, {JSON: _DEPARTED, NDJSON: _LINE, STRUCTURED: _CLOUDEVENT, BATCHED: [_CLOUDEVENT]}, _RESULTS_OF
)
EVENT["responses"][200] = {
    "description": "A stream: a line for each line of the body, as it goes on, and a last one with the counts",
    "content": {NDJSON: {"example": "".join(json.dumps(line) + "\n" for line in _LINES)}},
}
BATCH = _docs(
    {
        202: {"accepted": 1, "rejected": 0, "results": _RESULTS[:1]},
        207: {"accepted": 1, "rejected": 1, "results": _RESULTS},
    },
    {JSON: [_DEPARTED], NDJSON: _LINE, BATCHED: [_CLOUDEVENT]},
)
_TRUE = {"key": {"slot": "2012-07-01T09/Depot", "station": "Depot", "city": "Ghent", "hour": 9}, "value": 12}
LABEL = _docs({202: {"id": "2012-07-01T09/Depot", "status": "accepted"}}, {JSON: _TRUE})
LABEL["responses"][404]["description"] = "No such loop; the answer names those there are"
LABEL["responses"][422]["description"] = (
    "It does not make an event of the label stream; the answer points at the value, or says what to send instead"
)
