"""Answers a request with an Idempotency-Key once: by itself in this replica, through a shared store among all."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Protocol

from millstream.errors import Refusal
from millstream_ingest.domain.replies import Replies, Reply, same
from millstream_ingest.errors import RepliesAway
from millstream_ingest.ports import SharedReplies

LOOK_EVERY = 0.05
"""Seconds between looks for the answer that another replica is about to give; Kafka confirms in milliseconds."""


class Told(Protocol):
    """An answer."""

    @property
    def status(self) -> int: ...
    @property
    def body(self) -> bytes: ...
    @property
    def done(self) -> bool:
        """Whether a retry gets the same."""
        ...


class Once:
    """Used by many requests at once. Without `shared`, or while that is away, a retry at another replica is a first try."""

    def __init__(
        self, replies: Replies, shared: SharedReplies | None, *, clock: Callable[[], int], patience: float
    ) -> None:
        """`patience`: seconds that a retry waits for its first try on another replica."""
        self._replies = replies
        self._shared = shared
        self._clock = clock
        self._patience = patience
        self._first_tries: dict[str, asyncio.Future[None]] = {}

    async def answered(self, key: str, body: bytes, work: Callable[[], Awaitable[Told]]) -> Told | Reply:
        """What `work` answers, or the Reply that an earlier request of this key got.

        Raises Refusal(`idempotency_mismatch`, `busy`) and whatever `work` raises.
        """
        asked = hashlib.blake2b(body, digest_size=16).digest()
        while (first := self._first_tries.get(key)) is not None:
            await asyncio.shield(first)
        if (reply := self._replies.find(key, self._clock())) is not None:
            return same(reply, asked)
        done = self._first_tries[key] = asyncio.get_running_loop().create_future()
        try:
            if (reply := await self._elsewhere(key)) is not None:
                return same(reply, asked)
            return await self._do(key, asked, work)
        finally:
            del self._first_tries[key]
            done.set_result(None)

    async def _do(self, key: str, asked: bytes, work: Callable[[], Awaitable[Told]]) -> Told:
        kept = None
        try:
            told = await work()
            if told.done:
                kept = Reply(asked, told.status, told.body)
                self._replies.keep(key, kept, self._clock())
            return told
        finally:
            if self._shared is not None:
                await self._shared.settle(key, kept)

    async def _elsewhere(self, key: str) -> Reply | None:
        """The reply of another replica; None where this one is to do the work."""
        if self._shared is None:
            return None
        until = asyncio.get_running_loop().time() + self._patience
        try:
            while not await self._shared.claim(key):
                if (reply := await self._shared.find(key)) is not None:
                    return reply
                if asyncio.get_running_loop().time() > until:
                    raise Refusal("busy", "a request with this Idempotency-Key is under way; try again in a moment")
                await asyncio.sleep(LOOK_EVERY)
        except RepliesAway:
            return None
        return None
