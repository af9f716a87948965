"""In which traces events were said: what an event leads to days later, or after a restart, is linked to it."""

from __future__ import annotations

from collections import OrderedDict

MOST = 10_000
"""Events that are known, of some 200 bytes each: ten years of one loop's decisions. An older cause gives no link."""


class Causes:
    """By event id. Filled from what is read and what is said; only who writes traces has anything to know."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._traces: OrderedDict[str, str] = OrderedDict()

    def learn(self, id: str, traceparent: str | None) -> None:
        if traceparent is None:
            return
        self._traces[id] = traceparent
        self._traces.move_to_end(id)
        if len(self._traces) > self._most:
            self._traces.popitem(last=False)

    def of(self, id: str) -> str | None:
        """Traceparent of the event; None where it is not known, or was in no trace."""
        return self._traces.get(id)
