"""Names that are legal everywhere they go: topics, metrics, Kubernetes objects, addresses, columns."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

STRICT = ConfigDict(
    frozen=True,
    extra="forbid",
    strict=True,
    allow_inf_nan=False,
    arbitrary_types_allowed=True,
    use_attribute_docstrings=True,
    validate_by_name=True,
    validate_by_alias=True,
    serialize_by_alias=True,
)
"""For every model of a project file: what is not understood is refused, never guessed."""

LONGEST = 100
"""Kafka allows 249 characters; our dead-letter topics append a group, Kubernetes stops at 253 for a whole address."""
NAME = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"
FIELD = r"^[A-Za-z_][A-Za-z0-9_]*$"


def _name(text: str) -> str:
    if len(text) > LONGEST or re.fullmatch(NAME, text) is None:
        raise ValueError(
            f"{text[:LONGEST]!r} is no name; write lowercase letters, digits and single dashes, like flights-departed"
        )
    return text


def _field(text: str) -> str:
    if len(text) > LONGEST or re.fullmatch(FIELD, text) is None:
        raise ValueError(
            f"{text[:LONGEST]!r} is no field name; write letters, digits and underscores, like departed_at"
        )
    return text


def _topic(text: str) -> str:
    if text.startswith("millstream-") or text.endswith(("-dlq", "-late")):
        raise ValueError(f"{text!r} is reserved; millstream-*, *-dlq and *-late are our own topics, write another name")
    return text


Name = Annotated[str, AfterValidator(_name), Field(json_schema_extra={"pattern": NAME, "maxLength": LONGEST})]
"""Of a loop. Dots and underscores would collide in metric names."""
TopicName = Annotated[Name, AfterValidator(_topic)]
"""Of a stream, which is the name of its topic."""
FieldName = Annotated[str, AfterValidator(_field), Field(json_schema_extra={"pattern": FIELD, "maxLength": LONGEST})]
"""Of an event's field: readable in label expressions and as a column of the lake."""
