"""Quiet hours are by the clock on the wall, in winter and in summer, and in the nights between."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.contracts.quiet import Quiet
from millstream.contracts.times import DAY, MINUTE, from_rfc3339, to_rfc3339

NEW_YORK, LORD_HOWE, BERLIN = ZoneInfo("America/New_York"), ZoneInfo("Australia/Lord_Howe"), ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("zone", "at", "until"),
    [
        ("UTC", "2013-06-01T12:00:00Z", None),
        ("UTC", "2013-06-01T22:00:00Z", "2013-06-02T08:00:00Z"),
        ("UTC", "2013-06-02T05:59:59Z", "2013-06-02T08:00:00Z"),
        ("UTC", "2013-06-02T08:00:00Z", None),
        ("America/New_York", "2013-06-02T01:00:00Z", None),
        ("America/New_York", "2013-06-02T02:00:00Z", "2013-06-02T12:00:00Z"),
        # The clocks went forward on 10 March and back on 3 November.
        ("America/New_York", "2013-03-10T04:00:00Z", "2013-03-10T12:00:00Z"),
        ("America/New_York", "2013-11-03T04:00:00Z", "2013-11-03T13:00:00Z"),
    ],
)
def test_quiet_hours_are_by_the_clock_on_the_wall(zone: str, at: str, until: str | None) -> None:
    quiet = Quiet(hours=((22 * 60, 6 * 60), (5 * 60, 8 * 60)), zone=ZoneInfo(zone))
    found = quiet.until(from_rfc3339(at))
    assert (None if found is None else to_rfc3339(found)) == until


def test_a_stretch_that_the_clock_shows_twice_ends_twice() -> None:
    """New York, 3 November 2013: half past one comes in summer time, and an hour later again."""
    quiet = Quiet(hours=((60, 90),), zone=NEW_YORK)
    first = quiet.until(from_rfc3339("2013-11-03T05:00:00Z"))
    assert first is not None
    assert to_rfc3339(first) == "2013-11-03T05:30:00Z"
    again = quiet.until(from_rfc3339("2013-11-03T06:10:00Z"))
    assert again is not None
    assert to_rfc3339(again) == "2013-11-03T06:30:00Z"


def test_an_end_that_spring_leaves_out_is_where_the_clock_is_set_forward() -> None:
    """Berlin, 31 March 2024: after 02:00 comes 03:00. Nothing is quiet then, so nobody waits until 03:30."""
    quiet = Quiet(hours=((22 * 60, 2 * 60 + 30),), zone=BERLIN)
    ends = {quiet.until(from_rfc3339(at)) for at in ("2024-03-30T22:00:00Z", "2024-03-31T00:59:00Z")}
    assert ends == {from_rfc3339("2024-03-31T01:00:00Z")}
    assert quiet.next_end(from_rfc3339("2024-03-31T01:00:00Z")) == from_rfc3339("2024-04-01T00:30:00Z")


def test_quiet_hours_end_in_a_bounded_time_at_every_minute_of_a_year_with_summer_time() -> None:
    quiet = Quiet(hours=((60, 90), (120, 180), (1380, 30)), zone=NEW_YORK)
    for at in range(0, 365 * DAY, 7 * MINUTE):
        until = quiet.until(at)
        assert until is None or at < until <= at + 3 * 60 * MINUTE


def _leaves_time(hours: list[tuple[int, int]]) -> bool:
    return any(not Quiet(hours=tuple(hours)).holds(minute * MINUTE) for minute in range(24 * 60))


STRETCHES = st.tuples(st.integers(0, 1439), st.integers(0, 1439)).filter(lambda one: one[0] != one[1])


@given(
    hours=st.lists(STRETCHES, min_size=1, max_size=4).filter(_leaves_time),
    zone=st.sampled_from([NEW_YORK, LORD_HOWE, BERLIN]),
    at=st.integers(from_rfc3339("2013-01-01T00:00:00Z"), from_rfc3339("2014-01-01T00:00:00Z")),
)
def test_whoever_goes_from_end_to_end_meets_the_end_of_every_wait(
    hours: list[tuple[int, int]], zone: ZoneInfo, at: int
) -> None:
    """As drift counts labels at each end, and trainer waits for one of them."""
    quiet = Quiet(hours=tuple(hours), zone=zone)
    end = quiet.next_end(at)
    assert end is not None
    assert at < end <= at + 3 * DAY
    assert not quiet.holds(end)
    assert quiet.until(at) is None or quiet.holds(end - 1), "nobody waits on when it is quiet no more"
    for moment in range(at, end, (end - at) // 20 + 1):
        assert quiet.next_end(moment) == end
        assert quiet.until(moment) in (None, end)


def test_without_quiet_hours_nothing_is_quiet_and_nothing_ends() -> None:
    at = from_rfc3339("2013-06-01T00:00:00Z")
    assert (Quiet().holds(at), Quiet().next_end(at), Quiet().until(at)) == (False, None, None)
