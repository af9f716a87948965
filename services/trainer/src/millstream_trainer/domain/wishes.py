"""A person's word on which model answers: what it moves, or why it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from millstream.contracts.envelope import derived_id
from millstream.contracts.events import (
    Cause,
    Decision,
    ModelRef,
    ModelState,
    RetrainDecided,
    RolloutAction,
    RolloutMoved,
    RolloutRequested,
    Step,
)
from millstream.contracts.times import from_datetime, to_datetime
from millstream_trainer.domain.rollout import MOVES, move, move_id, rolled_back, stepped, trial_ended
from millstream_trainer.domain.state import LoopState


def refusal(state: LoopState, action: RolloutAction, to: str | None) -> str | None:
    """Why this cannot be done now, for a person; None: it can."""
    models = state.models
    if models is None or models.champion is None:
        return "no model answers yet, so there is nothing to hold or to take back"
    if to is not None and to not in state.versions:
        return unknown_version(state, to)
    match action:
        case RolloutAction.FREEZE:
            return f"frozen already ({models.frozen})" if models.frozen else None
        case RolloutAction.UNFREEZE:
            return None if models.frozen else "the loop is not frozen"
        case RolloutAction.UNPIN:
            return None if models.pinned else "no version is pinned"
        case RolloutAction.PIN:
            return _no_pin(state, models, to)
        case RolloutAction.ROLLBACK:
            return _no_rollback(state, models, to)


def unknown_version(state: LoopState, version: str) -> str:
    known = ", ".join(sorted(state.versions, key=lambda v: (len(v), v))) or "none"
    return f"no version {version[:100]!r} was ever on trial or answered; known: {known}"


def requested(state: LoopState, event: RolloutRequested) -> RolloutMoved | None:
    """The next step towards what was asked, once `refusal` has nothing against it; None when it is done.

    A trial that stands in the way ends first: two steps, each with its state. The last one's id says that the request is done.
    """
    models, done = state.models, move_id(state.loop, event.id)
    if models is None or models.champion is None or done in state.moves:
        return None
    said = {"at": state.stream_time or from_datetime(models.at), "by": event.by, "reason": event.reason}
    champion, trial = models.champion, models.challenger
    match event.action:
        case RolloutAction.FREEZE:
            return _held(models, {"frozen": f"{event.by}: {event.reason}"}, id=done, **said)
        case RolloutAction.UNFREEZE:
            return _held(models, {"frozen": ""}, id=done, **said)
        case RolloutAction.UNPIN:
            return _held(models, {"pinned": ""}, id=done, **said)
        case _:
            pass
    ends_trial = trial is not None and event.to in (None, champion.version)
    if event.action is RolloutAction.ROLLBACK and ends_trial:
        return _end_trial(models, event.action, id=done, **said)
    if trial is not None and trial.version != event.to:
        return _end_trial(models, event.action, id=derived_id(done, trial.version), **said)
    if event.action is RolloutAction.PIN:
        return _pinned(state, models, state.versions[event.to or ""], id=done, **said)
    to = models.previous if event.to is None else state.versions[event.to]
    return rolled_back(models, to, id=done, **said)


def declined(state: LoopState, event: RolloutRequested, reason: str) -> RetrainDecided:
    """The answer to a wish that cannot be granted: once, and heard again it is not granted either."""
    return RetrainDecided(
        id=derived_id("decided", event.loop, event.id),
        loop=event.loop,
        request=event.id,
        cause=Cause.MANUAL,
        decision=Decision.DECLINED,
        reason=f"{event.action.value}: {reason}",
        at=to_datetime(state.stream_time or 0),
    )


def _no_pin(state: LoopState, models: ModelState, to: str | None) -> str | None:
    if to is None:
        return "say which version to pin"
    if models.pinned:
        return f"version {models.pinned} is pinned, unpin it first"
    assert models.champion is not None
    if to == models.champion.version:
        return None
    if models.frozen:
        return f"the loop is frozen ({models.frozen}), unfreeze it first"
    return _cannot_answer(state, to)


def _no_rollback(state: LoopState, models: ModelState, to: str | None) -> str | None:
    if models.pinned:
        return f"version {models.pinned} is pinned, unpin it first"
    if models.challenger is not None and to is None:
        return None
    assert models.champion is not None
    if to is None:
        return None if models.previous is not None else "no version answered before this one; name one to go back to"
    if to == models.champion.version:
        return None if models.challenger is not None else f"version {to} answers already"
    if models.challenger is not None and to == models.challenger.version:
        return f"version {to} is on trial; pin it to have it answer at once"
    return _cannot_answer(state, to)


def _cannot_answer(state: LoopState, to: str) -> str | None:
    step = state.steps.get(to, Step.CHAMPION)
    if Step.CHAMPION in MOVES[step]:
        return None
    return f"version {to} was {step.value}, and stays so; ask for a retrain"


def _held(models: ModelState, following: Mapping[str, Any], **said: Any) -> RolloutMoved:
    """The champion stays; what a person holds changes. The step of a trial under way stays too."""
    assert models.champion is not None
    step = move(Step.CHAMPION, Step.CHAMPION)
    return stepped(models, models.champion, Step.CHAMPION, step, following, **said)


def _end_trial(models: ModelState, action: RolloutAction, **said: Any) -> RolloutMoved:
    taken_back = action is RolloutAction.ROLLBACK and models.step is Step.CANARY
    return trial_ended(models, Step.ROLLED_BACK if taken_back else Step.REJECTED, **said)


def _pinned(state: LoopState, models: ModelState, to: ModelRef, **said: Any) -> RolloutMoved:
    assert models.champion is not None
    if to.version == models.champion.version:
        return _held(models, {"pinned": to.version, "watch_until": None}, **said)
    on_trial = models.challenger is not None and models.challenger.version == to.version
    before = models.step if on_trial else state.steps.get(to.version, Step.CHAMPION)
    following = {
        "step": move(before, Step.CHAMPION),
        "champion": to,
        "challenger": None,
        "previous": models.champion,
        "share": 0.0,
        "pairs": 0,
        "watch_until": None,
        "pinned": to.version,
        "promoting": 0,
        "since": to_datetime(max(said["at"], from_datetime(models.at))),
    }
    return stepped(models, to, before, Step.CHAMPION, following, **said)
