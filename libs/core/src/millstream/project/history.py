"""How far back a model learns: `all`, `60d`, `since-change`, or a list of them that compete."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from millstream.project import duration

ALL = "all"
SINCE_CHANGE = "since-change"

Span = int | str
"""Microseconds back from the run's time, `all`, or `since-change`: from the window on which drift noticed a change."""
MOST = 10
"""Histories in a file: each is a fit of its own."""


def histories_from_text(value: object) -> tuple[Span, ...]:
    """Raises ValueError with what to write."""
    items = value if isinstance(value, list | tuple) else [value]
    if not items or len(items) > MOST:
        raise ValueError(f"{len(items)} histories; write 1 to {MOST}, like [all, 60d, since-change]")
    spans = [_span(item) for item in items]
    for position, span in enumerate(spans):
        if span in spans[:position]:
            raise ValueError(f"{span_to_text(span)!r} stands there twice; name it once")
    return tuple(spans)


def span_to_text(span: Span) -> str:
    return span if isinstance(span, str) else duration.to_text(span)


def histories_to_text(spans: tuple[Span, ...]) -> str | list[str]:
    texts = [span_to_text(span) for span in spans]
    return texts[0] if len(texts) == 1 else texts


def longest(spans: tuple[Span, ...]) -> int | None:
    """How far back rows must reach, microseconds; None: all of them (a change may lie as far back as it likes)."""
    known = [span for span in spans if isinstance(span, int)]
    return max(known) if len(known) == len(spans) else None


def _span(value: object) -> Span:
    if value in (ALL, SINCE_CHANGE):
        return str(value)
    if value is None:
        raise ValueError("null is neither all nor a choice; write all")
    try:
        micros = duration.from_text(value)
    except ValueError as error:
        raise ValueError(f"{value!r:.60} is no history; write all, a duration like 60d, or since-change") from error
    if micros == 0:
        raise ValueError("must be longer than zero; write a duration such as 60d")
    return micros


_ONE = {
    "type": "string",
    "pattern": f"^({ALL}|{SINCE_CHANGE}|([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?)$",
    "minLength": 2,
}

Histories = Annotated[
    tuple[Span, ...],
    BeforeValidator(histories_from_text),
    PlainSerializer(histories_to_text),
    WithJsonSchema({"anyOf": [_ONE, {"type": "array", "items": _ONE, "minItems": 1, "maxItems": MOST}]}),
]
