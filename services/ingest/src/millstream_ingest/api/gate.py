"""Bounds what is under way at once, so that a flood is answered "later" instead of filling the memory."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from millstream.errors import Refusal
from millstream.runtime.room import Held, Room


class Gate:
    """Counts requests and the bytes of their bodies. Used from one event loop only."""

    def __init__(self, *, requests: int, bytes: int) -> None:
        self.most_requests = requests
        self.most_streams = max(1, requests // 2)
        """A stream may stay open for days and say little: the other half is for who comes and goes."""
        self.most_stream_bytes = bytes // 2
        """Nor do lines that never end, or results that nobody reads, fill more than that of the room."""
        self.room = Room(bytes)
        self.requests = 0
        self.streams = 0
        self.stream_bytes = 0


class Load(Held):
    """What one request holds: bytes from the first one on, and a place once there is work to do."""

    __slots__ = ("_gate", "_place", "_stream")

    def __init__(self, gate: Gate) -> None:
        super().__init__(gate.room)
        self._gate = gate
        self._place = self._stream = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.leave()
        self._gate.requests -= self._place
        self._gate.streams -= self._stream

    def begins(self) -> None:
        """Its body is whole: who sends slowly, or nothing at all, has no place. Raises Refusal(`busy`) when all are taken."""
        if self._gate.requests >= self._gate.most_requests:
            raise Refusal("busy", f"{self._gate.requests} requests are under way; try again in a moment")
        self._gate.requests += 1
        self._place = True

    def stays(self) -> None:
        """It is a stream of lines. Raises Refusal(`busy`) where too many of them are open."""
        if self._gate.streams >= self._gate.most_streams:
            raise Refusal(
                "busy", f"{self._gate.streams} streams of lines are open; try again in a moment, or send batches"
            )
        self.begins()
        self._gate.streams += 1
        self._stream = True

    def add(self, size: int) -> None:
        if self._stream and self._gate.stream_bytes + size > self._gate.most_stream_bytes:
            raise Refusal("busy", f"{self._gate.stream_bytes} bytes of streams are under way; try again in a moment")
        super().add(size)
        self._gate.stream_bytes += size * self._stream

    def give_back(self, size: int) -> None:
        super().give_back(size)
        self._gate.stream_bytes -= size * self._stream
