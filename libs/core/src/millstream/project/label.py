"""What turned out to be true."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from millstream.project.duration import PositiveDuration
from millstream.project.expression import LabelValue, compile_label
from millstream.project.fields import text_of
from millstream.project.names import STRICT, FieldName, Name

ExpressionText = Annotated[
    LabelValue,
    BeforeValidator(compile_label),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "examples": ["arr_delay >= 15"]}),
]


class Label(BaseModel):
    """What turned out to be true, and how it finds its question."""

    model_config = STRICT

    stream: Annotated[Name, Field(alias="from")]
    """Stream whose events carry the outcome. Who knows the answer's id alone says the outcome by that, to ingest
    (`POST /v1/loops/{loop}/labels`); of both the first known counts."""
    by: FieldName
    """Field that question and outcome share."""
    value: ExpressionText
    """The label as an expression over the outcome's fields: true or false, a text or a number, as `model.task` has it. Null
    means that this event carries none."""
    within: PositiveDuration
    """How long after the question was known its outcome may be known. What is later is counted, not learned."""

    def key_of(self, event: Mapping[str, Any]) -> str:
        """What joins a question with its outcome; for events of either stream. Raises RejectEvent(`missing_field`)."""
        return text_of(event, self.by)
