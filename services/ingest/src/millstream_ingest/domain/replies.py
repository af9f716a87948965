"""Remembers what requests with an Idempotency-Key were answered, so that a retry gets the same answer."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from millstream.errors import Refusal


class Reply(NamedTuple):
    """What the first try was, and what it was told."""

    asked: bytes
    """Fingerprint of what it said: the same key with another body is a mistake of the client."""
    status: int
    body: bytes


class Replies:
    """Replies by key, the newest `most` and no older than `window` (microseconds), at most `most_bytes` of them."""

    def __init__(self, *, window: int, most: int, most_bytes: int) -> None:
        self._window = window
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._replies: OrderedDict[str, tuple[int, Reply]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._replies)

    def find(self, key: str, now: int) -> Reply | None:
        self._trim(now)
        found = self._replies.get(key)
        return None if found is None else found[1]

    def keep(self, key: str, reply: Reply, now: int) -> None:
        """One that is larger than all may be together is not kept."""
        self._drop(key)
        if len(reply.body) <= self._most_bytes:
            self._replies[key] = (now, reply)
            self._bytes += len(reply.body)
        self._trim(now)

    def _trim(self, now: int) -> None:
        while self._replies:
            key, (since, _) = next(iter(self._replies.items()))
            if now - since < self._window and len(self._replies) <= self._most and self._bytes <= self._most_bytes:
                return
            self._drop(key)

    def _drop(self, key: str) -> None:
        if (found := self._replies.pop(key, None)) is not None:
            self._bytes -= len(found[1].body)


def same(reply: Reply, asked: bytes) -> Reply:
    """`reply`, if it is one to this request. Raises Refusal(`idempotency_mismatch`)."""
    if reply.asked != asked:
        raise Refusal(
            "idempotency_mismatch",
            "this Idempotency-Key came with another body, content type or query before; send a new key with a new request",
        )
    return reply
