"""Room for the bodies of the requests under way: bounded together, and who sends slowly gives way where others need it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from millstream.errors import Refusal

UNDISTURBED = 2.0
"""Seconds in which a body may come whatever others need: 16 MiB at 8 MiB/s. Whoever takes longer keeps only what is spare,
so to keep others out takes a line that fills the room every two seconds."""


class Room:
    """For `most` bytes. Used from one event loop only."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.held = 0
        self._coming: dict[Held, None] = {}
        """Bodies that come in pieces, of which more is to come; the one that began first is first."""

    def take(self, size: int, by: Held) -> None:
        """Raises Refusal(`busy`) where there is no room for `size` bytes, and nobody to give way to `by`."""
        while self.held + size > self._most:
            slowest = next(iter(self._coming), by)
            if slowest is by or not slowest.gives_way():
                raise Refusal("busy", f"{self.held} bytes of requests are under way; try again in a moment")
            self.leaves(slowest)
        self.held += size

    def comes(self, body: Held) -> None:
        self._coming[body] = None

    def leaves(self, body: Held) -> None:
        """It comes no more: it is whole, or given up."""
        self._coming.pop(body, None)


class Held:
    """The bytes that one request holds."""

    __slots__ = ("_deadline", "_gone", "_room", "_since", "bytes")

    def __init__(self, room: Room) -> None:
        self._room = room
        self._gone = False
        self.bytes = 0

    def add(self, size: int) -> None:
        """`size` more bytes. Raises Refusal(`busy`)."""
        if self._gone:
            raise _gave_way()
        self._room.take(size, self)
        self.bytes += size

    def give_back(self, size: int) -> None:
        """`size` bytes of it are done with."""
        self._room.held -= size
        self.bytes -= size

    def leave(self) -> None:
        """All of it."""
        self.give_back(self.bytes)

    @asynccontextmanager
    async def coming(self, seconds: float) -> AsyncIterator[None]:
        """While a body comes in pieces. Raises TimeoutError after `seconds`, Refusal(`busy`) where it has to give way."""
        self._since = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(seconds) as self._deadline:
                self._room.comes(self)
                yield
        except TimeoutError as error:
            if self._gone:
                raise _gave_way() from error
            raise
        finally:
            self._room.leaves(self)

    def gives_way(self) -> bool:
        """Whether it does: its bytes are free then, and whoever waits for more of it is told so in the loop's next turn."""
        now = asyncio.get_running_loop().time()
        if now - self._since < UNDISTURBED:
            return False
        if not self._deadline.expired():
            self._deadline.reschedule(now)
        self._gone = True
        self.leave()
        return True


def _gave_way() -> Refusal:
    return Refusal("busy", "the body came slowly, and others needed its room; try again in a moment")
