"""What features says of its own numbers."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

import msgspec

from millstream.contracts.event import Event
from millstream.contracts.verdict_events import Finding


class SkewedValue(msgspec.Struct, frozen=True, kw_only=True):
    """One feature of one prediction that is another number offline than the model was given."""

    prediction: str
    question: str
    asked_at: datetime
    feature: str
    """`view__feature`."""
    online: float | None
    offline: float | None


class ViewSkew(msgspec.Struct, frozen=True, kw_only=True):
    """What a window of checked predictions says of one view."""

    view: str
    checked: int
    """Values compared."""
    differing: int
    largest: float | None
    """Largest absolute difference; null where one side has no value and the other has."""


class SkewJudged(Event, frozen=True, kw_only=True):
    """Features that models were given differ from what the offline store says, more often than the loop allows (`detected`),
    or no longer (`cleared`). For people: no service acts on it."""

    type_name: ClassVar[str] = "millstream.skew.judged.v1"

    id: str
    loop: str
    finding: Finding
    reason: str
    at: datetime
    """Known-at of the newest question that was checked."""
    start: datetime
    end: datetime
    """Known-at of the oldest and the newest question in the window."""
    checked: int
    """Predictions in the window, which is a sample."""
    differing: int
    """Predictions with at least one feature further apart than the loop's tolerance."""
    bound: float
    """Share of them that the loop allows."""
    views: list[ViewSkew] = []
    worst: list[SkewedValue] = []
    """A few of the differences, the largest first."""
