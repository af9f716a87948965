"""Reads single fields of an event as keys and ids; 5,000 times a second, so nothing is looked up twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from millstream.errors import RejectEvent


def text_of(event: Mapping[str, Any], name: str) -> str:
    """Field `name` as the text that keys and ids are made of. Raises RejectEvent(`missing_field`) without one.

    5 and 5.0 are the same JSON number and both integers to a schema, so both give `5`: one entity, one key.
    """
    value = event.get(name)
    if type(value) is str and value:
        return value
    if type(value) is int:
        return str(value)
    if type(value) is float and value.is_integer():
        return str(int(value))
    raise RejectEvent(
        "missing_field", f"{name} is {value!r:.60}; a key or id is a text that is not empty, or a whole number"
    )
