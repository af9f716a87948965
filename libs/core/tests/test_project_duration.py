"""Durations: what people write, what code gets, what an error tells them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.contracts.times import DAY, HOUR, MINUTE, SECOND
from millstream.project import duration
from millstream.project.gate import Gate
from millstream.project.phrases import (
    Budget,
    Confirm,
    budget_from_text,
    confirm_from_text,
    percent_from_text,
    percent_to_text,
    share_from_text,
)
from millstream.project.rollout import Rollout


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("90m", 90 * MINUTE),
        ("2h", 2 * HOUR),
        ("30d", 30 * DAY),
        ("45s", 45 * SECOND),
        ("1h30m", 90 * MINUTE),
        ("1d2h3m4s", DAY + 2 * HOUR + 3 * MINUTE + 4 * SECOND),
        ("0s", 0),
    ],
)
def test_a_duration_is_read_as_microseconds(text: str, micros: int) -> None:
    assert duration.from_text(text) == micros


@pytest.mark.parametrize(
    "text", ["", "90", "m", "90 m", "30m1h", "1.5h", "-1h", "1h1h", "1w", "٣h", 90, None, 1.5, ["1h"]]
)
def test_what_is_no_duration_is_told_how_to_write_one(text: object) -> None:
    with pytest.raises(ValueError, match="write days, hours, minutes, seconds like 30d, 2h, 90m, 45s or 1h30m"):
        duration.from_text(text)


def test_a_thousand_years_is_a_slip_of_the_keyboard() -> None:
    with pytest.raises(ValueError, match="'365000d' is longer than a century; write at most 36500d"):
        duration.from_text("365000d")


@given(st.integers(0, duration.LONGEST // SECOND))
def test_what_is_written_is_read_back(seconds: int) -> None:
    text = duration.to_text(seconds * SECOND)
    assert duration.from_text(text) == seconds * SECOND
    assert duration.to_timedelta(duration.from_text(text)) == timedelta(seconds=seconds)


@pytest.mark.parametrize("micros", [-SECOND, 1, SECOND + 1])
def test_files_cannot_say_parts_of_a_second(micros: int) -> None:
    with pytest.raises(ValueError, match="not whole seconds"):
        duration.to_text(micros)


def test_phrases_are_read_as_they_are_spoken() -> None:
    assert confirm_from_text("2 of 3") == Confirm(agree=2, windows=3)
    assert budget_from_text("4 per 30d") == Budget(runs=4, period=30 * DAY)
    assert percent_from_text("5%") == 0.05
    assert (str(Confirm(agree=2, windows=3)), str(Budget(runs=4, period=30 * DAY))) == ("2 of 3", "4 per 30d")
    assert [percent_to_text(percent_from_text(text)) for text in ("5%", "2.5 %", "0%", "100%")] == [
        "5%",
        "2.5%",
        "0%",
        "100%",
    ]


def test_a_share_that_was_a_number_once_is_read_either_way() -> None:
    assert [share_from_text(text) for text in ("2%", "2.5 %", 0.02, 0, 1)] == [0.02, 0.025, 0.02, 0.0, 1.0]
    said = {"tolerance": "2%"}
    assert Rollout.model_validate(said).tolerance == Rollout.model_validate({"tolerance": 0.02}).tolerance == 0.02
    assert Gate.model_validate(said | {"slice_tolerance": "10%"}).model_dump()["slice_tolerance"] == "10%"
    for wrong in ("120%", 1.2):
        with pytest.raises(ValueError, match="less than or equal to 1"):
            Rollout.model_validate({"tolerance": wrong})


@pytest.mark.parametrize(
    ("read", "text", "says"),
    [
        (confirm_from_text, "two of three", "write it like 2 of 3"),
        (confirm_from_text, "3 of 2", "write the smaller number first"),
        (confirm_from_text, "0 of 2", "can never be true"),
        (budget_from_text, "4 a month", "write it like 4 per 30d"),
        (budget_from_text, "0 per 30d", "allows no run at all"),
        (budget_from_text, "4 per month", "is no duration"),
        (percent_from_text, "0.05", "write it like 5%"),
        (percent_from_text, 0.05, "write it like 5%"),
        (share_from_text, "0.02", "write it like 2%, or as a number like 0.02"),
        (share_from_text, True, "write it like 2%"),
    ],
)
def test_a_garbled_phrase_is_told_how_to_say_it(read: object, text: object, says: str) -> None:
    assert callable(read)
    with pytest.raises(ValueError, match=says):
        read(text)
