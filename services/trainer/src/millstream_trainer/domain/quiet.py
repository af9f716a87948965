"""Quiet hours: until when a moment of stream time has to wait."""

from __future__ import annotations

from datetime import timedelta

from millstream.contracts.times import from_datetime, to_datetime
from millstream_trainer.domain.rules import Rules

DAY_MINUTES = 24 * 60


def quiet_until(at: int, rules: Rules) -> int | None:
    """End of the quiet hours that `at` lies in, or None. By the wall clock of `rules.zone`, summer time and all."""
    until = None
    for _ in rules.quiet:  # one stretch may end inside another; each is passed once at most
        end = _end(at if until is None else until, rules)
        if end is None:
            break
        until = end
    return until


def _end(at: int, rules: Rules) -> int | None:
    local = to_datetime(at).astimezone(rules.zone)
    minute = local.hour * 60 + local.minute
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    for begin, end in rules.quiet:
        over_midnight = end <= begin
        if not (minute >= begin or minute < end if over_midnight else begin <= minute < end):
            continue
        days = 1 if over_midnight and minute >= begin else 0
        # Sums of local times are by the wall clock: the end stands where the clock shows it, however long the night was.
        ended = from_datetime((midnight + timedelta(days=days, minutes=end)).astimezone(to_datetime(0).tzinfo))
        return max(ended, at + 1)  # where the clock is set back, the same minute comes twice
    return None
