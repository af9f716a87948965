"""What the fold is fed: a question with its answer, or a label, each at its own stream time."""

from __future__ import annotations

import msgspec

QUESTION, LABEL = 0, 1
"""At equal stream times questions come first: a label that is known when its question is asked still finds it."""

Cell = float | str | None


class Question(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=QUESTION):
    """A question that somebody asked, answered by a model or not."""

    time: int
    """Known-at of the question (microseconds)."""
    id: str
    """Id of the prediction event; a repeat of the answer repeats it."""
    key: str
    version: str | None
    """Model version whose windows it belongs to; None when no model answered or none can judge it."""
    probability: float
    row: tuple[Cell, ...]
    """One cell per column of the version's reference, in its order."""

    @property
    def order(self) -> tuple[int, int, str]:
        return self.time, QUESTION, self.id


class Label(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=LABEL):
    """An event of the loop's label stream."""

    time: int
    """Known-at (microseconds)."""
    id: str
    key: str
    value: bool | None
    """None: this event carries no label (a diverted flight), it only moves the clock."""

    @property
    def order(self) -> tuple[int, int, str]:
        return self.time, LABEL, self.id


Heard = Question | Label
