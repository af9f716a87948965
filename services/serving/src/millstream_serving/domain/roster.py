"""Who answers for each loop: the newest model state that this replica could obey, and what it had to refuse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from millstream.contracts.events import ModelState

C = TypeVar("C")
"""A loaded champion; the roster only passes it on."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A model state that could not be obeyed."""

    state: ModelState
    reason: str


@dataclass(frozen=True, kw_only=True)
class Standing(Generic[C]):
    """Where one loop stands. Replaced whole, so a reader sees one state and never half of two."""

    state: ModelState | None = None
    """The newest state that was obeyed."""
    champion: C | None = None
    refusal: Refusal | None = None
    """Set while a newer state than `state` was heard and could not be obeyed."""

    @property
    def revision(self) -> int:
        """Revision obeyed; 0 before the first."""
        return self.state.revision if self.state else 0

    @property
    def heard(self) -> int:
        """Newest revision heard of, obeyed or refused."""
        return max(self.revision, self.refusal.state.revision if self.refusal else 0)


class Roster(Generic[C]):
    """The standing of every loop of the project."""

    def __init__(self, loops: Iterable[str]) -> None:
        self._standings: dict[str, Standing[C]] = {loop: Standing() for loop in loops}

    def __contains__(self, loop: str) -> bool:
        return loop in self._standings

    @property
    def standings(self) -> Mapping[str, Standing[C]]:
        return self._standings

    def standing(self, loop: str) -> Standing[C]:
        """Raises KeyError for a loop that the project does not have."""
        return self._standings[loop]

    def is_news(self, state: ModelState) -> bool:
        """Whether `state` is newer than anything heard; an older or repeated record changes nothing."""
        return state.revision > self._standings[state.loop].heard

    def obey(self, state: ModelState, champion: C | None) -> None:
        """From here on `champion` answers. Whoever asked before keeps the one he got."""
        self._standings[state.loop] = Standing(state=state, champion=champion)

    def refuse(self, state: ModelState, reason: str) -> None:
        """The champion stays; the reason is shown until a newer state can be obeyed."""
        before = self._standings[state.loop]
        refusal = Refusal(state=state, reason=reason)
        self._standings[state.loop] = Standing(state=before.state, champion=before.champion, refusal=refusal)
