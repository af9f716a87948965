"""A wish for a run, and what it may have to wait for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from millstream.contracts.events import Cause, GivenModel, WindowKind


@dataclass(frozen=True, kw_only=True)
class Ask:
    """Somebody or something asks for a retrain."""

    request: str
    loop: str
    cause: Cause
    at: int
    why: str
    version: str | None = None
    """The model version that a verdict is about."""
    broken: WindowKind | None = None
    """What is itself broken, where a verdict says that: no reason to learn, and learning from it is worse than waiting."""
    changed_at: datetime | None = None
    """Start of the first window that showed what a verdict detected."""
    given: GivenModel | None = None
    """The model that is to be judged; None: one is to be fitted."""
    asked_at: int | None = None
    """When it first asked, where it has waited since."""
    ripe: bool = False
    """It has waited for its labels."""

    @property
    def by_person(self) -> bool:
        return self.cause is Cause.MANUAL


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A request that is not decided yet. It is no event: whoever restarts hears the request again and waits again."""

    ask: Ask
    reason: str
    until: int
    """Stream time: the first verdict from then on decides it."""
    matured: int | None = None
    """Or as many matured labels, since the stream began; None: it does not wait for labels."""
