"""One request and its answer on a connection: an answer that is whole leaves in one write."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle

_KNOWN = frozenset({b"content-type", b"content-length", b"date", b"server", b"retry-after"})
"""Headers that say nothing of how the connection goes on."""
LONGEST_HEAD = 512
"""Bytes of the values of a head that is remembered: of one second nearly all are alike."""


class Cycle(RequestResponseCycle):
    """uvicorn's, which writes head and body apart and looks at each header by regular expressions, for each answer anew.

    A head that says how long its body is waits for it, as ASGI allows; all but the plainest answers go uvicorn's way.
    """

    flow: FlowControl
    hears_out = False
    """Whether the connection ends with the body of a request that has been answered already."""
    _head: Any = None
    """The message that begins the answer, while it waits."""

    async def send(self, message: Any) -> None:
        head, begins = self._head, message["type"] == "http.response.start"
        if begins and not self.response_started and _says_its_length(message):
            self._head = message  # in place of one whose body never came, too: that is a 500
            return
        if head is None:
            await self._send(message)
            return
        self._head = None
        whole = None if begins or self.disconnected or self.flow.write_paused else self._whole(head, message)
        if whole is None:
            await self._send(head)
            await self._send(message)
            return
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.transport.write(whole)
        self.message_event.set()
        self.on_response()

    async def _send(self, message: Any) -> None:
        """uvicorn's way. It hangs up with the last byte on whoever asked for that; where bytes of theirs are then unread, the
        system resets the connection, and the client, who still sends, never sees why it was refused."""
        last = self.response_started and not message.get("more_body", False)
        if last and self.more_body and not self.keep_alive:
            self.hears_out = self.keep_alive = True
        await super().send(message)
        if self.hears_out and not self.more_body:
            self.transport.close()

    def _whole(self, head: Any, message: Any) -> bytes | None:
        """The answer's bytes; None where it is not the plainest: of known length, on a connection that stays."""
        body: bytes = message.get("body", b"")
        if message.get("more_body", False) or not self.keep_alive or self.access_log or self.scope["method"] == "HEAD":
            return None
        headers = (*self.default_headers, *head["headers"])
        if sum([len(value) for _, value in headers]) > LONGEST_HEAD:
            return None
        lines, size = _lines(head["status"], headers)
        return None if lines is None or size != len(body) else lines + body


def _says_its_length(head: Any) -> bool:
    """Whoever does not is about to speak for a while: its client may wait for the head."""
    return b"content-length" in [name for name, _ in head.get("headers", ())]


@lru_cache(maxsize=512)
def _lines(status: int, headers: tuple[tuple[bytes, bytes], ...]) -> tuple[bytes | None, int | None]:
    """A head as it is written, and the length that it says; None for one that uvicorn has to look at."""
    lines, size = [STATUS_LINE[status]], None
    for name, value in headers:
        if name not in _KNOWN or HEADER_VALUE_RE.search(value):
            return None, None
        if name == b"content-length":
            size = int(value) if value.isdigit() else None
        lines.append(b"%b: %b\r\n" % (name, value))
    return b"".join([*lines, b"\r\n"]), size
