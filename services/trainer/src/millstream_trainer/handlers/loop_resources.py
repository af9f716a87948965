"""Keeps loop files and statuses as the MillstreamLoops of Kubernetes and the trainer's own state want them."""

from __future__ import annotations

import hashlib
import json
import logging
from asyncio import sleep
from collections.abc import Callable, Mapping

from millstream.contracts.times import now
from millstream.errors import RetryLater
from millstream_trainer.domain.loop_resource import Checked, files_of, status_of
from millstream_trainer.domain.state import LoopState
from millstream_trainer.errors import LoopsRefused
from millstream_trainer.ports import LoopCheck, LoopResources

log = logging.getLogger(__name__)

LOOK = 5
"""Seconds between two looks at what Kubernetes does not tell us: a champion, a verdict, a decision."""
PAUSE = 10.0
"""Seconds until what was refused is tried again."""


class LoopKeeper:
    """One task of the trainer. What it does twice changes nothing."""

    def __init__(
        self,
        *,
        resources: LoopResources,
        check: LoopCheck,
        states: Callable[[], Mapping[str, LoopState]],
        clock: Callable[[], int] = now,
        look: int = LOOK,
        pause: float = PAUSE,
    ) -> None:
        self._resources = resources
        self._check = check
        self._states = states
        self._clock = clock
        self._look = look
        self._pause = pause
        self._texts: dict[str, str] | None = None
        self._checked = Checked(loops={})
        self._mark = ""
        self._told = ""

    async def work(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.reconcile()
                await self._resources.wait(self._look)
                self._told = ""
            except (RetryLater, LoopsRefused) as error:
                if str(error) != self._told:
                    log.warning("loops as resources wait: %s", error)
                self._told = str(error)
                await sleep(self._pause)

    async def reconcile(self) -> None:
        """Once. Files first, then statuses, and the restarts last: one of them may be ours. Raises RetryLater, LoopsRefused."""
        found = await self._resources.loops()
        texts = {one.file: one.text for one in found}
        if texts != self._texts:
            self._checked = await self._check.check(texts)
            self._texts = texts
        held = await self._resources.held()
        files = files_of(found, self._checked, held)
        if files != held:
            await self._resources.keep(files)
            log.info("loops written", extra={"loops": sorted(files)})
        states = self._states()
        for one in found:
            status = status_of(one, self._checked, kept=one.file in files, state=states.get(one.name), at=self._clock())
            if status != one.status:
                await self._resources.say(one.name, status)
        mark = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]
        if mark != self._mark:
            await self._resources.restart(mark)
            self._mark = mark
