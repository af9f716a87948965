"""Rates as people write them, `1000/s` or `5MB/s`, as numbers a second in code."""

from __future__ import annotations

import re

_UNITS = {
    "": 1,
    "k": 1_000,
    "kB": 1_000,
    "MB": 1_000_000,
    "GB": 1_000_000_000,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
}
_SPANS = {"s": 1, "min": 60, "h": 3600}
_RATE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)(|k|kB|MB|GB|KiB|MiB|GiB)/(s|min|h)", re.ASCII)


def rate_of(text: str) -> float:
    """How many a second. Raises ValueError with what to write."""
    match = _RATE.fullmatch(text.strip())
    if match is None or not float(match[1]):
        raise ValueError(f"{text[:40]!r} is no rate; write it like 1000/s or 5MB/s (also KiB, MiB, GB; /min, /h)")
    return float(match[1]) * _UNITS[match[2]] / _SPANS[match[3]]
