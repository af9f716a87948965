"""Small phrases of project files that read like speech: `2 of 3`, `4 per 30d`, `5%`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from millstream.project import duration

_CONFIRM = re.compile(r"(\d{1,3}) of (\d{1,3})", re.ASCII)
_BUDGET = re.compile(r"(\d{1,6}) per (\S{1,40})", re.ASCII)
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)\s?%", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Confirm:
    """`2 of 3`: as many of the last windows must agree before a suspicion is a detection."""

    agree: int
    windows: int

    def __str__(self) -> str:
        return f"{self.agree} of {self.windows}"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """`4 per 30d`: at most so many runs in any such stretch of stream time."""

    runs: int
    period: int
    """Microseconds."""

    def __str__(self) -> str:
        return f"{self.runs} per {duration.to_text(self.period)}"


def confirm_from_text(text: object) -> Confirm:
    match = _CONFIRM.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} does not say how many windows must agree; write it like 2 of 3")
    agree, windows = int(match[1]), int(match[2])
    if not 1 <= agree <= windows:
        raise ValueError(f"{text!r} can never be true; write the smaller number first, like 2 of 3")
    return Confirm(agree=agree, windows=windows)


def budget_from_text(text: object) -> Budget:
    match = _BUDGET.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is no budget; write it like 4 per 30d")
    period = duration.from_text(match[2])
    if int(match[1]) == 0 or period == 0:
        raise ValueError(f"{text!r} allows no run at all; write it like 4 per 30d")
    return Budget(runs=int(match[1]), period=period)


def percent_from_text(text: object) -> float:
    match = _PERCENT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is no percentage; write it like 5%")
    return float(match[1]) / 100


def share_from_text(text: object) -> float:
    """A percentage, or the share itself as a number: 2% and 0.02 are one."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        return float(text)
    match = _PERCENT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is no share; write it like 2%, or as a number like 0.02")
    return float(match[1]) / 100


def percent_to_text(share: float) -> str:
    return f"{share * 100:.6f}".rstrip("0").rstrip(".") + "%"


ConfirmText = Annotated[
    Confirm,
    BeforeValidator(confirm_from_text),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "pattern": "^\\d+ of \\d+$", "examples": ["2 of 3"]}),
]
BudgetText = Annotated[
    Budget,
    BeforeValidator(budget_from_text),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "pattern": "^\\d+ per \\S+$", "examples": ["4 per 30d"]}),
]
PercentText = Annotated[
    float,
    BeforeValidator(percent_from_text),
    PlainSerializer(percent_to_text),
    WithJsonSchema({"type": "string", "pattern": "^\\d+(\\.\\d+)? ?%$", "examples": ["5%"]}),
]
ShareText = Annotated[
    float,
    BeforeValidator(share_from_text),
    PlainSerializer(percent_to_text),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": "^\\d+(\\.\\d+)? ?%$"},
                {"type": "number", "minimum": 0, "maximum": 1},
            ],
            "examples": ["2%", 0.02],
        }
    ),
]
"""Of fields that were plain numbers once: both are taken."""
