"""Who answered when, as the states of the rollout tell."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from datetime import datetime
from itertools import accumulate

from millstream.contracts.events import ModelState, Step


class Answering:
    """The versions that questions were answered by, up to any moment of stream time.

    A step at that very moment is not taken yet: a run without a trial replaces a version at the time of the verdict on it.
    """

    def __init__(self, states: Iterable[ModelState]) -> None:
        """`states` by revision."""
        self._states = list(states)
        self._since = list(accumulate((one.at for one in self._states), max))

    @property
    def now(self) -> str | None:
        """The champion at the end of what is told; None: there is none yet."""
        state = self._states[-1] if self._states else None
        return None if state is None or state.champion is None else state.champion.version

    def champion(self, at: datetime) -> str | None:
        """None before the first model, and where nothing is told of that time any more."""
        state = self._until(at)
        return None if state is None or state.champion is None else state.champion.version

    def answers(self, version: str, at: datetime | None = None) -> bool:
        """Whether anybody is answered by it, be it a share of the entities only. None: at the end of what is told, where the
        benefit of the doubt is its own."""
        state = self._until(at) if at is not None else self._states[-1] if self._states else None
        if state is None:
            return at is None
        canary = state.challenger if state.step is Step.CANARY else None
        return version in [ref.version for ref in (state.champion, canary) if ref is not None]

    def _until(self, at: datetime) -> ModelState | None:
        place = bisect_left(self._since, at)
        return self._states[place - 1] if place else None
