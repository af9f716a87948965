"""A loop's label: an expression over one event, whose failures go the way of every bad event."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from millstream.errors import RejectEvent
from millstream_expression import Expression, NotComputable, Value, compile_expression


class LabelValue(Expression):
    """The label's value; call it with an event."""

    def __call__(self, event: Mapping[str, Any]) -> Value:
        """Its value; None: the event carries no label.

        Raises RejectEvent(`invalid_label`) when a field holds what cannot be compared or computed.
        """
        try:
            return super().__call__(event)
        except NotComputable as error:
            raise RejectEvent("invalid_label", str(error)) from error

    def __reduce__(self) -> tuple[Callable[[str], LabelValue], tuple[str]]:
        return compile_label, (self.text,)


def compile_label(text: object) -> LabelValue:
    """Compile `text`. Raises BadExpression with the column and what is allowed."""
    compiled = compile_expression(text)
    return LabelValue(**{part.name: getattr(compiled, part.name) for part in fields(compiled)})
