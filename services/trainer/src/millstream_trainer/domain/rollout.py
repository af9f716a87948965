"""The rollout's state machine: which step may follow which, and the record that says so.

This release moves a challenger from registered straight to champion or rejected. Shadow and canary have their place in
the table; the steps that use them come with the paired comparison that must decide them.
"""

from __future__ import annotations

from collections.abc import Mapping

from millstream.contracts.envelope import derived_id
from millstream.contracts.events import ModelRef, ModelState, Step
from millstream.contracts.times import to_datetime

MOVES: Mapping[Step, frozenset[Step]] = {
    Step.REGISTERED: frozenset({Step.SHADOW, Step.CANARY, Step.CHAMPION, Step.REJECTED}),
    Step.SHADOW: frozenset({Step.CANARY, Step.CHAMPION, Step.REJECTED}),
    Step.CANARY: frozenset({Step.CANARY, Step.CHAMPION, Step.REJECTED, Step.ROLLED_BACK}),
    Step.CHAMPION: frozenset({Step.ROLLED_BACK}),
    Step.REJECTED: frozenset(),
    Step.ROLLED_BACK: frozenset(),
}
"""From a model's step to its next ones. A rejected model stays rejected: the same data would make the same model."""


class IllegalMove(ValueError):
    """A step that may not follow."""


def move(current: Step, following: Step) -> Step:
    """`following`, when it may come after `current`. Raises IllegalMove."""
    if following not in MOVES[current]:
        allowed = ", ".join(sorted(MOVES[current])) or "nothing"
        raise IllegalMove(f"{current} → {following} is not a move; after {current} comes {allowed}")
    return following


def promoted(state: ModelState | None, *, loop: str, challenger: ModelRef, reason: str, at: int) -> ModelState:
    """The record that makes `challenger` the champion. Derived from run and revision alone, so a repeat is the same record."""
    revision = 1 if state is None else state.revision + 1
    return ModelState(
        id=derived_id("promoted", loop, challenger.run, str(revision)),
        loop=loop,
        revision=revision,
        step=move(Step.REGISTERED, Step.CHAMPION),
        champion=challenger,
        challenger=None,
        previous=None if state is None else state.champion,
        reason=reason,
        at=to_datetime(at),
    )
