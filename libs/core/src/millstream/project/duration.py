"""Durations as people write them, `90m` or `1h30m`, as int microseconds in code."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema

from millstream.contracts.times import DAY, HOUR, MINUTE, SECOND

_UNITS = {"d": DAY, "h": HOUR, "m": MINUTE, "s": SECOND}
_SHAPE = r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?"
_DURATION = re.compile(_SHAPE, re.ASCII)
LONGEST = 36_500 * DAY
"""A century: anything longer is a slip of the keyboard, and sums of two must still fit int64 microseconds."""


def from_text(text: object) -> int:
    """Microseconds of a duration such as `30d`, `2h`, `90m`, `45s`, `1h30m` or `0s`. Raises ValueError with what to write."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None or not text:
        raise ValueError(
            f"{text!r} is no duration; write days, hours, minutes, seconds like 30d, 2h, 90m, 45s or 1h30m"
        )
    micros = sum(int(count) * unit for count, unit in zip(match.groups(), _UNITS.values(), strict=True) if count)
    if micros > LONGEST:
        raise ValueError(f"{text!r} is longer than a century; write at most {to_text(LONGEST)}")
    return micros


def to_text(micros: int) -> str:
    """The shortest text that `from_text` reads back. Raises ValueError for parts of a second, which files cannot say."""
    if micros < 0 or micros % SECOND:
        raise ValueError(f"{micros} microseconds are not whole seconds from zero up")
    parts = []
    for letter, unit in _UNITS.items():
        count, micros = divmod(micros, unit)
        if count:
            parts.append(f"{count}{letter}")
    return "".join(parts) or "0s"


def to_timedelta(micros: int) -> timedelta:
    return timedelta(microseconds=micros)


def _positive(micros: int) -> int:
    if micros == 0:
        raise ValueError("must be longer than zero; write a duration such as 1h")
    return micros


_WRITTEN: dict[str, Any] = {
    "type": "string",
    "pattern": "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$",
    "minLength": 2,
    "examples": ["30d", "1h30m"],
}
ZERO = {"pattern": "^[0dhms]*$"}
"""JSON Schema of the durations that are none."""

Duration = Annotated[int, BeforeValidator(from_text), PlainSerializer(to_text), WithJsonSchema(_WRITTEN)]
"""Field of a project file: text there, microseconds here. A bare number is refused, since nobody can see its unit."""

PositiveDuration = Annotated[
    int,
    BeforeValidator(from_text),
    AfterValidator(_positive),
    PlainSerializer(to_text),
    WithJsonSchema(_WRITTEN | {"not": ZERO}),
]
