"""Reads the bytes of one event: JSON text in UTF-8, an object, not nested too deeply."""

from __future__ import annotations

from typing import Any

import msgspec

from millstream_ingest.errors import BadEvent

DEEPEST = 64
"""Levels of arrays and objects. Readers of the topic recurse; half of what their parsers bear is plenty for an event."""

_DECODER = msgspec.json.Decoder()


def read_event(raw: bytes) -> dict[str, Any]:
    """The event in `raw`. Raises BadEvent(`bad_json`, `invalid_utf8`, `too_deep`, `not_an_object`).

    NaN and Infinity are no JSON; numbers that no float can hold are refused; of a repeated name the last value counts.
    """
    try:
        event = _DECODER.decode(raw)
    except RecursionError as error:
        raise _too_deep() from error
    except UnicodeDecodeError as error:
        raise BadEvent(
            "invalid_utf8", f"not UTF-8: byte {error.start} of a text is {error.object[error.start]:#04x}"
        ) from error
    except msgspec.DecodeError as error:
        raise BadEvent("bad_json", f"not JSON: {error}") from error
    if type(event) is not dict:
        raise BadEvent("not_an_object", "an event is a JSON object", expected="object", got=shown(event))
    if _deeper_than(event, DEEPEST):
        raise _too_deep()
    return event


def shown(value: object) -> str:
    """`value` as JSON for a message, cut where nobody reads on."""
    # Cut before encoding: the value may be a megabyte, or nested so that encoding it fails.
    if isinstance(value, str):
        return msgspec.json.encode(value[:100]).decode() + ("…" if len(value) > 100 else "")
    if isinstance(value, dict | list):
        return f"{'object' if isinstance(value, dict) else 'array'} of {len(value)}"
    return msgspec.json.encode(value).decode()[:100]


def _too_deep() -> BadEvent:
    return BadEvent("too_deep", f"nested deeper than {DEEPEST} levels", expected=f"at most {DEEPEST} levels")


def _deeper_than(event: dict[str, Any], limit: int) -> bool:
    """Level by level, so that the check itself never recurses."""
    level: list[Any] = [event]
    for _ in range(limit):
        inner: list[Any] = []
        for value in level:
            if type(value) is dict:
                inner.extend(value.values())
            elif type(value) is list:
                inner.extend(value)
        level = [value for value in inner if type(value) in (dict, list)]
        if not level:
            return False
    return True
