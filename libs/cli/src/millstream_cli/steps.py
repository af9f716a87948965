"""The rollout's steps in words."""

from __future__ import annotations

from millstream.contracts.events import RolloutMoved, Step


def step_of(step: Step, share: float) -> str:
    """A step as a person says it."""
    return f"canary {share:.0%}" if step is Step.CANARY else step.value.replace("_", " ")


def moved(move: RolloutMoved) -> str:
    """A step in words; a model may also stay while what surrounds it changes."""
    if move.before is move.step is Step.CHAMPION:
        if "obey" in move.numbers:
            return f"version {move.version} is promoted"
        now = move.led_to if move.by else None
        is_back = now is not None and bool(now.pinned) and now.since == move.at
        return f"version {move.version} " + ("answers again" if is_back else "stays")
    before = "canary" if move.before is Step.CANARY else step_of(move.before, 0.0)
    if move.led_to is not None and move.led_to.promoting == move.revision:
        return f"version {move.version}: {before} → champion, promoting"
    return f"version {move.version}: {before} → {step_of(move.step, move.share)}"


def held(move: RolloutMoved) -> str:
    """What a person holds after a step by which the champion stays."""
    now = move.led_to if move.by and move.before is move.step is Step.CHAMPION else None
    return "" if now is None else ", frozen" if now.frozen else ", pinned" if now.pinned else ", held no more"
