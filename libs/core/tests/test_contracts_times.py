"""Times go over the wire as RFC 3339 and come back as the same microsecond."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.contracts.times import DAY, HOUR, from_datetime, from_rfc3339, to_datetime, to_rfc3339

FIRST, LAST = from_rfc3339("0001-01-01T00:00:00Z"), from_rfc3339("9999-12-31T23:59:59.999999Z")


@given(st.integers(FIRST, LAST))
def test_every_microsecond_of_the_calendar_comes_back(micros: int) -> None:
    assert from_rfc3339(to_rfc3339(micros)) == micros
    assert from_datetime(to_datetime(micros)) == micros


def test_offsets_are_honoured() -> None:
    assert from_rfc3339("2013-01-01T05:17:00-05:00") == from_rfc3339("2013-01-01T10:17:00Z")
    assert from_rfc3339("1970-01-02T01:00:00Z") == DAY + HOUR


def test_whole_seconds_are_written_short() -> None:
    assert to_rfc3339(from_rfc3339("2013-01-01T10:17:00.000000+00:00")) == "2013-01-01T10:17:00Z"


@pytest.mark.parametrize(
    "text",
    [
        "2013-01-01T10:17:00",
        "2013-02-30T00:00:00Z",
        "noon",
        "",
        "0001-01-01T00:00:00+05:00",
        "9999-12-31T23:59:59-05:00",
    ],
)
def test_what_is_no_time_everywhere_is_refused(text: str) -> None:
    """The last two are legal where they were written, but no UTC calendar has them."""
    with pytest.raises(ValueError, match=r"."):
        from_rfc3339(text)
