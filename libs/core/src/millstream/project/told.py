"""Labels by prediction id as a stream: who makes events of them and who keeps them read one schema."""

from __future__ import annotations

from millstream.contracts.topics import LABELS
from millstream.project.stream import Stream

TOLD = Stream.model_validate(
    {
        "stream": "labels",
        "description": LABELS.why,
        "key": "prediction_id",
        "id": "id",
        "time": "told_at",
        "schema": {
            "type": "object",
            "required": ["id", "loop", "prediction_id", "value", "told_at"],
            "properties": {
                "id": {"type": "string"},
                "loop": {"type": "string"},
                "prediction_id": {"type": "string"},
                "value": {"type": ["boolean", "number", "string"]},
                "told_at": {"type": "string", "format": "date-time"},
            },
        },
    }
).model_copy(update={"stream": LABELS.name})  # a name that no project may give
"""Labels by prediction id are events like others; what lies in their topic is a `LabelTold`."""
