"""Entity keys as text: how a key in an event and a key in a question come to be the same key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def key_text(value: Any) -> str | None:
    """The text by which one key value is compared, or None where there is no key.

    42, 42.0 and "42" are one key (Feast sends int64 where JSON had a double); booleans are "true" and "false", as in
    JSON. Null, NaN, lists and objects name no entity.
    """
    if isinstance(value, str):
        return value
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if value != value:
            return None
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if hasattr(value, "item"):  # a NumPy scalar
        return key_text(value.item())
    return None


def entity_text(values: Sequence[Any]) -> str | None:
    """The text of a whole (perhaps composite) entity key, parts joined by "|"; None if any part is missing."""
    if len(values) == 1:
        return key_text(values[0])
    parts = []
    for value in values:
        text = key_text(value)
        if text is None:
            return None
        parts.append(text.replace("%", "%25").replace("|", "%7C") if "%" in text or "|" in text else text)
    return "|".join(parts)
