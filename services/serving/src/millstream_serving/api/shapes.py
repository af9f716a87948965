"""What the answers of serving look like, as JSON Schema, for its documentation: the doors write bytes that no frame sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_VALUE: Schema = {"type": ["number", "string", "boolean", "null"]}


def _object(required: Mapping[str, Schema], **others: Schema) -> Schema:
    return {"type": "object", "required": [*required], "properties": {**required, **others}}


def _map(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


PREDICTED: Schema = _object(
    {
        "prediction_id": _TEXT,
        "loop": _TEXT,
        "question": _TEXT,
        "version": _TEXT,
        "variant": {"enum": ["champion", "challenger"]},
        "asked_at": {"type": "string", "format": "date-time"},
        "entities": _map(_VALUE),
        "inputs": _map(_VALUE),
        "features": _map(_VALUE),
        "timings_ms": _map(_NUMBER),
        "stale_views": _map({"type": ["number", "null"]}),
        "empty_views": _list(_TEXT),
        "store_away": {"type": "boolean"},
    },
    probability=_NUMBER,
    probabilities=_map(_NUMBER),
    value=_NUMBER,
    explanation={"type": ["object", "null"]},
    unexplained=_TEXT,
) | {"oneOf": [{"required": [name]} for name in ("probability", "probabilities", "value")]}
"""Of a question that was answered."""

INFERRED: Schema = _object(
    {
        "model_name": _TEXT,
        "model_version": _TEXT,
        "parameters": _map(_TEXT),
        "outputs": _list(
            _object(
                {"name": _TEXT, "datatype": _TEXT, "shape": _list({"type": "integer", "minimum": 0})},
                data=_list({}),
                parameters={"type": "object"},
            )
        ),
    },
    id=_TEXT,
)
"""Of the Open Inference Protocol's request."""
