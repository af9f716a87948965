"""What httpx gives, in this package's words."""

from __future__ import annotations

import httpx

from millstream.client.replies import Reply
from millstream.client.talk import Lost

NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.ProxyError)
"""Nobody had the request. Of everything else nobody knows."""
PATIENCE = 60.0
"""Seconds. A broker that goes away stalls acks for up to 12, a rolling restart of ingest takes some seconds."""
TIMEOUT = 30.0
"""Seconds of one try. Ingest itself waits 15 for Kafka, and then says that the outcome is unknown."""


def reply_of(response: httpx.Response) -> Reply:
    return Reply(
        status=response.status_code,
        body=response.content,
        headers={name.lower(): value for name, value in response.headers.items()},
    )


def lost(error: httpx.TransportError, *, sent: bool) -> Lost:
    return Lost(why=f"{type(error).__name__} {error}".strip(), sent=sent)
