"""Reads what a mill answers: into values, or into the errors of this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from millstream.client.errors import CallFailed, EventRejected, NotAuthorised, NotFound, OutcomeUnknown, TooLarge

AUTHORISATION = (401, 403)
REJECTED = 422
TOO_LARGE = 413
NOT_FOUND = 404
MIXED = (202, 207, 422)
"""Of a batch: all accepted, some, none."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP answer."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    """Names in lower case."""

    def said(self) -> dict[str, Any]:
        """The body, where it is a JSON object; what stands between client and mill may answer in other words."""
        try:
            found = msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            found = None
        return found if isinstance(found, dict) else {}


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """An event is in Kafka, on every in-sync replica."""

    id: str
    replayed: bool = False
    """An earlier try had got through; nothing was written again."""


def accepted(reply: Reply, event: Any = None) -> Accepted:
    """Of a request with one event. Raises CallFailed."""
    said = reply.said()
    if reply.status == 202 and isinstance(id := said.get("id"), str):
        return Accepted(id=id, replayed=reply.headers.get("idempotent-replayed") == "true")
    raise failure(reply, event)


def answered(reply: Reply, event: Any = None) -> dict[str, Any]:
    """Of a question. Raises CallFailed."""
    if reply.status == 200 and (said := reply.said()):
        return said
    raise failure(reply, event)


def results(reply: Reply, count: int) -> Sequence[Mapping[str, Any]]:
    """One result for each of `count` events, in order. Raises CallFailed where the batch was refused whole."""
    found = reply.said().get("results")
    if reply.status in MIXED and isinstance(found, list) and len(found) == count:
        return found
    raise failure(reply)


def rejection(fault: Mapping[str, Any], *, index: int, status: int = 0, event: Any = None) -> EventRejected:
    """Of one event. `fault` is as ingest says it, with `code` or `error`."""
    code = str(fault.get("code") or fault.get("error") or "rejected")
    kind = TooLarge if code == "too_large" or status == TOO_LARGE else EventRejected
    return kind(
        str(fault.get("message", code)),
        code=code,
        status=status,
        pointer=str(fault.get("pointer", "")),
        expected=fault.get("expected"),
        got=fault.get("got"),
        index=index,
        event=event,
    )


def failure(reply: Reply, event: Any = None) -> CallFailed:
    """The error that an answer is."""
    said, status = reply.said(), reply.status
    code = str(said.get("error", ""))
    message = str(said.get("message") or f"HTTP status {status}: {reply.body[:200].decode('utf-8', 'replace')}")
    if status in AUTHORISATION:
        return NotAuthorised(message, code=code, status=status)
    if status == NOT_FOUND:
        known = said.get("known")
        return NotFound(message, code=code, status=status, known=known if isinstance(known, list) else ())
    if status == TOO_LARGE or (status == REJECTED and code):
        faults = said.get("faults")
        # Where the fault lies in what was sent around the event, its place in the event is behind /event.
        place = {"pointer": faults[0].get("pointer", "").removeprefix("/event")} if faults else {}
        return rejection(said | place, index=0, status=status, event=event)
    if status >= 500:
        return OutcomeUnknown(message, code=code, status=status)
    return CallFailed(message, code=code, status=status)
