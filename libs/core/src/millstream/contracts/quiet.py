"""Quiet hours: which moments of stream time lie in them, and when they end.

Trainer holds requests until then, and drift says its count of labels at each end, so that a verdict comes at that moment:
both must mean the same by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from millstream.contracts.times import MINUTE, from_datetime, to_datetime


@dataclass(frozen=True, kw_only=True)
class Quiet:
    """Stretches of every day by the clock on a wall in `zone`, summer time and all. Without any nothing is quiet."""

    hours: tuple[tuple[int, int], ...] = ()
    """From and to, in minutes since midnight; over midnight where the end is not after the beginning. They leave some time."""
    zone: tzinfo = UTC

    def holds(self, at: int) -> bool:
        local = to_datetime(at).astimezone(self.zone)
        minute = local.hour * 60 + local.minute
        return any(
            begin <= minute < end if begin < end else minute >= begin or minute < end for begin, end in self.hours
        )

    def next_end(self, at: int) -> int | None:
        """The first moment after `at` at which a stretch ends and no other lasts; None where there are none."""
        if not self.hours:
            return None
        midnight = self._clock(at).replace(hour=0, minute=0, second=0, microsecond=0)
        # A second day is looked at because a first may lack the hour, or be left out.
        ends = {
            moment
            for days in range(3)
            for _, end in self.hours
            for moment in self._showing(midnight + timedelta(days=days, minutes=end))
        }
        return min(end for end in ends if end > at and not self.holds(end))

    def _clock(self, at: int) -> datetime:
        """What the clock on the wall shows, without its zone."""
        return to_datetime(at).astimezone(self.zone).replace(tzinfo=None)

    def _showing(self, wall: datetime) -> Iterator[int]:
        """When the clock comes to show `wall`: twice where it is set back, and where it is set forward over it, then."""
        for fold in (0, 1):
            at = from_datetime(wall.replace(tzinfo=self.zone, fold=fold))
            if self._clock(at) < wall:
                continue  # of a time that is left out, read with what holds after it
            while self._clock(at - MINUTE) >= wall:
                at -= MINUTE
            yield at

    def until(self, at: int) -> int | None:
        """The end of the quiet hours that `at` lies in; None where it lies in none."""
        return self.next_end(at) if self.holds(at) else None


NEVER = Quiet()
