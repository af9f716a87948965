"""What ingest needs from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from millstream.contracts.envelope import Headers


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One accepted event on its way into its topic."""

    topic: str
    key: bytes
    value: bytes
    """Exactly what was checked, in the stream's format."""
    headers: Headers


class EventLog(Protocol):
    """Where accepted events are kept. Called by many requests at once; may wait, bounded, never block the loop."""

    @property
    def source(self) -> str:
        """`ce_source` of what goes through here."""
        ...

    async def append(self, entries: Sequence[Entry]) -> None:
        """Return when every in-sync replica has all `entries`; order is kept per (topic, key).

        Twice is harmless to readers: they know an event by its id.
        Raises LogAway (nothing was sent) or DeliveryUnknown (all, some or none of them may be there).
        """
        ...
