"""Makes the requests: where they go, and the id that stays the same however often one is tried."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import msgspec

from millstream.client.errors import EventRejected
from millstream.client.talk import Ask

JSON, NDJSON = "application/json", "application/x-ndjson"
KEY_VARIABLE = "MILLSTREAM_KEY"
"""Environment variable with the key of who gives none."""
Token = str | Callable[[], str]
"""A token, or what gives one that is good now: tokens expire."""
SOURCE = "millstream/client"
"""`ce_source` of events that are given an id here."""


class Requests:
    """Knows a mill's addresses and the caller's key."""

    def __init__(self, url: str, *, key: str | None, token: Token | None, serving: str | None) -> None:
        for given in (url, serving):
            if given is not None and not given.startswith(("http://", "https://")):
                raise ValueError(f"{given!r} is no address; write it like http://localhost:8101")
        if key is not None and token is not None:
            raise ValueError("give a key or a token, not both")
        if key is None and token is None:
            key = os.environ.get(KEY_VARIABLE) or None
        self._ingest = url.rstrip("/")
        self._serving = (serving or url).rstrip("/")
        self._token = token if token is not None else key
        if isinstance(self._token, str):
            _plain(self._token)

    def event(self, stream: str, event: Any, id: str | None) -> Ask:
        """Raises EventRejected(`not_json`)."""
        headers = self._once(JSON)
        if id is not None:
            headers |= {
                "ce-specversion": "1.0",
                "ce-id": quote(id, safe="!#$&'()*+,/:;=?@[]"),
                "ce-source": SOURCE,
                "ce-type": f"stream.{stream}.v1",
            }
        return self._ingest_ask(f"streams/{_part(stream)}/events", headers, encoded(event))

    def batch(self, stream: str, lines: Sequence[bytes]) -> Ask:
        return self._ingest_ask(f"streams/{_part(stream)}/batch", self._once(NDJSON), b"\n".join(lines))

    def label(self, loop: str, question: Mapping[str, Any], value: Any, at: datetime | None) -> Ask:
        """`question`: its `key`, or the `prediction_id` of its answer. Raises EventRejected(`not_json`)."""
        # The time is given here, so that every try says the same.
        said = {**question, "value": value, "at": at or datetime.now(UTC)}
        return self._ingest_ask(f"loops/{_part(loop)}/labels", self._once(JSON), encoded(said))

    def question(self, loop: str, event: Any) -> Ask:
        """Raises EventRejected(`not_json`)."""
        url = f"{self._serving}/v1/loops/{_part(loop)}/predict"
        content = b'{"event":%b}' % encoded(event)
        return Ask(method="POST", url=url, headers={"content-type": JSON}, content=content, credential=self._credential)

    def _ingest_ask(self, path: str, headers: Mapping[str, str], content: bytes) -> Ask:
        url = f"{self._ingest}/v1/{path}"
        return Ask(method="POST", url=url, headers=headers, content=content, credential=self._credential)

    def _once(self, kind: str) -> dict[str, str]:
        return {"content-type": kind, "idempotency-key": uuid.uuid4().hex}

    def _credential(self) -> dict[str, str]:
        said = self._token
        if said is None:
            return {}
        return {"authorization": f"Bearer {said if isinstance(said, str) else _plain(said())}"}


def encoded(event: Any, index: int = 0) -> bytes:
    """An event in JSON, on one line: a dict, a dataclass, a msgspec Struct. Times are written as RFC 3339, NaN as null.

    Raises EventRejected(`not_json`).
    """
    try:
        return msgspec.json.encode(event)
    except (TypeError, ValueError, RecursionError) as error:
        raise EventRejected(f"no JSON can say it: {error}", code="not_json", index=index, event=event) from error


def _plain(credential: str) -> str:
    if not (credential.isascii() and credential.isprintable() and credential.strip() == credential != ""):
        # It is not shown itself: messages end up in logs.
        raise ValueError("the key or token has a blank or no plain character in it; give it as the mill showed it")
    return credential


def _part(name: str) -> str:
    return quote(name, safe="")
