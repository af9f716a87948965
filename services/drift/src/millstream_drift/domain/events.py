"""What the fold is fed: a question with its answer, or a label, each at its own stream time."""

from __future__ import annotations

import msgspec

from millstream.contracts.tasks import Truth

QUESTION, LABEL = 0, 1
"""At equal stream times questions come first: a label that is known when its question is asked still finds it."""

Cell = float | str | None
Contents = dict[str, bytes]
"""Field → its text in UTF-8, or its vector as float32."""


class Other(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What the other model on trial said to the same question."""

    version: str
    role: str
    """`challenger`, `champion` or `previous`, as serving says."""
    output: dict[str, float]
    """Empty where it failed."""
    failure: str
    """`raised`, `late` or `not_finite`; empty where it answered."""
    ms: float
    """Its model time."""


class Question(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=QUESTION):
    """A question that somebody asked, answered by a model or not."""

    time: int
    """Known-at of the question (microseconds)."""
    id: str
    """Id of the prediction event; a repeat of the answer repeats it."""
    key: str
    version: str | None
    """Model version whose windows it belongs to; None when no model answered or none can judge it."""
    output: dict[str, float]
    """As the loop's task has it; empty when no model answered."""
    row: tuple[Cell, ...]
    """One cell per column of the version's reference, in its order."""
    producer: str = ""
    """Who sent it; empty where nobody said."""
    slices: tuple[Cell, ...] = ()
    """Its values of the columns in `gate.slices`, in their order: a text or null."""
    ms: float = 0.0
    """Model time of the answer."""
    other: Other | None = None
    fallback: str = ""
    """Why the one whose turn it was did not answer; empty where it did."""
    contents: Contents = {}
    """Texts and embeddings that are watched."""

    @property
    def order(self) -> tuple[int, int, str]:
        return self.time, QUESTION, self.id


_PREDICTION = "\x00"
"""Begins the key of a label that names its prediction; no text field that joins question and outcome begins so."""


def by_prediction(id: str) -> str:
    """Key of a label for the one question that the prediction `id` answered."""
    return _PREDICTION + id


def prediction_of(key: str) -> str | None:
    """The prediction that a label's key names; None where it is a question's key."""
    return key[1:] if key.startswith(_PREDICTION) else None


class Label(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=LABEL):
    """An event of the loop's label stream."""

    time: int
    """Known-at (microseconds)."""
    id: str
    key: str
    """Of its question, or `by_prediction`."""
    value: Truth | None
    """As the task wants it: true or false, a number, the name of a class. None: this event carries no label (a
    diverted flight), it only moves the clock."""

    @property
    def order(self) -> tuple[int, int, str]:
        return self.time, LABEL, self.id


Heard = Question | Label
