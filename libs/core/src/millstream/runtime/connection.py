"""An HTTP connection with an end to its patience: uvicorn waits for ever for a request's head, and for a client to read.

A request that comes in one piece costs no timer: uvicorn's own sets one for each and cancels it.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from millstream.runtime.cycle import Cycle

HEAD_SECONDS = 10.0
"""For a request's first line and headers. A thousand clients that send a byte a minute would hold a thousand connections."""
UNREAD_SECONDS = 60.0
"""Without a byte read of what was written, beyond what the system holds. A line that is only slow reads some in a minute."""

NO_HTTP = b"""{"error":"bad_http","message":"no HTTP/1.1 request; see to its first line, its headers and its length"}"""


class Connection(HttpToolsProtocol):
    """Cuts the line of who does not finish its head, or reads nothing of its answer. What a body may take, its door says."""

    _head: asyncio.TimerHandle | None = None
    _heading = False
    """Whether a head has begun and is not whole yet."""
    _unread: asyncio.TimerHandle | None = None
    _idle: asyncio.TimerHandle | None = None
    _idle_since: float | None = None
    """When the last answer was given; None while there is a request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for clock in (self._head, self._unread, self._idle):
            if clock is not None:
                clock.cancel()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._heading and self._head is None:
            self._expect_head()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whether to stay: a client that has said all it wants to say still listens."""
        cycle = self.cycle
        return cycle is not None and not cycle.more_body and not cycle.response_complete

    def send_400_response(self, msg: str) -> None:
        """What cannot be read as HTTP at all, in the one shape that refusals have; the connection ends with it."""
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[400] + head % len(NO_HTTP) + NO_HTTP)
        self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._heading = True
        self._idle_since = None  # not with any byte: empty lines, or the rest of a refused body, are no request

    def on_headers_complete(self) -> None:
        self._heading = False
        if self._head is not None:
            self._head.cancel()
            self._head = None
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            self.cycle.__class__ = Cycle  # uvicorn has no place to name it; its task begins in the loop's next turn

    def on_message_complete(self) -> None:
        super().on_message_complete()
        cycle = self.cycle
        if isinstance(cycle, Cycle) and cycle.hears_out and cycle.response_complete:
            self.transport.close()

    def on_response_complete(self) -> None:
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._idle_since = None if self._heading else self.loop.time()  # a head that has begun has a clock of its own
        if self._idle is None:
            self._idle = self.loop.call_later(self.timeout_keep_alive, self._look_at_idle)

    def _look_at_idle(self) -> None:
        self._idle = None
        if self._idle_since is None:
            return  # its answer sets the next clock
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._idle = self.loop.call_later(left, self._look_at_idle)
        else:
            self.timeout_keep_alive_handler()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def _expect_reading(self) -> None:
        self._unread = self.loop.call_later(UNREAD_SECONDS, self._look, self.transport.get_write_buffer_size())

    def _look(self, before: int) -> None:
        # Resumed is only who has read nearly everything: a slow line with a long answer reads on meanwhile.
        if self.transport.get_write_buffer_size() >= before:
            self.transport.abort()
        else:
            self._expect_reading()

    def _expect_head(self) -> None:
        self._head = self.loop.call_later(HEAD_SECONDS, self.transport.abort)
