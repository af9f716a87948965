"""What serving says: one event a question."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

import msgspec

from millstream.contracts.event import Event, Scalar


class OtherAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer that was not given: a challenger's in the shadow, a champion's in the canary, a predecessor's on watch."""

    version: str
    role: str
    """`challenger`, `champion`, or `previous` (the champion before, while the new one is watched)."""
    output: dict[str, float] = {}
    """As `PredictionServed.output`; empty where it failed."""
    failure: str = ""
    """`raised`, `late` or `not_finite`; empty where it answered."""
    ms: float = 0.0
    """Its model time a question."""


class PredictionServed(Event, frozen=True, kw_only=True, omit_defaults=True):
    """A model answered a question: everything needed to judge the answer later, or to compute it again."""

    type_name: ClassVar[str] = "millstream.prediction.served.v1"

    id: str
    """Same question, same id, however often it is delivered."""
    loop: str
    question: str
    """Event id of the question."""
    key: str
    """Value of the loop's `label.by` field: the label finds its prediction by it."""
    asked_at: datetime
    """Known-at of the question: features are read as of this time."""
    version: str
    """Model version that answered."""
    variant: str
    """`champion` or `challenger`: who answered."""
    transport: str
    """`kafka`, `http` or `grpc`."""
    entities: dict[str, Scalar]
    inputs: dict[str, Scalar]
    features: dict[str, float | int | None]
    """Online features as read, or as they were `given`: `view__feature`."""
    output: dict[str, float]
    """As the task has it (`contracts.tasks`): `probability`, one entry a class, or `value`."""
    timings_ms: dict[str, float]
    stale_views: dict[str, float] = {}
    """View → seconds that it lagged behind the question, where that was more than the loop's bound. Left out when none did."""
    given: bool = False
    """The features came with the question: nothing was read, no window was counted, and skew has nothing to compare. Left out
    when they were read."""
    store_away: bool = False
    """The online store did not answer, and the loop says to answer without it: the features are null because nobody read them.
    Left out when they were read."""
    other: OtherAnswer | None = None
    """What the other model on trial said to the same question, from the same features. Left out where there is none."""
    fallback: str = ""
    """Why the champion answered although it was the challenger's turn: `raised`, `late` or `not_finite`. Else left out."""
    producer: str = ""
    """Who sent the question (`ce_source`), so that broken data names its sender. Left out where it was not over Kafka."""
    content: dict[str, str | list[float]] = {}
    """Texts and embeddings of the question that drift watches (`drift.text`, `drift.embedding`); no model reads them. Long
    ones are cut (`contracts.content`). Left out where the question has none."""


class QuestionUnanswered(Event, frozen=True, kw_only=True):
    """A question that no model could answer. It is not lost: labels still mature for it."""

    type_name: ClassVar[str] = "millstream.prediction.unanswered.v1"

    id: str
    loop: str
    question: str
    key: str
    asked_at: datetime
    reason: str
    """`no_model`, `model_failed`, `stale_features`."""
    transport: str
