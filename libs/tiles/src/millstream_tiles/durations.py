"""Durations as people write them in yaml: "2h", "90m", "1d 12h"."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])\s*")


def parse_duration(text: str | timedelta) -> timedelta:
    """`text` as a timedelta. Raises ValueError with what to write instead."""
    if isinstance(text, timedelta):
        return text
    if not isinstance(text, str) or not text or _PART.sub("", text.strip()):
        raise ValueError(f"{text!r} is no duration; write it like '30s', '90m', '2h' or '1d 12h'")
    return timedelta(seconds=sum(float(n) * _UNITS[u] for n, u in _PART.findall(text)))


def micros(span: timedelta) -> int:
    """A timedelta in whole microseconds, exactly."""
    return span // timedelta(microseconds=1)
