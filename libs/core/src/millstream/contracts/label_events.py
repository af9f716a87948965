"""What turned out to be true of a prediction, said by who knows the prediction and not its question."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from millstream.contracts.event import Event


class LabelTold(Event, frozen=True, kw_only=True):
    """The truth about one prediction. Drift judges the prediction by it, and a model learns from it where the question is an
    event of the loop's stream: the id of a prediction is a hash of loop and question."""

    type_name: ClassVar[str] = "millstream.label.told.v1"

    id: str
    """The same for the same truth about the same prediction, however often it is said."""
    loop: str
    prediction_id: str
    """`PredictionServed.id`."""
    value: bool | int | float | str
    """The label itself, as the loop's task has it."""
    told_at: datetime
    """When it turned out."""
