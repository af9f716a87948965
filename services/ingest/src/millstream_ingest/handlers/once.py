"""Answers a request with an Idempotency-Key once: by itself in this replica, through a shared store among all."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from millstream.errors import Refusal
from millstream_ingest.domain.replies import Replies, Reply, same
from millstream_ingest.errors import RepliesAway
from millstream_ingest.ports import SharedReplies

LOOK_EVERY = 0.05
"""Seconds between looks for the answer that another replica is about to give; Kafka confirms in milliseconds."""

WAITING = 4
"""Retries of one key that wait for its first try. A client sends one after another; a crowd would hold the whole gate."""


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
        """`patience`: seconds that a retry waits for its first try, here or on another replica."""
        self._replies = replies
        self._shared = shared
        self._clock = clock
        self._patience = patience
        self._first_tries: dict[str, asyncio.Future[None]] = {}
        self._waiting: Counter[str] = Counter()

    async def answered(self, key: str, said: Sequence[bytes], work: Callable[[], Awaitable[Told]]) -> Told | Reply:
        """What `work` answers, or the Reply that an earlier request of this key got.

        `said`: all that the answer depends on; another request by the same key is a mistake of the client.
        Raises Refusal(`idempotency_mismatch`, `busy`) and whatever `work` raises.
        """
        asked = _fingerprint(said)
        while (first := self._first_tries.get(key)) is not None:
            await self._wait(key, first)
        if (reply := self._replies.find(key, self._clock())) is not None:
            return same(reply, asked)
        done = self._first_tries[key] = asyncio.get_running_loop().create_future()
        claim = secrets.token_bytes(8)
        try:
            if (reply := await self._elsewhere(key, claim)) is not None:
                return same(reply, asked)
            return await self._do(key, claim, asked, work)
        finally:
            del self._first_tries[key]
            done.set_result(None)

    async def _wait(self, key: str, first: asyncio.Future[None]) -> None:
        """Until the first try is over; not more than WAITING do. Raises Refusal(`busy`)."""
        if self._waiting[key] >= WAITING:
            raise _under_way()
        self._waiting[key] += 1
        try:
            await asyncio.wait([first], timeout=self._patience)
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key]
        if not first.done():
            raise _under_way()

    async def _do(self, key: str, claim: bytes, asked: bytes, work: Callable[[], Awaitable[Told]]) -> Told:
        kept = None
        try:
            told = await work()
            if told.done:
                kept = Reply(asked, told.status, told.body)
                self._replies.keep(key, kept, self._clock())
            return told
        finally:
            if self._shared is not None:
                await self._shared.settle(key, claim, kept)

    async def _elsewhere(self, key: str, claim: bytes) -> Reply | None:
        """The reply of another replica; None where this one is to do the work."""
        if self._shared is None:
            return None
        until = asyncio.get_running_loop().time() + self._patience
        try:
            while not await self._shared.claim(key, claim):
                if (reply := await self._shared.find(key)) is not None:
                    return reply
                if asyncio.get_running_loop().time() > until:
                    raise _under_way()
                await asyncio.sleep(LOOK_EVERY)
        except RepliesAway:
            return None
        return None


def _fingerprint(parts: Sequence[bytes]) -> bytes:
    made = hashlib.blake2b(digest_size=16)
    for part in parts:
        made.update(len(part).to_bytes(8, "big"))  # else a word could move from one part into the next
        made.update(part)
    return made.digest()


def _under_way() -> Refusal:
    return Refusal("busy", "a request with this Idempotency-Key is under way; try again in a moment")
