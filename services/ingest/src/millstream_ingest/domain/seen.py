"""Remembers which events were accepted lately, so that a retry is answered without being written again."""

from __future__ import annotations

from collections.abc import Iterable


class Seen:
    """Fingerprints in two generations: one that fills, and the one before it. Used from one event loop only.

    A fingerprint is remembered for at least `window` (microseconds) and at most twice as long, unless `most` others came after
    it: then the older half is forgotten earlier. 64 bits each, about 70 bytes of memory.
    """

    def __init__(self, *, window: int, most: int) -> None:
        self._window = window
        self._most = most // 2
        self._young: set[int] = set()
        self._old: set[int] = set()
        self._since: int | None = None
        self._now = 0

    def __contains__(self, fingerprint: int) -> bool:
        return fingerprint in self._young or fingerprint in self._old

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def forget(self, now: int) -> None:
        """Let go of what is older than the window; `now` is the wall clock."""
        self._now = now
        if self._since is None:
            self._since = now
        elif now - self._since >= self._window:
            # Nothing came for two windows: the young ones are as old as the old.
            self._old = self._young if now - self._since < 2 * self._window else set()
            self._young, self._since = set(), now

    def add(self, fingerprints: Iterable[int]) -> None:
        """Those of one write: so many more than `most` there may be."""
        if len(self._young) >= self._most:
            self._old, self._young, self._since = self._young, set(), self._now
        self._young.update(fingerprints)
