"""Values of Python as JSON would have carried them."""

from __future__ import annotations

import base64
import datetime
import decimal
import math
import uuid
from collections.abc import Callable
from typing import Any

from millstream.contracts.times import from_datetime, to_rfc3339

_AS_THEY_ARE = frozenset({str, int, bool, type(None)})


def plain_event(event: dict[str, Any]) -> dict[str, Any]:
    """`event` with every value made plain, in place. Raises ValueError for a number that JSON has not."""
    for name, value in event.items():
        if (kind := type(value)) not in _AS_THEY_ARE:
            try:
                event[name] = _PLAIN[kind](value)
            except ValueError as error:
                raise ValueError(f"/{name}: {error}" if error.args[:1] == (_NO_NUMBER,) else str(error)) from None
    return event


_NO_NUMBER = "NaN and infinity are no numbers of JSON; send null where nothing is known"


def _number(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(_NO_NUMBER)
    return value


def _moment(value: datetime.datetime) -> str:
    # Without an offset it is a local time, which no instant can be told from.
    return value.isoformat() if value.tzinfo is None else to_rfc3339(from_datetime(value))


def _items(values: list[Any]) -> list[Any]:
    return [v if type(v) in _AS_THEY_ARE else _PLAIN[type(v)](v) for v in values]


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


_PLAIN: dict[type, Callable[[Any], Any]] = {
    float: _number,
    dict: plain_event,
    list: _items,
    datetime.datetime: _moment,
    datetime.date: datetime.date.isoformat,
    datetime.time: datetime.time.isoformat,
    decimal.Decimal: lambda value: _number(float(value)),
    uuid.UUID: str,
    bytes: _text,
}
