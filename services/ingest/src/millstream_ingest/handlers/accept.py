"""Accepts events: the good ones into the log together, each once, and of every one is said what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import nullcontext

from millstream.errors import DeliveryUnknown
from millstream.runtime.publisher import Outgoing
from millstream_ingest.domain.bodies import OVERLONG
from millstream_ingest.domain.cloudevents import Origin
from millstream_ingest.domain.result import Fault, Result
from millstream_ingest.domain.seen import Seen
from millstream_ingest.errors import BadEvent
from millstream_ingest.handlers.admission import Admits, Admitted, Arrival
from millstream_ingest.ports import EventLog

BREATH = 500
"""Events checked before others get a turn: some milliseconds, so a large batch does not hold up the probes."""

Open = Callable[[bytes], tuple[bytes, Origin | None]]
"""Takes an event out of what it came in. Raises BadEvent."""


class Checked:
    """Events that were checked and those of them that have to be written."""

    __slots__ = ("after", "done", "entries", "fingerprints", "rejected", "results")

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.rejected: list[str] = []
        """Their codes."""
        self.entries: list[Outgoing] = []
        self.fingerprints: list[int] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Set when the entries are in the log, or are not."""
        self.after: set[asyncio.Future[None]] = set()
        """Other requests' writes of the same events: what becomes of them becomes of ours."""


class Acceptor:
    """Checks and writes; one per process, used by many requests at once."""

    def __init__(self, log: EventLog, seen: Seen) -> None:
        self._log = log
        self._seen = seen
        self._large = asyncio.Lock()
        """Large batches are checked one after another: taking turns they would all end at once, and the core wait for Kafka."""
        self._writing: dict[int, asyncio.Future[None]] = {}
        """By fingerprint, what is on its way: a retry that overtakes its first try waits for it."""

    async def one(self, door: Admits, raw: bytes, arrival: Arrival, origin: Origin | None) -> tuple[Admitted, bool]:
        """Accept one event, and whether an earlier request had it. Raises BadEvent, LogAway, DeliveryUnknown."""
        admitted = door.admit(raw, arrival, origin)
        self._seen.forget(arrival.now)
        checked = Checked()
        replayed = not self._claim(checked, admitted, arrival.producer)
        await self.write(checked)
        return admitted, replayed

    async def many(self, door: Admits, raws: Sequence[bytes], arrival: Arrival, open: Open | None) -> list[Result]:
        """Accept what is good, and say of each what became of it, in order. Raises LogAway, DeliveryUnknown."""
        checked = Checked()
        try:
            async with self._large if len(raws) > BREATH else nullcontext():
                for first in range(0, len(raws), BREATH):
                    self.check(checked, door, raws[first : first + BREATH], arrival, first=first, open=open)
                    await asyncio.sleep(0)
        except BaseException:
            self._settle(checked, DeliveryUnknown("the first try was given up"))
            raise
        await self.write(checked)
        return checked.results

    def check(
        self,
        checked: Checked,
        door: Admits,
        raws: Sequence[bytes],
        arrival: Arrival,
        *,
        first: int,
        open: Open | None,
    ) -> None:
        """Check `raws`, the first of which has the index `first`. `write` has to follow."""
        self._seen.forget(arrival.now)
        origin = None
        for index, raw in enumerate(raws, first):
            try:
                if raw is OVERLONG:
                    raise BadEvent("too_large", "a line that is longer than any event may be")
                if open is not None:
                    raw, origin = open(raw)
                admitted = door.admit(raw, arrival, origin)
            except BadEvent as error:
                checked.rejected.append(error.reason)
                checked.results.append(Result(index=index, status="rejected", error=Fault.of(error)))
            else:
                checked.results.append(Result(index=index, status="accepted", id=admitted.id))
                self._claim(checked, admitted, arrival.producer)

    async def write(self, checked: Checked) -> None:
        """Return when all good ones are in the log.

        What is confirmed is remembered; an outcome that is unknown, or none, leaves the next try a first one. Raises LogAway,
        DeliveryUnknown.
        """
        if checked.entries:
            try:
                await self._log.append(checked.entries)
            except Exception as error:
                self._settle(checked, error)
                raise
            except BaseException:
                self._settle(checked, DeliveryUnknown("the first try was given up"))
                raise
            self._settle(checked, None)
        for other in checked.after:
            await asyncio.shield(other)

    def _claim(self, checked: Checked, admitted: Admitted, producer: str) -> bool:
        """Whether the event is new, and so `checked` has to write it. Nobody is told what another producer sent."""
        entry = admitted.entry
        fingerprint = hash((producer, entry.topic, admitted.identity, entry.value))
        if fingerprint in self._seen:
            return False
        if (other := self._writing.get(fingerprint)) is not None:
            if other is not checked.done:
                checked.after.add(other)
            return False
        self._writing[fingerprint] = checked.done
        checked.fingerprints.append(fingerprint)
        checked.entries.append(entry)
        return True

    def _settle(self, checked: Checked, error: Exception | None) -> None:
        for fingerprint in checked.fingerprints:
            del self._writing[fingerprint]
        if error is None:
            self._seen.add(checked.fingerprints)
            checked.done.set_result(None)
        else:
            checked.done.set_exception(error)
            # Looked at, so that a failure that nobody else waits for is not reported as forgotten.
            checked.done.exception()
