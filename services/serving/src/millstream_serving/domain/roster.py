"""Who answers for each loop: the newest model state that this replica could obey, and what it had to refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Generic, TypeVar

from millstream.contracts.canary import is_answered_by_challenger
from millstream.contracts.events import ModelRef, ModelState, Step
from millstream_serving.domain.turn import CHALLENGER, CHAMPION, PREVIOUS

C = TypeVar("C")
"""A loaded model; the roster only passes it on."""


def other_of(state: ModelState) -> tuple[ModelRef, str] | None:
    """Who is scored beside the champion, and as what: a challenger on trial, or the predecessor while it is watched."""
    if state.champion is None:
        return None
    if state.challenger is not None and state.step in (Step.SHADOW, Step.CANARY):
        return state.challenger, CHALLENGER
    if state.previous is not None and state.watch_until is not None:
        return state.previous, PREVIOUS
    return None


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A model state that could not be obeyed."""

    state: ModelState
    version: str
    """Of its champion or of its challenger: the one that could not be loaded."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class Standing(Generic[C]):
    """Where one loop stands. Replaced whole, so a reader sees one state and never half of two."""

    state: ModelState | None = None
    """The newest state that was obeyed."""
    champion: C | None = None
    other: C | None = None
    """Scores each question beside the champion: `role` says as what."""
    missing: str = ""
    """Why the predecessor is not scored although the champion is on watch."""
    unloaded: bool = False
    """The models gave way to those of other loops: of `champion` and `other` all is here but what computes."""
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

    @cached_property
    def role(self) -> str:
        """Of the other model: `challenger` or `previous`; empty where there is none."""
        found = other_of(self.state) if self.state and self.other is not None else None
        return found[1] if found else ""

    @property
    def guarded(self) -> str:
        """Role of the model that is not trusted yet: the challenger, or a champion on watch; empty where there is none."""
        return CHAMPION if self.role == PREVIOUS else self.role

    @property
    def trusted(self) -> str:
        """Role of the model that answers where the guarded one fails."""
        return PREVIOUS if self.role == PREVIOUS else CHAMPION

    @cached_property
    def models(self) -> Mapping[str, C]:
        """All that score a question, by role: the champion first."""
        found = {CHAMPION: self.champion, self.role: self.other}
        return {role: model for role, model in found.items() if model is not None}

    def turns(self, entities: Callable[[], Iterable[str]], questions: int) -> list[bool]:
        """For each question whether it is the guarded model's to answer; `entities` is called in the canary only."""
        state, role = self.state, self.role
        if state is None or not role:
            return [False] * questions
        if role == PREVIOUS:
            return [True] * questions
        if state.challenger is None or not state.share:
            return [False] * questions
        run, share = state.challenger.run, state.share
        return [is_answered_by_challenger(state.loop, run, entity, share) for entity in entities()]


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

    def obey(self, state: ModelState, champion: C | None, other: C | None = None, missing: str = "") -> None:
        """From here on `champion` answers, with `other` beside it. Whoever asked before keeps those he got."""
        self._standings[state.loop] = Standing(state=state, champion=champion, other=other, missing=missing)

    def unload(self, loop: str, champion: C, other: C | None) -> None:
        """Its models have left, but for what of `champion` and `other` says who they are."""
        self._standings[loop] = replace(self._standings[loop], champion=champion, other=other, unloaded=True)

    def load(self, loop: str, champion: C, other: C | None, missing: str) -> None:
        """Its models are back, of the same state."""
        before = self._standings[loop]
        self._standings[loop] = replace(before, champion=champion, other=other, missing=missing, unloaded=False)

    def stand_in(self, loop: str, champion: C) -> None:
        """`champion` answers, of a state that is not obeyed yet: nobody did before."""
        self._standings[loop] = Standing(champion=champion)

    def refuse(self, state: ModelState, version: str, reason: str, stand_in: C | None = None) -> None:
        """Both models stay; that `version` of it cannot be loaded is shown until a newer state can be obeyed.

        Where there is none that could stay `stand_in` answers: the champion of a state whose challenger was refused.
        """
        before = self._standings[state.loop]
        self._standings[state.loop] = Standing(
            state=before.state,
            champion=stand_in if before.champion is None else before.champion,
            other=before.other,
            missing=before.missing,
            unloaded=before.unloaded,
            refusal=Refusal(state=state, version=version, reason=reason),
        )
