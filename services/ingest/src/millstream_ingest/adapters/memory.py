"""EventLog in a list, for tests."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.contracts.envelope import INGEST
from millstream.errors import DeliveryUnknown
from millstream.runtime.publisher import Outgoing
from millstream_ingest.errors import LogAway


class MemoryLog:
    """Keeps what it is given; can be away, or take the entries and never confirm."""

    source = INGEST

    def __init__(self) -> None:
        self.entries: list[Outgoing] = []
        self.away = False
        self.silent = False

    async def append(self, entries: Sequence[Outgoing]) -> None:
        if self.away:
            raise LogAway("Kafka is not connected yet; nothing was sent")
        self.entries += entries
        if self.silent:
            raise DeliveryUnknown(f"Kafka did not confirm {len(entries)} records within 15 s: timeout")
