"""Reads the head of a request, from the raw headers: the framework's own objects cost more than the check of an event."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from starlette.requests import Request
from starlette.types import Scope

from millstream.errors import Refusal
from millstream.runtime import http
from millstream.runtime.tracing import valid_traceparent
from millstream_ingest.domain.cloudevents import Origin, binary

ENCODINGS = ("gzip", "zstd")
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_JSON = http.JSON.encode()


class Asked(NamedTuple):
    """What a request says before its body."""

    media_type: str
    length: int | None
    encoding: str = ""
    """One of ENCODINGS; empty is plain."""
    known_at: int | None = None
    traceparent: str | None = None
    key: str | None = None
    """Idempotency-Key."""
    origin: Origin | None = None
    """Of a CloudEvent in binary mode."""


def asked(scope: Scope, kinds: Collection[str], *, trust_known_at: bool) -> Asked:
    """`kinds` has JSON.

    Raises Refusal(`media_type`, `content_encoding`, `known_at_not_trusted`, `invalid_known_at`, `invalid_idempotency_key`,
    `bad_cloudevent`).
    """
    headers: Mapping[bytes, bytes] = dict(scope["headers"])
    said = headers.get(b"content-length", b"")
    length = int(said) if said.isdigit() and len(said) < 20 else None
    encoding = ""
    if headers.get(b"content-type") == _JSON and b"content-encoding" not in headers:
        media_type = http.JSON
    else:
        media_type = http.media_type(Request(scope), kinds, ENCODINGS)
        encoding = headers.get(b"content-encoding", b"identity").decode("latin-1").lower()
    origin = None
    if b"ce-specversion" in headers and media_type == http.JSON:
        origin = binary(headers)
    return Asked(
        media_type,
        length,
        "" if encoding == "identity" else encoding,
        http.known_at(Request(scope), trust_known_at) if b"ce-knownat" in headers else None,
        valid_traceparent(headers.get(b"traceparent")),
        _key(headers[b"idempotency-key"]) if b"idempotency-key" in headers else None,
        origin,
    )


def _key(raw: bytes) -> str:
    key = raw.decode("latin-1")
    if not _KEY.fullmatch(key):
        raise Refusal("invalid_idempotency_key", "Idempotency-Key is 1 to 255 printable ASCII characters, e.g. a UUID")
    return key
