"""Quiet hours as people write them, `22:00-06:00`, and the time zone that they are meant in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

DAY_MINUTES = 24 * 60

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class QuietHours:
    """A stretch of every day, in minutes since its midnight; over midnight where `end` is before `begin`."""

    begin: int
    end: int

    def __str__(self) -> str:
        return "-".join(f"{minute // 60:02}:{minute % 60:02}" for minute in (self.begin, self.end))

    def minutes(self) -> set[int]:
        """Every minute of the day that it covers."""
        end = self.end + (DAY_MINUTES if self.end <= self.begin else 0)
        return {minute % DAY_MINUTES for minute in range(self.begin, end)}


def quiet_from_text(text: object) -> QuietHours:
    match = _HOURS.fullmatch(text) if isinstance(text, str) else None
    if match is None or match[1] + match[2] == match[3] + match[4]:
        raise ValueError(f"{text!r} is no stretch of a day; write it like 22:00-06:00")
    begin_hour, begin, end_hour, end = map(int, match.groups())
    return QuietHours(begin=begin_hour * 60 + begin, end=end_hour * 60 + end)


def _leave_some_time(hours: tuple[QuietHours, ...]) -> tuple[QuietHours, ...]:
    if len(set().union(*(one.minutes() for one in hours))) == DAY_MINUTES:
        raise ValueError("no minute of the day is left; write hours that end, like 22:00-06:00")
    return hours


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(
            f"{text[:60]!r} is no time zone of this machine; write one like UTC or Europe/Berlin"
        ) from error
    return text


QuietText = Annotated[
    QuietHours,
    BeforeValidator(quiet_from_text),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "pattern": _HOURS.pattern, "examples": ["22:00-06:00"]}),
]
QuietTexts = Annotated[tuple[QuietText, ...], Field(strict=False, max_length=10), AfterValidator(_leave_some_time)]
ZoneText = Annotated[str, AfterValidator(_zone)]
