"""What ingest answers: the one table from refusals to status codes, and the bodies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from starlette.types import Send

from millstream.errors import DeliveryUnknown, Refusal
from millstream.runtime import http
from millstream_ingest.domain.result import Fault, Result
from millstream_ingest.errors import BadEvent, LogAway
from millstream_ingest.handlers import Admitted

STATUS: Mapping[str, int] = {
    **http.STATUS,
    **http.KNOWN_AT_STATUS,
    # of a request
    "bad_encoding": 400,
    "empty_batch": 400,
    "invalid_idempotency_key": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "unknown_stream": 404,
    "unknown_loop": 404,
    "unknown_version": 404,
    "compression_ratio": 413,
    "too_many_events": 413,
    "too_many_values": 413,
    "idempotency_mismatch": 422,
    "computed_label": 422,
    "quota": 429,
    "downstream_lag": 429,
    "busy": 503,
    "unavailable": 503,
    "unknown": 503,
    # of an event, and so of a request with one event
    "bad_cloudevent": 422,
    "bad_label": 422,
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
OUTCOME = {
    "quota": "not_accepted",
    "downstream_lag": "not_accepted",
    "busy": "not_accepted",
    "unavailable": "not_accepted",
    "unknown": "unknown",
}
"""What a producer has to know before it tries again."""

encode = msgspec.json.Encoder().encode


class Answer(NamedTuple):
    """A whole answer, as bytes."""

    status: int
    body: bytes
    headers: Sequence[tuple[bytes, bytes]] = ()

    @property
    def done(self) -> bool:
        """Whether a retry gets the same: everything but what was not taken, and what nobody knows."""
        return self.status < 500

    async def send(self, send: Send) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(self.body)), *self.headers]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


CHALLENGE = (b"www-authenticate", b'Bearer realm="millstream"')
REPLAYED = (b"idempotent-replayed", b"true")


def refused(refusal: Refusal) -> Answer:
    """The answer to a request of which nothing was taken."""
    code, more = refusal.code, refusal.more
    headers = []
    if code in OUTCOME:
        more = more | {"outcome": OUTCOME[code]}
        headers.append((b"retry-after", str(more.get("retry_after", RETRY_AFTER.get(code))).encode()))
    if STATUS[code] == 401:
        headers.append(CHALLENGE)
    return Answer(STATUS[code], encode({"error": code, "message": str(refusal)} | more), headers)


def refusal_of(error: Exception) -> Refusal:
    """What went wrong with a whole request. Raises `error` where it is none of ours."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, LogAway):
        return Refusal("unavailable", str(error))
    if isinstance(error, DeliveryUnknown):
        return Refusal("unknown", f"{error}; send it again, the event id makes that harmless")
    raise error


def one_accepted(admitted: Admitted, *, replayed: bool) -> Answer:
    return Answer(202, b'{"id":%b,"status":"accepted"}' % encode(admitted.id), (REPLAYED,) if replayed else ())


def one_rejected(error: BadEvent) -> Answer:
    body: dict[str, Any] = msgspec.to_builtins(Fault.of(error))
    return Answer(STATUS[error.reason], encode({"error": body.pop("code")} | body))


def many(results: Sequence[Result]) -> Answer:
    """The answer to a batch: 202 all accepted, 422 all rejected, 207 mixed."""
    accepted = sum(result.error is None for result in results)
    rejected = len(results) - accepted
    status = 202 if not rejected else 207 if accepted else 422
    return Answer(status, encode({"accepted": accepted, "rejected": rejected, "results": results}))
