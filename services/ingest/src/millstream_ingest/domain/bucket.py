"""A token bucket: how much may come at once, and how soon again."""

from __future__ import annotations

from millstream.contracts.times import SECOND

_DUST = 1e-6
"""Tokens that rounding may cost: who waited as long as told is never told again."""


class Bucket:
    """`rate` tokens a second flow in, up to `capacity`. Times in microseconds, never backwards.

    What costs more than the bucket holds is let through when it is full, and leaves it below zero: nothing is too large for
    ever, and over any time T no more than capacity + rate · T goes through, but for what the last one has over the capacity.
    """

    __slots__ = ("_at", "_level", "capacity", "rate")

    def __init__(self, rate: float, capacity: float, now: int) -> None:
        self.rate = rate
        self.capacity = capacity
        self._level = capacity
        self._at = now

    def level(self, now: int) -> float:
        """Tokens in it; below zero they are owed."""
        if now > self._at:
            self._level = min(self.capacity, self._level + (now - self._at) * self.rate / SECOND)
            self._at = now
        return self._level

    def wait(self, cost: float, now: int) -> float:
        """Seconds until `cost` may be taken; 0 is now."""
        left = min(cost, self.capacity) - self.level(now)
        return left / self.rate if left > _DUST else 0.0

    def take(self, cost: float, now: int) -> None:
        self._level = self.level(now) - cost

    def set(self, level: float, now: int) -> None:
        """What others, who take from the same, know to be in it."""
        self._level, self._at = min(self.capacity, level), max(now, self._at)
