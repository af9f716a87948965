"""The rollout's state machine: which step may follow which, and what an event moves.

Each function looks at a loop and one event and gives the step that follows, or None. A step is a `RolloutMoved` that carries
the model state it leads to; its id is derived from the event, so that an event heard again is the same step and is made once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from millstream.contracts.envelope import derived_id
from millstream.contracts.events import (
    ChallengerJudged,
    ModelRef,
    ModelState,
    ReplicaObeyed,
    RolloutMoved,
    Step,
    TrialFinding,
    WindowKind,
)
from millstream.contracts.times import SECOND, from_datetime, to_datetime
from millstream_trainer.domain.broken import blind, covered
from millstream_trainer.domain.hearing import days
from millstream_trainer.domain.replicas import ACKNOWLEDGED_WITHIN
from millstream_trainer.domain.rules import RolloutRules
from millstream_trainer.domain.state import LoopState

MOVES: Mapping[Step, frozenset[Step]] = {
    Step.REGISTERED: frozenset({Step.SHADOW, Step.CANARY, Step.CHAMPION, Step.REJECTED}),
    Step.SHADOW: frozenset({Step.CANARY, Step.CHAMPION, Step.REJECTED}),
    Step.CANARY: frozenset({Step.CANARY, Step.CHAMPION, Step.REJECTED, Step.ROLLED_BACK}),
    Step.CHAMPION: frozenset({Step.CHAMPION, Step.ROLLED_BACK}),
    Step.REJECTED: frozenset(),
    Step.ROLLED_BACK: frozenset({Step.CHAMPION}),
}
"""From a model's step to its next ones. A rejected model stays rejected: the same data would make the same model. Champion to
champion: it stays, and what surrounds it changes (the watch is over, a person froze or pinned). Only a person brings a model
back that was rolled back, and only to answer."""

BAD = frozenset({TrialFinding.WORSE, TrialFinding.UNFIT})


class IllegalMove(ValueError):
    """A step that may not follow."""


def move(current: Step, following: Step) -> Step:
    """`following`, when it may come after `current`. Raises IllegalMove."""
    if following not in MOVES[current]:
        allowed = ", ".join(sorted(MOVES[current])) or "nothing"
        raise IllegalMove(f"{current} → {following} is not a move; after {current} comes {allowed}")
    return following


def entered(
    state: LoopState, challenger: ModelRef, rules: RolloutRules, *, at: int, reason: str, live: bool = False
) -> RolloutMoved | None:
    """The first step of a model that passed the gate: a trial, or to answer at once. None while a person holds the loop.

    `live`, here as below: whether any replica lives, whose word a promotion waits for.
    """
    models = state.models or ModelState(
        id="",
        loop=state.loop,
        revision=0,
        step=Step.REGISTERED,
        champion=None,
        challenger=None,
        previous=None,
        reason="",
        at=to_datetime(at),
    )
    id = derived_id("moved", state.loop, challenger.run)
    if models.frozen or models.pinned:
        return None
    if models.champion is None or not rules.has_trial:
        return _promoted(models, challenger, Step.REGISTERED, rules, live, id=id, at=at, reason=reason)
    share = 0.0 if rules.shadow else rules.canary[0]
    step = move(Step.REGISTERED, Step.SHADOW if rules.shadow else Step.CANARY)
    following = {"step": step, "challenger": challenger, "share": share, "watch_until": None}
    if models.watch_until is not None:
        # Serving asks two models at once, and who is on trial is one of them.
        reason += f"; with it the watch of version {models.champion.version} ends{_on_pairs(state, models.champion)}"
    return stepped(models, challenger, Step.REGISTERED, step, following, id=id, at=at, reason=reason)


def judged(
    state: LoopState, event: ChallengerJudged, rules: RolloutRules, *, live: bool = False
) -> RolloutMoved | None:
    """What a comparison moves. One that is older than the state it would change says nothing about it."""
    models, id, at = state.models, move_id(state.loop, event.id), from_datetime(event.at)
    if models is None or models.champion is None or id in state.moves or at < from_datetime(models.at):
        return None
    if event.watch:
        pair = (models.champion, models.previous)
        if models.watch_until is None or not _compares(event, *pair) or event.finding not in BAD:
            return None
        return rolled_back(models, models.previous, id=id, at=at, reason=event.reason, numbers=_numbers(event))
    challenger = models.challenger
    if challenger is None or not _compares(event, challenger, models.champion):
        return None
    return _tried(models, challenger, event, rules, live, id=id, at=at)


def _tried(
    models: ModelState,
    challenger: ModelRef,
    event: ChallengerJudged,
    rules: RolloutRules,
    live: bool,
    *,
    id: str,
    at: int,
) -> RolloutMoved | None:
    numbers = _numbers(event)
    if event.finding in BAD:
        return trial_ended(models, Step.REJECTED, id=id, at=at, reason=event.reason, numbers=numbers)
    pairs = event.pairs - models.pairs
    lasts = rules.shadow if models.step is Step.SHADOW else rules.step
    if pairs < lasts and event.finding is not TrialFinding.BETTER:
        return None
    said = f"{event.pairs} pairs, a difference of {event.difference:+.5f} ({event.low:+.5f} to {event.high:+.5f})"
    if event.difference > rules.tolerance * event.loss:
        allowed = f"more than {rules.tolerance:.2%} of {event.loss:.5f}"
        reason = f"{allowed} worse at the end of the step: {said}"
        return trial_ended(models, Step.REJECTED, id=id, at=at, reason=reason, numbers=numbers)
    if models.frozen or models.promoting:
        return None
    share = next((share for share in rules.canary if share > models.share), None)
    reason = (
        f"{event.finding.value} than version {event.against}" if event.finding is TrialFinding.BETTER else "no worse"
    )
    if share is None:
        return _promoted(
            models, challenger, models.step, rules, live, id=id, at=at, reason=f"{reason}: {said}", numbers=numbers
        )
    step = move(models.step, Step.CANARY)
    following = {"step": step, "share": share, "pairs": event.pairs}
    reason = f"{reason}, {share:.0%} of entities are next: {said}"
    return stepped(models, challenger, models.step, step, following, id=id, at=at, reason=reason, numbers=numbers)


def clocked(state: LoopState, event_id: str, at: int, rules: RolloutRules) -> RolloutMoved | None:
    """What time moves: a trial that takes too long is rejected, a watch ends. Neither counts time with broken inputs, and a
    trial none in which a person held it."""
    models, id = state.models, move_id(state.loop, event_id)
    if models is None or id in state.moves:
        return None
    if models.challenger is not None:
        run = state.run(models.challenger.run)
        began = run.at if run is not None else from_datetime(models.since or models.at)
        broken, frozen = blind(state.spells.get(WindowKind.INPUTS, ()), began, at), state.frozen_within(began, at)
        if models.frozen or at - began - covered(broken + frozen) <= rules.longest:
            return None
        besides = _besides(covered(broken)) + (f", {days(covered(frozen))} frozen" if frozen else "")
        reason = f"no end after {days(at - began)}{besides}, rollout.longest is {days(rules.longest)}"
        return trial_ended(models, Step.REJECTED, id=id, at=at, reason=reason)
    if models.champion is None or models.promoting:
        return None  # what not every replica does yet has not been watched
    watch = watched(state, at, rules)
    if watch is None or at < watch[0]:
        return None
    told = (
        f"watched until {to_datetime(watch[0]):%Y-%m-%d %H:%M}{_besides(watch[1])}{_on_pairs(state, models.champion)}"
    )
    reason = f"{told}: version {models.champion.version} stays"
    following = {"step": move(Step.CHAMPION, Step.CHAMPION), "watch_until": None}
    return stepped(models, models.champion, Step.CHAMPION, Step.CHAMPION, following, id=id, at=at, reason=reason)


def watched(state: LoopState, at: int, rules: RolloutRules) -> tuple[int, int] | None:
    """When the watch ends, as far as is known at that time, and how much of it had broken inputs (microseconds)."""
    if state.models is None or state.models.watch_until is None:
        return None
    until = from_datetime(state.models.watch_until)
    hidden = covered(blind(state.spells.get(WindowKind.INPUTS, ()), until - rules.watch, at))
    return until + hidden, hidden


def _on_pairs(state: LoopState, champion: ModelRef) -> str:
    """What its watch rested on."""
    judged = state.judged.get(True)
    if judged is None or judged.version != champion.version:
        return ", no comparison was heard"
    return f", on {judged.pairs or 'no'} labelled pairs"


def _besides(hidden: int) -> str:
    return f", {days(hidden)} of it with broken inputs" if hidden else ""


def refused(state: LoopState, event: ReplicaObeyed) -> RolloutMoved | None:
    """What a live replica's refusal takes back: the trial, or the promotion, that the newest state is about.

    A trial is not to blame for a champion that cannot be loaded. None begins before the promotion is done, so whoever refuses
    the champion of a trial's state refuses what all others obey.
    """
    models, id = state.models, move_id(state.loop, event.id)
    if models is None or not event.refused or event.refused != models.revision or id in state.moves:
        return None
    at = state.stream_time or from_datetime(models.at)
    reason = f"replica {event.instance} cannot obey revision {event.refused}: {event.reason}"
    if models.challenger is not None:
        if models.champion is not None and event.refused_version == models.champion.version:
            return None
        return trial_ended(models, Step.REJECTED, id=id, at=at, reason=reason)
    fresh = models.promoting or models.watch_until is not None or models.since == models.at
    if models.step is not Step.CHAMPION or models.previous is None or models.pinned or not fresh:
        return None  # nothing newer than what all others obey: that replica is ill, not the state
    return rolled_back(models, models.previous, id=id, at=at, reason=reason)


def acknowledged(state: LoopState, live: Sequence[ReplicaObeyed], *, late: bool) -> RolloutMoved | None:
    """The end of a promotion: every `live` replica obeys it, none lives, or it is `late`.

    It goes on without those who have not said so. To take it back would not reach them either, and until they hear of it they
    answer with the champion before: what they would answer had it been taken back. Stamped with the stream's time of the
    promotion, since replicas answer by the wall's clock: a replay is told alike.
    """
    models = state.models
    if models is None or models.champion is None or not models.promoting:
        return None
    behind = [one for one in live if one.revision < models.promoting]
    if behind and not late:
        return None
    obey = f"{len(live) - len(behind)} of {len(live)} replicas obey it"
    if not live:
        obey = "no replica lives, who starts reads it from the topic"
    if behind:
        obey += f", the rollout goes on; not within {ACKNOWLEDGED_WITHIN // SECOND} s: {', '.join(map(_late, behind))}"
    return stepped(
        models,
        models.champion,
        Step.CHAMPION,
        move(Step.CHAMPION, Step.CHAMPION),
        {"promoting": 0},
        id=derived_id("obeyed", state.loop, str(models.promoting)),
        at=from_datetime(models.at),
        reason=obey,
        numbers={"replicas": float(len(live)), "obey": float(len(live) - len(behind))},
    )


def _late(one: ReplicaObeyed) -> str:
    refuses = f", refuses {one.refused}: {one.reason}" if one.refused else ""
    return f"{one.instance} (at revision {one.revision}{refuses})"


def move_id(loop: str, event: str) -> str:
    """Id of the step that the event with this id leads to."""
    return derived_id("moved", loop, event)


def _promoted(
    models: ModelState, model: ModelRef, before: Step, rules: RolloutRules, live: bool, *, id: str, at: int, **said: Any
) -> RolloutMoved:
    at = max(at, from_datetime(models.at))
    watched = models.champion is not None and rules.watch > 0
    following = {
        "step": move(before, Step.CHAMPION),
        "champion": model,
        "challenger": None,
        "previous": models.champion,
        "share": 0.0,
        "pairs": 0,
        "watch_until": to_datetime(at + rules.watch) if watched else None,
        "promoting": models.revision + 1 if live else 0,
    }
    return stepped(models, model, before, Step.CHAMPION, following, id=id, at=at, **said)


def trial_ended(models: ModelState, step: Step, **said: Any) -> RolloutMoved:
    """The trial ends, and its model with it."""
    assert models.challenger is not None
    following = {"step": move(models.step, step), "challenger": None, "share": 0.0, "pairs": 0}
    return stepped(models, models.challenger, models.step, step, following, **said)


def rolled_back(models: ModelState, to: ModelRef | None, **said: Any) -> RolloutMoved:
    """`to` answers again, and the champion is taken back."""
    assert models.champion is not None
    assert to is not None
    step = move(Step.CHAMPION, Step.ROLLED_BACK)
    following = {"step": step, "champion": to, "previous": None, "watch_until": None, "promoting": 0}
    return stepped(models, models.champion, Step.CHAMPION, step, following, **said)


def stepped(
    models: ModelState,
    model: ModelRef,
    before: Step,
    step: Step,
    following: Mapping[str, Any],
    *,
    id: str,
    at: int,
    reason: str,
    by: str = "",
    numbers: Mapping[str, float] | None = None,
) -> RolloutMoved:
    """The step of `model`, with the state that follows. `since` is when the step began: it stays where the step does."""
    at = max(at, from_datetime(models.at))
    stays = step is before and following.get("share", models.share) == models.share
    revision = models.revision + 1
    led_to = msgspec.structs.replace(
        models,
        **{"since": models.since if stays else to_datetime(at), **following},
        id=derived_id("state", id),
        revision=revision,
        reason=reason,
        at=to_datetime(at),
    )
    return RolloutMoved(
        id=id,
        loop=models.loop,
        revision=revision,
        run=model.run,
        version=model.version,
        step=step,
        before=before,
        share=led_to.share,
        reason=reason,
        at=to_datetime(at),
        model=model,
        by=by,
        numbers=dict(numbers or {}),
        led_to=led_to,
    )


def _compares(event: ChallengerJudged, newer: ModelRef, older: ModelRef | None) -> bool:
    return older is not None and (event.version, event.against) == (newer.version, older.version)


def _numbers(event: ChallengerJudged) -> dict[str, float]:
    return {
        "pairs": float(event.pairs),
        "difference": event.difference,
        "low": event.low,
        "high": event.high,
        "loss": event.loss,
    }
