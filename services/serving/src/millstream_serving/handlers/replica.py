"""Says which model state this replica obeys: at each change, every half minute, and when it leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from millstream.contracts.envelope import derived_id
from millstream.contracts.events import ReplicaObeyed
from millstream.contracts.times import now, to_datetime
from millstream.contracts.topics import REPLICAS
from millstream.errors import DeliveryUnknown
from millstream.runtime.publisher import Outgoing, Publisher
from millstream_serving.domain.roster import Roster
from millstream_serving.handlers.loaded import Loaded

log = logging.getLogger(__name__)

EVERY = 30.0
"""Seconds between two words of a replica that has nothing new to say: whoever is silent for a few of them is gone."""
AGAIN = 1.0
"""Seconds until what Kafka did not confirm is said again. An outage is as long as it is: it holds nothing else up."""
LAST_WORDS = 2.0
"""Seconds that a stopping replica tries to say that it leaves."""
LONGEST_REASON = 2_000
"""Characters of a refusal: it quotes what libraries say."""


class Replica:
    """Runs beside the answers and never in their way. Reads the roster when it speaks, so it says what holds then."""

    def __init__(
        self,
        *,
        instance: str,
        roster: Roster[Loaded],
        publisher: Publisher,
        clock: Callable[[], int] = now,
        every: float = EVERY,
    ) -> None:
        self._instance = instance
        self._roster = roster
        self._publisher = publisher
        self._clock = clock
        self._every = every
        self._due: set[str] = set()
        self._news = asyncio.Event()

    def changed(self, loop: str) -> None:
        """A state of `loop` was obeyed or refused."""
        self._due.add(loop)
        self._news.set()

    async def run(self, known: asyncio.Event) -> None:
        """Speak until cancelled. Not before the models are `known`: that a replica reads them yet is nobody's concern."""
        await known.wait()
        self._due.update(self._roster.standings)
        while True:
            self._news.clear()
            due, self._due = self._due, set()
            try:
                await self._publisher.publish([self._said(loop) for loop in sorted(due)])
            except DeliveryUnknown as error:
                log.warning("which model state is obeyed could not be said: %s", error)
                self._due |= due
                await asyncio.sleep(AGAIN)
                continue
            try:
                async with asyncio.timeout(self._every):
                    await self._news.wait()
            except TimeoutError:
                self._due.update(self._roster.standings)

    async def leave(self) -> None:
        """Say goodbye for every loop; a replica that cannot is missed by its silence."""
        try:
            async with asyncio.timeout(LAST_WORDS):
                await self._publisher.publish([self._said(loop, leaving=True) for loop in self._loops()])
        except (DeliveryUnknown, TimeoutError) as error:
            log.warning("that this replica leaves could not be said: %s", error or "no confirmation in time")

    def _loops(self) -> Iterable[str]:
        return sorted(self._roster.standings)

    def _said(self, loop: str, leaving: bool = False) -> Outgoing:
        standing, at = self._roster.standing(loop), self._clock()
        refused = standing.refusal
        state = refused.state if refused else standing.state
        said = ReplicaObeyed(
            id=derived_id(loop, self._instance, str(at)),
            loop=loop,
            instance=self._instance,
            revision=standing.revision,
            version=standing.champion.ref.version if standing.champion else None,
            refused=refused.state.revision if refused else 0,
            refused_version=refused.version if refused else "",
            reason=refused.reason[:LONGEST_REASON] if refused else "",
            at=to_datetime(at),
            leaving=leaving,
        )
        return self._publisher.outgoing(
            REPLICAS.name, said, id=said.id, key=loop, caused_by=state.id if state else None
        )
