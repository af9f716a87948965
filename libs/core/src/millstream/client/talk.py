"""One request until it is settled, without any I/O: says what to send and how long to wait, and is told what came.

Both clients drive the same talk, so they try again alike: with the same bytes and the same Idempotency-Key, after what
`Retry-After` says and no sooner, with jitter, and not for ever.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from millstream.client.errors import OutcomeUnknown, Throttled, Unavailable
from millstream.client.replies import Reply

T = TypeVar("T")

THROTTLED = 429
LATER = (408, THROTTLED, 502, 503, 504)
"""What is tried again. 408: the body was too slow to be read. 502 and 504 are of a proxy, which does not know what became of
the request."""
NOT_TAKEN = ("busy", "unavailable", "no_model", "model_failed", "stale_features", "overloaded", "not_logged")
"""The mill's own codes of a 503 that say that nothing was taken, ingest's and serving's."""
FIRST, CEILING = 0.1, 10.0
"""Seconds before the second try, and at most before any, where the mill does not say; the wait doubles."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """A request to send, now."""

    method: str
    url: str
    headers: Mapping[str, str]
    content: bytes
    credential: Callable[[], Mapping[str, str]] = dict
    """The headers that say who asks. Called for each try: a token may expire between two."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do for so long."""

    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """No answer came."""

    why: str
    sent: bool
    """Whether the mill may have the request."""


Talk = Generator[Ask | Wait, Reply | Lost | None, T]


def settle(ask: Ask, patience: float) -> Talk[Reply]:
    """Ask until the mill has decided. `patience`: seconds after which no further try begins.

    Raises Unavailable, or OutcomeUnknown where one of the tries may have got through.
    """
    until = time.monotonic() + patience
    unknown, tries = False, 0
    while True:
        heard = yield replace(ask, headers={**ask.headers, **ask.credential()})
        tries += 1
        if isinstance(heard, Reply) and heard.status not in LATER:
            return heard
        assert heard is not None, "an Ask is answered"
        unknown = unknown or _may_have_it(heard)
        delay = _delay(heard, tries)
        if time.monotonic() + delay > until:
            raise _gave_up(ask, heard, tries, unknown)
        yield Wait(delay)


def _may_have_it(heard: Reply | Lost) -> bool:
    if isinstance(heard, Lost):
        return heard.sent
    said = heard.said()
    # A 503 of a proxy may follow on a request that it passed on; ours names one of our own codes.
    foreign = heard.status in (502, 504) or (heard.status == 503 and said.get("error") not in NOT_TAKEN)
    return foreign or said.get("outcome") == "unknown"


def _delay(heard: Reply | Lost, tries: int) -> float:
    """Seconds. Jitter comes on top of what the mill asks for: clients that were refused together come back apart."""
    own = min(CEILING, FIRST * 2.0 ** min(tries - 1, 10))
    if isinstance(heard, Reply) and (asked := _asked_for(heard)) is not None:
        return asked + random.uniform(0.0, max(0.1, 0.25 * asked))
    return own * random.uniform(0.5, 1.0)


def _asked_for(heard: Reply) -> float | None:
    said = heard.headers.get("retry-after", "")
    return float(said) if said.isdecimal() and len(said) < 6 else None


def _gave_up(ask: Ask, heard: Reply | Lost, tries: int, unknown: bool) -> Unavailable:
    if isinstance(heard, Lost):
        why, code, status = heard.why, "", 0
    else:
        said, status = heard.said(), heard.status
        why, code = str(said.get("message") or f"HTTP status {status}"), str(said.get("error", ""))
    times = f"{tries} tries" if tries > 1 else "one try"
    if unknown:
        message = f"{ask.url}: nobody knows whether it got through, after {times}: {why}; sent again it is harmless"
        return OutcomeUnknown(message, code=code, status=status)
    message = f"{ask.url}: nothing was taken, after {times}: {why}"
    if isinstance(heard, Reply) and status == THROTTLED:
        return Throttled(message, code=code, status=status, retry_after=_asked_for(heard) or 0.0)
    return Unavailable(message, code=code, status=status)
