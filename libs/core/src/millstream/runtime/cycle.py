"""One request and its answer on a connection: an answer that is whole leaves in one write."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle

_KNOWN = frozenset({b"content-type", b"content-length", b"date", b"server", b"retry-after"})
"""Headers that say nothing of how the connection goes on."""
LONGEST_LINE = 256
"""Bytes of a header that is remembered."""


class Cycle(RequestResponseCycle):
    """uvicorn's, which writes head and body apart and looks at each header by regular expressions, for each answer anew.

    A head that says how long its body is waits for it, as ASGI allows; all but the plainest answers go uvicorn's way.
    """

    flow: FlowControl
    _head: Any = None
    """The message that begins the answer, while it waits."""

    async def send(self, message: Any) -> None:
        head, begins = self._head, message["type"] == "http.response.start"
        if begins and not self.response_started and _says_its_length(message):
            self._head = message  # in place of one whose body never came, too: that is a 500
            return
        if head is None:
            await super().send(message)
            return
        self._head = None
        whole = None if begins or self.disconnected or self.flow.write_paused else self._whole(head, message)
        if whole is None:
            await super().send(head)
            await super().send(message)
            return
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.transport.write(whole)
        self.message_event.set()
        self.on_response()

    def _whole(self, head: Any, message: Any) -> bytes | None:
        """The answer's bytes; None where it is not the plainest: of known length, on a connection that stays."""
        body: bytes = message.get("body", b"")
        if message.get("more_body", False) or not self.keep_alive or self.access_log or self.scope["method"] == "HEAD":
            return None
        content, size = [STATUS_LINE[head["status"]]], None
        for headers in (self.default_headers, head.get("headers", ())):
            for name, value in headers:
                line = _line(name, value) if len(value) < LONGEST_LINE else None
                if line is None:
                    return None
                if name == b"content-length":
                    size = value
                content.append(line)
        if size != b"%d" % len(body):
            return None
        content += (b"\r\n", body)
        return b"".join(content)


def _says_its_length(head: Any) -> bool:
    """Whoever does not is about to speak for a while: its client may wait for the head."""
    return any(name == b"content-length" for name, _ in head.get("headers", ()))


@lru_cache(maxsize=512)
def _line(name: bytes, value: bytes) -> bytes | None:
    """A header as it is written; None for one that uvicorn has to look at."""
    if name not in _KNOWN or HEADER_VALUE_RE.search(value):
        return None
    return b"%b: %b\r\n" % (name, value)
