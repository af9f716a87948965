"""Whether it is worth asking somebody who did not answer: not for a while, then one asks for all."""

from __future__ import annotations

from typing import Literal

State = Literal["closed", "open", "half_open"]


class Circuit:
    """Closed while it is well; open after `most` failures in a row; after `rest` seconds half open: one asks, and its luck
    decides (Nygard, Release It!). Times are seconds of a clock that never goes back.
    """

    def __init__(self, *, most: int, rest: float) -> None:
        self._most = most
        self._rest = rest
        self._failures = 0
        self._until: float | None = None
        """No question before then; None: closed."""
        self.since: float | None = None
        """When the first of its failures was; None: it is well."""

    def state(self, now: float) -> State:
        if self._until is None:
            return "closed"
        return "open" if now < self._until else "half_open"

    def may(self, now: float) -> bool:
        """Whether to ask now. Who is let through while it is half open asks for all others: they are not, for `rest`."""
        state = self.state(now)
        if state == "half_open":
            self._until = now + self._rest
        return state != "open"

    def answered(self) -> None:
        self._failures, self._until, self.since = 0, None, None

    def failed(self, now: float) -> None:
        self._failures += 1
        if self.since is None:
            self.since = now
        if self._failures >= self._most:
            self._until = now + self._rest
