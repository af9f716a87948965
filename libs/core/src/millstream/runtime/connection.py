"""An HTTP connection with an end to its patience: uvicorn waits for ever for a request's head, and for a client to read."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 10.0
"""For a request's first line and headers. A thousand clients that send a byte a minute would hold a thousand connections."""
UNREAD_SECONDS = 60.0
"""Without a byte read of what was written, beyond what the system holds. A line that is only slow reads some in a minute."""


class Connection(HttpToolsProtocol):
    """Cuts the line of who does not finish its head, or reads nothing of its answer. What a body may take, its door says."""

    _head: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for clock in (self._head, self._unread):
            if clock is not None:
                clock.cancel()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whether to stay: a client that has said all it wants to say still listens."""
        cycle = self.cycle
        return cycle is not None and not cycle.more_body and not cycle.response_complete

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        if self._head is not None:
            self._head.cancel()
        super().on_headers_complete()

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
        if self._head is not None:
            self._head.cancel()
        self._head = self.loop.call_later(HEAD_SECONDS, self.transport.abort)
