"""JSON as it comes from outside: text in UTF-8, nested no deeper than whoever reads it later can follow."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from millstream.errors import Refusal

DEEPEST = 64
"""Levels of arrays and objects. Readers of the topics recurse; half of what their parsers bear is plenty for an event."""

SHOWN = 20
"""Bytes of a text that a message shows from where it is wrong."""
_PLACE = re.compile(r"(?:JSON is malformed: )?(?P<why>.*) \(byte (?P<byte>\d+)\)")
_REMEDIES = {
    **dict.fromkeys(("NaN", "Infinity"), "write null for a number that is not known"),
    **dict.fromkeys(("None", "True", "False"), "JSON writes null, true and false"),
    "'": "names and texts stand in double quotes",
}
"""What it goes on with, and what to write instead."""

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
        raise Refusal("bad_json", f"not JSON: {_why(raw, str(error))}") from error
    # Most texts have too few brackets to be deep at all, and counting bytes costs next to nothing.
    if raw.count(b"[") + raw.count(b"{") > DEEPEST and _deeper_than(value, DEEPEST):
        raise _too_deep()
    return value


def pointer(path: Iterable[str | int]) -> str:
    """JSON Pointer (RFC 6901 section 3) to the value at `path`, cut where nobody reads on; empty is the whole value."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)[:300]


def _why(raw: bytes, said: str) -> str:
    """The parser's words, the place shown and not only counted, and what to write instead where that is known."""
    if not raw.strip():
        return "it is empty"
    if "truncated" in said:
        return "it ends before it is whole"
    if (place := _PLACE.fullmatch(said)) is None:
        return "a number is larger than any float" if "out of range" in said else said
    at = int(place["byte"])
    near = raw[at : at + SHOWN].decode("utf-8", "replace")
    remedy = next((f"; {remedy}" for begins, remedy in _REMEDIES.items() if near.startswith(begins)), "")
    return f"{place['why']} at byte {at}" + (f", where it goes on with {near!r}{remedy}" if near else "")


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
