"""Bounds what is under way at once, so that a flood is answered "later" instead of filling the memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from millstream.errors import Refusal


class Gate:
    """Counts requests and the bytes of their bodies. Used from one event loop only."""

    def __init__(self, *, requests: int, bytes: int) -> None:
        self._most_requests = requests
        self._most_bytes = bytes
        self._most_streams = max(1, requests // 2)
        """A stream may stay open for days and say little: the other half is for who comes and goes."""
        self.requests = 0
        self.streams = 0
        self.bytes = 0

    @contextmanager
    def enter(self) -> Iterator[Load]:
        """Hold a place for one request. Raises Refusal(`busy`) when all are taken."""
        if self.requests >= self._most_requests:
            raise Refusal("busy", f"{self.requests} requests are under way; try again in a moment")
        load = Load(self)
        self.requests += 1
        try:
            yield load
        finally:
            self.requests -= 1
            self.streams -= load.stream
            self.bytes -= load.bytes

    def stay(self) -> None:
        if self.streams >= self._most_streams:
            raise Refusal("busy", f"{self.streams} streams of lines are open; try again in a moment, or send batches")
        self.streams += 1

    def take(self, size: int) -> None:
        if self.bytes + size > self._most_bytes:
            raise Refusal("busy", f"{self.bytes} bytes of requests are under way; try again in a moment")
        self.bytes += size


class Load:
    """The bytes that one request holds."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.bytes = 0
        self.stream = False

    def stays(self) -> None:
        """It is a stream of lines. Raises Refusal(`busy`) where too many of them are open."""
        self._gate.stay()
        self.stream = True

    def add(self, size: int) -> None:
        """Account for `size` more bytes. Raises Refusal(`busy`)."""
        self._gate.take(size)
        self.bytes += size

    def give_back(self, size: int) -> None:
        """`size` bytes of it are done with."""
        self._gate.bytes -= size
        self.bytes -= size
