"""Ends each promotion: when every live replica obeys it, or when the time for that is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from millstream_trainer.domain.replicas import ACKNOWLEDGED_WITHIN, Replicas
from millstream_trainer.domain.rollout import acknowledged
from millstream_trainer.handlers.journal import Journal

EVERY = 1.0
"""Seconds between two looks at promotions that nobody speaks of any more; a replica's word ends one at once."""

SOON = 0.05
"""Seconds between two looks of a trial that waits to begin: beside the run that led to it nobody notices."""


class Promotions:
    """That a promotion is under way stands in the model state, and so survives a restart; the time for it begins anew then."""

    def __init__(
        self, *, journal: Journal, replicas: Replicas, clock: Callable[[], int], show: Callable[[str], None]
    ) -> None:
        self._journal = journal
        self._replicas = replicas
        self._clock = clock
        self._show = show
        self._seen: dict[str, tuple[int, int]] = {}
        """Per loop the promotion's revision, and when it was first looked at."""

    def under_way(self, loop: str) -> bool:
        models = self._journal.states[loop].models
        return models is not None and models.promoting > 0

    async def done(self, loop: str) -> None:
        """Wait until none is under way; `look` ends each, or a person's word does."""
        while self.under_way(loop):  # noqa: ASYNC110
            await asyncio.sleep(SOON)

    async def look(self, loop: str) -> None:
        """End the loop's promotion, if there is one that has come to its end. The caller holds `writing`. Raises RetryLater."""
        await self._journal.settle(loop)
        state, now = self._journal.states[loop], self._clock()
        if state.models is None or state.last_move is None or not self.under_way(loop):
            self._seen.pop(loop, None)
            return
        revision, since = self._seen.get(loop, (0, now))
        if revision != state.models.promoting:
            since = now
            self._seen[loop] = (state.models.promoting, now)
        late = now - since >= ACKNOWLEDGED_WITHIN
        moved = acknowledged(state, self._replicas.live(loop, now), late=late)
        if moved is not None:
            await self._journal.move(moved, caused_by=state.last_move.id)

    async def work(self) -> None:
        """Look at every promotion now and then, until cancelled: replicas fall silent without a word."""
        while True:
            await asyncio.sleep(EVERY)
            for loop in filter(self.under_way, self._journal.states):
                async with self._journal.writing[loop]:
                    await self._journal.patiently(partial(self.look, loop))
                    self._show(loop)
