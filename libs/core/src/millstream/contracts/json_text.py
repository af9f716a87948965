"""JSON as it comes from outside: text in UTF-8, nested no deeper than whoever reads it later can follow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from millstream.errors import Refusal

DEEPEST = 64
"""Levels of arrays and objects. Readers of the topics recurse; half of what their parsers bear is plenty for an event."""

_anything = msgspec.json.Decoder().decode


def read_json(raw: bytes) -> Any:
    """The value in `raw`. Raises Refusal(`bad_json`, `invalid_utf8`, `too_deep`).

    NaN and Infinity are no JSON; numbers that no float can hold are refused; of a repeated name the last value counts.
    """
    try:
        value = _anything(raw)
    except RecursionError as error:
        raise _too_deep() from error
    except UnicodeDecodeError as error:
        raise Refusal(
            "invalid_utf8", f"not UTF-8: byte {error.start} of a text is {error.object[error.start]:#04x}"
        ) from error
    except msgspec.DecodeError as error:
        raise Refusal("bad_json", f"not JSON: {error}") from error
    # Most texts have too few brackets to be deep at all, and counting bytes costs next to nothing.
    if raw.count(b"[") + raw.count(b"{") > DEEPEST and _deeper_than(value, DEEPEST):
        raise _too_deep()
    return value


def pointer(path: Iterable[str | int]) -> str:
    """JSON Pointer (RFC 6901 section 3) to the value at `path`, cut where nobody reads on; empty is the whole value."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)[:300]


def _too_deep() -> Refusal:
    return Refusal("too_deep", f"nested deeper than {DEEPEST} levels", expected=f"at most {DEEPEST} levels")


def _deeper_than(value: Any, limit: int) -> bool:
    """Level by level, so that the check itself never recurses."""
    level: list[Any] = [value]
    for _ in range(limit):
        inner: list[Any] = []
        for one in level:
            if type(one) is dict:
                inner.extend(one.values())
            elif type(one) is list:
                inner.extend(one)
        level = [one for one in inner if type(one) in (dict, list)]
        if not level:
            return False
    return True
