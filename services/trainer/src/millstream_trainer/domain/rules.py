"""What a loop's file says about retraining and rolling out, as the domain needs it. Durations in microseconds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from millstream.contracts.events import Cause
from millstream.contracts.quiet import Quiet


class Mode(StrEnum):
    AUTO = "auto"
    APPROVE = "approve"
    SUGGEST = "suggest"


@dataclass(frozen=True, kw_only=True)
class RolloutRules:
    """`rollout` of the loop's file."""

    shadow: int
    """Labelled pairs; 0: no shadow."""
    canary: tuple[float, ...]
    """Shares, growing."""
    step: int
    """Labelled pairs of a canary step."""
    longest: int
    watch: int
    """0: a promotion is not watched."""
    tolerance: float
    """Share of the champion's loss."""

    @property
    def has_trial(self) -> bool:
        return self.shadow > 0 or bool(self.canary)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """`retrain` and what else decides about a run."""

    first_rows: int
    schedule: int | None
    cooldown: int
    budget_runs: int
    budget_period: int
    causes: frozenset[Cause]
    """`retrain.on`; the first model needs no permission."""
    agree: int
    """Different causes that must have asked `within`."""
    within: int
    grow: float | None
    """New labels since the last run that ask by themselves, as a share of the older ones; None: none do."""
    grow_rows: int | None
    """The same as a number."""
    warm_up: int
    breaker: int
    """Challengers rejected in a row after which only a person may ask."""
    mature: int
    """Labels that drift waits for after its window; 0: it does not wait."""
    mature_longest: int
    quiet: Quiet
    """When no run starts by itself."""
    mode: Mode
    expires: int
    rollout: RolloutRules
