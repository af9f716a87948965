"""Who may write: the keys of producers, and what people did with them. No secret is in any of it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from millstream.contracts.event import Event


class KeyState(Event, frozen=True, kw_only=True):
    """An API key as it stands; the last record of the compacted topic holds."""

    type_name: ClassVar[str] = "millstream.key.state.v1"

    id: str
    key: str
    """The key's id: the middle part of what the producer was shown."""
    name: str
    streams: tuple[str, ...]
    """What it may write; `*` is every stream."""
    digest: str
    """SHA-256 of the whole key as it was shown, in hex."""
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    events_per_second: float | None = None
    """None: what ingest gives every producer."""
    bytes_per_second: float | None = None


class KeyAction(StrEnum):
    CREATED = "created"
    REVOKED = "revoked"


class KeyChanged(Event, frozen=True, kw_only=True):
    """Somebody made a key or took one back."""

    type_name: ClassVar[str] = "millstream.key.changed.v1"

    id: str
    key: str
    name: str
    action: KeyAction
    by: str
    at: datetime
    streams: tuple[str, ...]
    expires_at: datetime | None = None
    limits: dict[str, float] = {}
    """`events_per_second`, `bytes_per_second`, where the key has its own."""
