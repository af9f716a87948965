"""Reads the bytes of one event: JSON text in UTF-8, an object, not nested too deeply."""

from __future__ import annotations

from typing import Any

import msgspec

from millstream.contracts.json_text import read_json
from millstream.errors import Refusal
from millstream_ingest.errors import BadEvent


def read_event(raw: bytes) -> dict[str, Any]:
    """The event in `raw`. Raises BadEvent(`bad_json`, `invalid_utf8`, `too_deep`, `not_an_object`)."""
    try:
        event: Any = read_json(raw)
    except Refusal as error:
        raise BadEvent(error.code, str(error), **error.more) from error
    if type(event) is not dict:
        several = "; several in an array go to /v1/streams/{stream}/batch" if type(event) is list else ""
        raise BadEvent("not_an_object", f"an event is a JSON object{several}", expected="object", got=shown(event))
    return event


def shown(value: object) -> str:
    """`value` as JSON for a message, cut where nobody reads on."""
    # Cut before encoding: the value may be a megabyte, or nested so that encoding it fails.
    if isinstance(value, str):
        return msgspec.json.encode(value[:100]).decode() + ("…" if len(value) > 100 else "")
    if isinstance(value, dict | list):
        return f"{'object' if isinstance(value, dict) else 'array'} of {len(value)}"
    return msgspec.json.encode(value).decode()[:100]
